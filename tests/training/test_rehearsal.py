"""What no checkpoint can hold is refused before the first step; what one can hold trains and resumes."""

from pathlib import Path

import pytest
import torch

from crossclass.analysis.measure import Measure, measure
from crossclass.attacks import PGD
from crossclass.checkpoints.load import load_model
from crossclass.core.errors import UserError
from crossclass.data import Shapes, as_float
from crossclass.models import Python
from crossclass.training import rehearsal
from crossclass.training.averaging import EMA, SWA
from crossclass.training.loop import iterate_epochs, train
from crossclass.training.recipes import AT, AWP
from crossclass.training.run import Run
from odd_states import KEPT, LOST
from tiny_runs import CPU, TINY, killed_after, same, weights

pytestmark = pytest.mark.usefixtures("trusted")


def run_of(name: str, average: EMA | SWA | None = None) -> Run:
    model = Python(call=f"odd_states:{name}")
    return TINY.replace(
        data=Shapes(n_train=12, n_val=4, n_test=6, classes=3, size=16),
        model=model,
        recipe=AT(attack=PGD(steps=1)),
        weight_averaging=average,
        epochs=2,
        batch=6,
        lr_milestones=(),
        checkpoint_every=0,
    )


AVERAGED = ("Expanded", "Sparse", "OldWeightNorm", "Queue", "Eighth")
CASES = [(name, None) for name in KEPT] + [(n, a) for n in AVERAGED for a in (EMA(decay=0.5), SWA())]


@pytest.mark.parametrize(("name", "average"), CASES, ids=str)
def test_unusual_state_is_kept(name: str, average: EMA | SWA | None, tmp_path: Path) -> None:
    run, last = run_of(name, average), []
    for folder, _ in iterate_epochs(run, tmp_path / "whole", "x", CPU):
        last.append(folder)
    killed_after(1, tmp_path / "killed", run)
    assert same(weights(train(run, tmp_path / "killed", "x", CPU)), weights(last[-1]))
    assert not list(tmp_path.rglob("*.tmp"))
    network, _ = load_model(last[-1].checkpoint("last"))
    splits = run.data()
    with torch.no_grad():
        right = (network(as_float(splits.test.images)).argmax(1) == splits.test.labels).double().mean()
    measured = measure([f"{last[-1].path}@last"], Measure(clean=True)).results[0]
    assert measured["clean"] == pytest.approx(float(right))
    final = [
        r for r in last[-1].read("measure.json")["results"] if r.get("checkpoint", {}).get("name") == "last"
    ]
    assert final[0]["clean"] == pytest.approx(float(right))


@pytest.mark.parametrize("name", LOST)
def test_what_would_be_lost_is_refused_before_the_first_step(name: str, tmp_path: Path) -> None:
    steps = []
    with pytest.raises(UserError, match=LOST[name]) as e:
        list(iterate_epochs(run_of(name), tmp_path, "x", CPU, lambda *a: steps.append(a)))
    assert "\n" not in str(e.value)
    assert str(e.value).isprintable()
    assert not steps
    assert not list(tmp_path.rglob("*.tmp"))


def test_awp_trains_unusual_state_too(tmp_path: Path) -> None:
    for name in ("Tied", "Expanded", "Sparse", "OldWeightNorm"):
        train(run_of(name).replace(recipe=AWP(inner=AT(attack=PGD(steps=1)))), tmp_path, name, CPU)


def test_a_rehearsal_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("Net", EMA())
    first = weights(train(run, tmp_path / "a", "x", CPU))
    monkeypatch.setattr("crossclass.training.loop.rehearse", lambda *_: None)
    assert same(first, weights(train(run, tmp_path / "b", "x", CPU)))


def test_a_memory_too_small_for_a_copy_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(rehearsal, "saved_state", full)
    train(run_of("Net"), tmp_path, "x", CPU)
