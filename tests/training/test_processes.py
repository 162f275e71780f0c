"""Several processes train as one, pieces of a batch add up to it, and nothing is sent inside an attack."""

import json
import os
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from crossclass.attacks import PGD
from crossclass.attacks.norms import L2
from crossclass.checkpoints.card import load_checkpoint, load_tensors
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.device import out_of_memory
from crossclass.core.errors import UserError
from crossclass.core.files import lock
from crossclass.core.runtime import Runtime
from crossclass.data import Shapes
from crossclass.data.augment import Augment
from crossclass.models import PreActResNet, ViT
from crossclass.training import epoch
from crossclass.training.averaging import EMA, SWA
from crossclass.training.labels import Mix, TemporalEnsembling
from crossclass.training.loop import iterate_epochs, train
from crossclass.training.recipes import AT, AWP
from crossclass.training.run import Run, Validation
from measuring import measure, read
from tiny_runs import CPU, RECIPES

# 25 images in batches of 8: the last one has a single image for two processes
PLAIN = Run(
    data=Shapes(n_train=25, n_val=8, n_test=11, classes=3, size=16),
    model=ViT(patch=8, width=16, depth=1, heads=2, normalise="data"),
    recipe=AT(attack=PGD(steps=2)),
    augment=Augment(crop=1),
    epochs=2,
    lr_milestones=(1,),
    batch=8,
    lr=0.05,
    validation=Validation(attack=PGD(steps=1), final=PGD(steps=1), batch=3),
)
NORMED = PLAIN.replace(model=PreActResNet(width=4, stem_stride=2, blocks=(1,), normalise="data"))
ALIKE = {
    "at": PLAIN,
    "l2": PLAIN.replace(recipe=AT(attack=PGD(threat=L2(eps=0.5), steps=2, rel_step=0.25))),
    **{kind: PLAIN.replace(recipe=recipe) for kind, recipe in RECIPES.items() if kind not in ("at", "awp")},
    "ensembling": PLAIN.replace(
        ensembling=TemporalEnsembling(start=1, ramp=2), mix=Mix(prob=0.8), label_smoothing=0.1
    ),
    "ema": PLAIN.replace(weight_averaging=EMA(decay=0.9), grad_clip_norm=0.5),
    "synced": NORMED,
    "synced-swa": NORMED.replace(weight_averaging=SWA()),
}
"""Runs that must not depend on the number of processes."""


def plain(run: Run, **more: object) -> dict:
    return {"run": run.to_dict(), **more}


