"""What goes to a tracker is what metrics.csv says; without its package it is one sentence."""

import csv

import pytest

from crossclass.attacks import PGD
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.data import Shapes
from crossclass.models import PreActResNet
from crossclass.training.loop import train
from crossclass.training.recipes import AT, KnowledgeDistillation
from crossclass.training.run import Run, Validation

RUN = Run(
    data=Shapes(n_train=16, n_val=8, n_test=9, classes=3, size=16),
    model=PreActResNet(width=4, stem_stride=2, blocks=(1,), normalise="data"),
    recipe=KnowledgeDistillation(inner=AT(attack=PGD(steps=1))),
    augment=None,
    epochs=3,
    lr_milestones=(1,),
    batch=8,
    validation=Validation(every=2, attack=PGD(steps=1), final=PGD(steps=1)),
)


def test_tensorboard_gets_the_rows(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = train(RUN, tmp_path, "t", Runtime(device="cpu", track="tensorboard"))
    teacher = next(p for p in tmp_path.iterdir() if "teacher" in p.name)
    for place in (folder.path, teacher):  # each in its own folder
        sent = accumulators.EventAccumulator(str(place / "crossclass"))
        sent.Reload()
        with (place / "metrics.csv").open() as f:
            rows = list(csv.DictReader(f))
        for key in ("lr", "train_loss", "test_robust", "cas"):
            wanted = {int(r["epoch"]): float(r[key]) for r in rows if r[key]}
            found = {e.step: e.value for e in sent.Scalars(key)}
            assert found == pytest.approx(wanted, rel=1e-5), key
    assert (folder.path / "events.jsonl").exists()


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(UserError, match=r"runtime.track=wandb needs its package: pip install wandb"):
        train(RUN, tmp_path, "t", Runtime(device="cpu", track="wandb"))
    assert not list(tmp_path.iterdir())


def test_nothing_is_sent_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", lambda *a, **k: pytest.fail("asked nobody"))
    train(RUN.replace(epochs=2), tmp_path, "t", Runtime(device="cpu"))
