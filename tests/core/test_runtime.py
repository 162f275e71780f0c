"""Execution settings change how a run is computed and never what it is."""

import pytest
import torch
from accelerate import PartialState
from torch import nn

from crossclass.attacks import FGSM, PGD
from crossclass.checkpoints.card import load_checkpoint
from crossclass.core import runtime
from crossclass.core.config import validated
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.data import Shapes
from crossclass.models import PreActResNet
from crossclass.training.loop import iterate_epochs, train
from crossclass.training.recipes import AT, AWP, GradAlign
from crossclass.training.run import Run, Validation

RUN = Run(
    data=Shapes(n_train=20, n_val=8, n_test=9, classes=3, size=16),
    model=PreActResNet(width=4, stem_stride=2, blocks=(1,), normalise="data"),
    recipe=AT(attack=PGD(steps=2)),
    augment=None,
    epochs=1,
    lr_milestones=(),
    batch=8,
    validation=Validation(attack=PGD(steps=1), final=PGD(steps=1)),
)


class Counted(nn.Module):
    """Stands for a compiled network: the same weights, and a count of its calls."""

    made = None

    def __init__(self, inner: nn.Module, dynamic: bool | None = None) -> None:
        super().__init__()
        self._orig_mod, self.calls = inner, 0
        Counted.made = self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self._orig_mod(x)


@pytest.mark.parametrize(
    ("recipe", "calls"),
    [(AT(attack=PGD(steps=2)), 4), (GradAlign(attack=FGSM()), 2), (AWP(inner=AT(attack=PGD(steps=1))), 2)],
)
def test_only_crafting_is_compiled(tmp_path, monkeypatch, recipe, calls):
    # three batches, the last too small to compile for; what is trained and kept is the network itself
    run = RUN.replace(recipe=recipe)
    plain = train(run, tmp_path / "plain", "t", Runtime(device="cpu"))
    monkeypatch.setattr(torch, "compile", Counted)
    monkeypatch.setenv("CXX", "g++")
    compiled = train(run, tmp_path / "compiled", "t", Runtime(device="cpu", compile=True))
    assert Counted.made.calls == calls
    a, b = (load_checkpoint(f.checkpoint("last"))[0] for f in (plain, compiled))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert compiled.read("env.json")["compile"] is True


def test_compiling_needs_a_compiler(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        train(RUN, tmp_path, "t", Runtime(device="cpu", compile=True))


def test_the_device_is_that_of_the_settings_not_of_the_first_engine(monkeypatch):
    assert Runtime(device="cpu").torch_device == torch.device("cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Runtime(device="auto").torch_device == torch.device("cuda", 0)
    assert Runtime(device="cpu").torch_device == torch.device("cpu")


def test_a_cpu_can_be_asked_for_after_a_gpu(monkeypatch):
    # Accelerate refuses it in one process; comparing a GPU with the CPU needs both
    assert Runtime(device="cpu").group
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("cuda", 0))
    assert Runtime(device="cpu").torch_device == torch.device("cpu")


def test_a_cpu_slow_at_bf16_computes_in_float32_and_says_so(tmp_path, monkeypatch):
    bf16 = RUN.replace(recipe=AWP(inner=AT(attack=PGD(steps=2, precision="bf16"))), precision="bf16")
    fp32 = RUN.replace(recipe=AWP(inner=AT(attack=PGD(steps=2))))
    said: dict[str, list[str]] = {"slow": [], "obeyed": []}

    def weights(run, name, **settings):
        stream = iterate_epochs(
            run, tmp_path / name, "t", Runtime(device="cpu", **settings), log=said.get(name, []).append
        )
        *_, (folder, _) = stream
        return load_checkpoint(folder.checkpoint("last"))[0], folder

    def equal(a, b):
        return all(torch.equal(a[0][k], b[0][k]) for k in a[0])

    monkeypatch.setattr(runtime, "bf16_pays", lambda: True)
    computed, exact = weights(bf16, "computed"), weights(fp32, "exact")
    monkeypatch.setattr(runtime, "bf16_pays", lambda: False)
    slow, obeyed = weights(bf16, "slow"), weights(bf16, "obeyed", emulate_bf16=True)
    assert equal(slow, exact)
    assert equal(obeyed, computed)
    assert not equal(computed, exact)
    assert slow[1].path.name == computed[1].path.name  # what the run is has not changed
    assert slow[1].read("env.json")["bf16"] == "float32 in its place"
    assert any("slow at bf16" in text for text in said["slow"])
    assert not any("slow at bf16" in text for text in said["obeyed"])


@pytest.mark.parametrize("pays", [False, True])
def test_a_resumed_run_keeps_to_what_was_decided_about_bf16(tmp_path, monkeypatch, pays):
    attack = PGD(steps=2, precision="bf16")
    run = RUN.replace(recipe=AWP(inner=AT(attack=attack)), precision="bf16", epochs=2)

    def rows(place, decisions):
        for stop, decision in enumerate(decisions, 1):
            monkeypatch.setattr(runtime, "bf16_pays", lambda: decision)  # noqa: B023
            stream = iterate_epochs(run, tmp_path / place, "t", Runtime(device="cpu"))
            for folder, row in stream:  # noqa: B007
                if row.epoch == stop and stop < len(decisions):
                    break
            stream.close()
        return load_checkpoint(folder.checkpoint("last"))[0], folder.read("env.json")

    at_once, _ = rows("at once", [pays])
    resumed, env = rows("resumed", [pays, not pays])
    assert all(torch.equal(at_once[k], resumed[k]) for k in at_once)
    assert env["bf16"] == ("computed" if pays else "float32 in its place")
    assert not env["earlier"]


def test_pieces_and_joined_batch_norm_are_refused_together():
    with pytest.raises(UserError, match="leave out micro_batch"):
        validated(Runtime, {"sync_batch_norm": True, "micro_batch": 8})