def together(out: Path, wanted: dict, processes: int = 2) -> list[subprocess.Popen]:
    """Start the processes; as torchrun would."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "wanted.json").write_text(json.dumps(wanted))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = Path(__file__).parents[1] / "process_worker.py"
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    world |= {"LOCAL_WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, str(here), str(out), str(out / "wanted.json")],
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]


def finish(started: list[subprocess.Popen]) -> None:
    try:
        for process in started:
            said, _ = process.communicate(timeout=1800)  # only against a deadlock
            assert process.returncode == 0, said
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def weights(out: Path, label: str) -> dict[str, torch.Tensor]:
    (folder,) = out.glob(f"{label}-????????????")
    return load_checkpoint(folder / "last.safetensors")[0]


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("two")
    sync = {"sync_batch_norm": True}
    wanted = {k: plain(v, runtime=sync if k.startswith("synced") else {}) for k, v in ALIKE.items()}
    wanted["alone"] = plain(NORMED.replace(epochs=1, lr_milestones=()))
    wanted["uneven"] = plain(PLAIN.replace(epochs=1, lr_milestones=()), uneven=True)
    wanted["broken"] = plain(PLAIN.replace(lr=1e30))
    wanted["pieces"] = plain(PLAIN.replace(seed=7), runtime={"micro_batch": 3})
    (out / "wanted").mkdir()
    busy = RunFolder.of(out, "busy", PLAIN.replace(seed=9))
    wanted["busy"] = plain(PLAIN.replace(seed=9))
    with lock(busy.path / ".lock", "it is being trained"):
        finish(together(out, wanted))
    return out


@pytest.mark.parametrize("label", ALIKE)
def test_two_processes_train_what_one_does(two, tmp_path, label):
    train(ALIKE[label], tmp_path, label, CPU)
    assert furthest(weights(two, label), weights(tmp_path, label)) < 2e-5
    rows = [next(out.glob(f"{label}-????????????/events.jsonl")) for out in (two, tmp_path)]
    for a, b in zip(*([json.loads(line) for line in r.read_text().splitlines()] for r in rows), strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)
        assert a["train_robust"] == b["train_robust"]
        assert a["train_clean"] == b["train_clean"]


@pytest.mark.parametrize("label", ["at", "synced", "alone"])
def test_numbers_measured_by_two_are_those_of_one(two, label):
    # 11 test images in batches of 3, shared out as 3 + 3 and 3 + 2
    (folder,) = two.glob(f"{label}-????????????")
    stored = [m for m in read(folder / "measure.json") if m.get("checkpoint") == "last"]
    runtime = Runtime(device="cpu")
    again = measure([f"{folder}@last"], ["attack.steps=1", "attack.rel_step=0.25", "batch=3"], runtime)
    for key in ("clean", "robust", "C", "cas", "icas", "confusion", "intervals", "classwise_robust"):
        assert stored[0][key] == again[0][key], key


def test_batch_norm_of_ones_own_images_is_another_run(two, tmp_path):
    train(NORMED.replace(epochs=1, lr_milestones=()), tmp_path, "alone", CPU)
    assert furthest(weights(two, "alone"), weights(tmp_path, "alone")) > 1e-3


def test_processes_may_attack_for_different_times(two, tmp_path):
    train(PLAIN.replace(epochs=1, lr_milestones=()), tmp_path, "uneven", CPU)
    assert furthest(weights(two, "uneven"), weights(tmp_path, "uneven")) < 2e-5


def test_what_is_wrong_is_wrong_for_all(two):
    said = [(two / f"broken.error{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "not finite in epoch 1" in said[0]
    (folder,) = two.glob("broken-*")
    kept = [load_tensors(p)[0] for p in sorted((folder / "failure").iterdir())]
    assert sum(len(batch["index"]) for batch in kept) in (8, 4)
    said = [(two / f"busy.error{rank}").read_text() for rank in (0, 1)]
    assert all("is being trained by process" in text for text in said)
    assert said[1].startswith("True"), "the second need not say it again"


def test_the_world_is_recorded(two):
    (folder,) = two.glob("at-*")
    env = json.loads((folder / "env.json").read_text())
    assert env["processes"] == 2
    assert env["global_batch"] == 8


def test_killed_together_and_resumed_it_is_the_same(two, tmp_path):
    # each with its own batch norm: it resumes alike only because they agree on it after every epoch
    run = NORMED.replace(epochs=3, batch=4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(together(whole, {"long": plain(run)}))
    first, second = together(killed, {"long": plain(run, kill_at=10)})
    first.communicate()
    second.kill()  # it waits for the first, or has failed without it
    second.communicate()
    assert first.returncode == -signal.SIGKILL
    (folder,) = map(RunFolder, killed.glob("long-*"))
    assert (len(folder.rows()), folder.done) == (1, False)
    finish(together(killed, {"long": plain(run)}))
    a, b = weights(whole, "long"), weights(killed, "long")
    assert all(torch.equal(a[k], b[k]) for k in a)


class TestPieces:
    @pytest.mark.parametrize("label", ["at", "l2", "trades", "mart", "gradalign", "ensembling"])
    def test_pieces_add_up_to_the_batch(self, tmp_path, label):
        train(ALIKE[label], tmp_path / "whole", "w", CPU)
        train(ALIKE[label], tmp_path / "pieces", "w", Runtime(device="cpu", micro_batch=3))
        assert furthest(weights(tmp_path / "whole", "w"), weights(tmp_path / "pieces", "w")) < 2e-5

    def test_of_several_processes_too(self, two, tmp_path):
        train(PLAIN.replace(seed=7), tmp_path, "pieces", CPU)
        assert furthest(weights(two, "pieces"), weights(tmp_path, "pieces")) < 2e-5

    def test_with_batch_norm_it_is_said(self, tmp_path):
        said: list[str] = []
        next(iterate_epochs(NORMED, tmp_path, "n", Runtime(device="cpu", micro_batch=3), log=said.append))
        notes = [line for line in said if not line.startswith(("warning", str(tmp_path)))]
        assert notes[0].startswith("runtime.micro_batch=3: batch norm sees 3 of 8 images at a time")

    @pytest.mark.parametrize(
        ("rows", "most", "sizes"), [((0, 8), None, [8]), ((4, 9), 2, [2, 2, 1]), ((3, 3), 2, [])]
    )
    def test_cuts(self, rows, most, sizes):
        found = epoch.micro_batches(slice(*rows), most)
        assert [p.stop - p.start for p in found] == sizes
        assert all(a.stop == b.start for a, b in pairwise(found))


class TestMemory:
    """A memory that is too small: pieces get smaller where that changes nothing, else it is said."""

    def short(self, monkeypatch, most: int, error: Exception = MemoryError(), noise: float = 0.0) -> None:
        forward = nn.Linear.forward

        def full(self, x):
            if len(x) > most:
                raise error
            return forward(self, x + noise * torch.rand_like(x) if noise else x)

        monkeypatch.setattr(nn.Linear, "forward", full)

    def test_smaller_pieces_where_nothing_depends_on_them(self, tmp_path, monkeypatch):
        run = PLAIN.replace(validation=PLAIN.validation.replace(batch=2))
        train(run, tmp_path / "whole", "w", CPU)
        self.short(monkeypatch, 3)
        said: list[str] = []
        list(iterate_epochs(run, tmp_path / "short", "w", CPU, log=said.append))
        notes = [line for line in said if not line.startswith(("warning", str(tmp_path)))]
        assert notes == [
            "out of memory with 8 images at once; going on with 4, which changes nothing",
            "out of memory with 4 images at once; going on with 2, which changes nothing",
        ]
        assert furthest(weights(tmp_path / "whole", "w"), weights(tmp_path / "short", "w")) < 2e-5

    def test_errors_that_mean_a_full_memory(self):
        full = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
        for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(full), MemoryError()):
            assert out_of_memory(error)
        assert not out_of_memory(RuntimeError("shapes do not fit"))

    @pytest.mark.parametrize(
        ("run", "noise", "who"),
        [
            (NORMED, 0.0, "batch norm"),
            (PLAIN.replace(recipe=AWP(inner=PLAIN.recipe)), 0.0, "AWP"),
            (PLAIN, 0.1, "random layers"),
        ],
        ids=["batch norm", "AWP", "noise"],
    )
    def test_where_pieces_change_the_result_it_names_the_setting(
        self, tmp_path, monkeypatch, run, noise, who
    ):
        self.short(monkeypatch, 3, noise=noise)
        words = f"8 images at once; with {who} fewer .* runtime.micro_batch=4 to accept"
        with pytest.raises(UserError, match=words):
            train(run, tmp_path, "n", CPU)

    def test_a_single_image_that_does_not_fit(self, tmp_path, monkeypatch):
        self.short(monkeypatch, 0)
        with pytest.raises(UserError, match=r"out of memory with 1 images at once; set"):
            train(PLAIN, tmp_path, "n", CPU)

    def test_other_errors_stay_what_they_are(self, tmp_path, monkeypatch):
        self.short(monkeypatch, 3, RuntimeError("shapes do not fit"))
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            train(PLAIN, tmp_path, "n", CPU)
