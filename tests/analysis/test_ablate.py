"""`ablate` of checkpoints: its numbers, its files, what cannot be asked for."""

import json

import pytest
import torch
from torch import nn

from crossclass.analysis import ablate as module
from crossclass.analysis.ablate import Ablate, ablate
from crossclass.analysis.ablated_networks import Ablated, Transplanted
from crossclass.analysis.ablation_records import AblationFile
from crossclass.analysis.evaluate import evaluate
from crossclass.attacks import PGD
from crossclass.checkpoints.in_memory import from_memory
from crossclass.checkpoints.load import load_checkpoints
from crossclass.core.errors import UserError
from crossclass.training.loop import train
from tiny_runs import CPU, TINY

FEW = Ablate(draws=2, fractions=(0.1, 0.3), losses=(0.1,), attack=PGD(steps=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose best and last checkpoints differ."""
    settings = TINY.replace(seed=1, validation=TINY.validation.replace(every=1))
    run = train(settings, tmp_path_factory.mktemp("runs"), "tiny", CPU)
    assert run.checkpoint("best.val").read_bytes() != run.checkpoint("last").read_bytes()
    return run.path


@pytest.fixture(scope="module")
def found(folder) -> AblationFile:
    return ablate([str(folder)], FEW, runtime=CPU)


def test_every_set_is_attacked_through_the_network_without_it(folder, found) -> None:
    for one, target in zip(found.checkpoints, ("best.val", "last"), strict=True):
        read = next(load_checkpoints([f"{folder}@{target}"], runtime=CPU))
        part, attack = read.splits.test, PGD(steps=2, return_iterate="first")
        at = evaluate(read.model, part, None).features.mean(dim=0)
        whole = evaluate(read.model, part, attack)
        assert (one.clean, one.robust) == (whole.accuracy("clean"), whole.accuracy("robust"))
        for s in one.sets:
            if s.sort == "random":
                continue
            removed = torch.tensor(getattr(one, s.sort)[: s.count])
            seen = evaluate(Ablated(read.model, removed, at), part, attack)
            assert (s.clean, s.robust) == (seen.accuracy("clean"), seen.accuracy("robust"))
    assert {s.draw for s in found.checkpoints[0].sets} == {None, 0, 1}


def test_what_is_matched_is_the_difference_of_its_sets(found) -> None:
    for one in found.checkpoints:
        by_mass = [m for m in one.matched if m.by == "mass"]
        assert [m.level for m in by_mass] == [0.1, 0.3]
        for m in by_mass:
            for sort in ("shared", "specific"):
                (s,) = [s for s in one.sets if s.sort == sort and s.mass == pytest.approx(m.mass[sort])]
                assert m.robust_lost[sort].value == pytest.approx(one.robust - s.robust)
                assert m.clean_lost[sort].value == pytest.approx(one.clean - s.clean)
            difference = m.robust_lost["shared"].value - m.robust_lost["specific"].value
            assert m.shared_minus_specific.value == pytest.approx(difference)
        mean = sum(m.shared_minus_specific.value for m in by_mass) / 2
        assert one.summaries[0].shared_minus_specific.value == pytest.approx(mean)


def test_components_of_each_checkpoint_are_put_into_the_other(folder, found) -> None:
    assert [(t.donor, t.recipient, t.mass) for t in found.transplants] == [
        (*pair, f) for pair in (("best.val", "last"), ("last", "best.val")) for f in (0.1, 0.3)
    ]
    best, last = load_checkpoints([str(folder)], runtime=CPU)
    (m,) = [m for m in found.checkpoints[0].matched if m.by == "mass" and m.level == 0.3]
    (s,) = [s for s in found.checkpoints[0].sets if s.sort == "shared" and s.mass == m.mass["shared"]]
    net = Transplanted(last.model, best.model, torch.tensor(found.checkpoints[0].shared[: s.count]))
    seen = evaluate(net, best.splits.test, PGD(steps=2, return_iterate="first"))
    assert found.transplants[1].robust["shared"] == seen.accuracy("robust")


def test_the_command_writes_numbers_and_curves(folder, call, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("draws=2", "fractions=0.1", "losses=0.1", "attack.steps=2", "out=a.json")
    code, out, err = call("ablate", f"{folder}@last", *arguments)
    assert code == 0, err
    assert out.splitlines()[-1] == "a.json"
    assert "attacks" in err
    file = AblationFile.model_validate(json.loads((tmp_path / "a.json").read_text()))
    assert file.calibration in out
    assert (tmp_path / file.figure).read_text().startswith("<?xml")


def test_two_classes(tmp_path) -> None:
    run = train(
        TINY.replace(data=TINY.data.replace(classes=2), epochs=1, lr_milestones=()), tmp_path, "two", CPU
    )
    file = ablate([f"{run.path}@last"], FEW, runtime=CPU)
    assert file.checkpoints[0].matched


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("fractions=0.1,1.5", "fractions"),
        ("fractions=0", "fractions"),
        ("losses=-0.1", "losses"),
        ("draws=1", "draws"),
        ("attack=none", "attack"),
        ("saliency=2", "saliency"),
    ],
)
def test_what_cannot_be_asked_for(folder, call, typed: str, said: str) -> None:
    code, _, err = call("ablate", str(folder), typed)
    assert code == 2
    assert said in err


def test_a_network_that_is_not_linear_in_its_features(monkeypatch) -> None:
    class Softmaxed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(12, 3)

        def forward(self, x):
            return self.fc(x.flatten(1)).softmax(dim=1)

    x, y = torch.rand(12, 3, 2, 2), torch.arange(12) % 3
    one = from_memory(Softmaxed(), x, y, head="fc")
    monkeypatch.setattr(module, "load_checkpoints", lambda *_, **__: iter([one]))
    monkeypatch.setattr(module, "checkpoint_files", lambda _: ["file"])
    with pytest.raises(UserError, match="'fc'"):
        ablate(["file"], FEW, runtime=CPU)


def test_three_checkpoints_are_too_many(folder) -> None:
    with pytest.raises(UserError, match="no more than two"):
        ablate([str(folder), f"{folder}@last"], FEW, runtime=CPU)
