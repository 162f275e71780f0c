"""What `crossclass measure` takes: targets, data and models for them, attacks by name."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crossclass.attacks import PGD
from crossclass.attacks.norms import L2
from crossclass.checkpoints.run_folder import RunFolder, split_target
from crossclass.cli import main
from crossclass.core.errors import UserError
from crossclass.data import Npz, Shapes
from crossclass.models import PreActResNet
from crossclass.training.loop import train
from crossclass.training.recipes import AT
from crossclass.training.run import Run, Validation
from measuring import measure
from tiny_runs import CPU

SMALL = Run(
    data=Npz(),
    model=PreActResNet(width=4, stem_stride=2, blocks=(1,)),
    recipe=AT(attack=PGD(steps=1)),
    augment=None,
    epochs=1,
    lr_milestones=(),
    batch=16,
    validation=Validation(attack=PGD(steps=1), final=PGD(steps=1)),
)
NETS = """
import torch
from torch import nn

def net(**_):
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*pooled, nn.Linear(4, 3))
"""


def images(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for part in ("train", "test"):
        pictures = rng.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
        np.savez(folder / f"{part}.npz", images=pictures, labels=np.arange(24) % 3)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """A run of one epoch on images in files; read, never changed. Its folder's name holds an @."""
    folder = tmp_path_factory.mktemp("run")
    data = Npz(path=images(folder / "data"))
    return train(SMALL.replace(data=data), folder / "me@example.org", "r", CPU)


@pytest.fixture
def own_network(tmp_path, monkeypatch, trusted):
    """In the current folder weights of a network that a file of it defines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("own_nets.py").write_text(NETS)
    import own_nets

    torch.save(own_nets.net().state_dict(), "own.pth")
    images(tmp_path / "data")
    yield
    sys.modules.pop("own_nets", None)


def test_data_given_whole_replace_those_of_a_run(run, tmp_path):
    asked = [f"data={{kind: npz, path: {images(tmp_path / 'other', seed=1)}}}", "n=12"]
    (best, last) = measure([str(run.path)], asked, CPU)[:2]
    (same, *_) = measure([str(run.path)], ["n=12"], CPU)
    assert best["confusion"] != same["confusion"] or last["cas"] != same["cas"]


def test_data_of_another_kind_can_be_named(tmp_path):
    data = Shapes(n_train=24, n_val=6, n_test=6, classes=3, size=16)
    folder = train(SMALL.replace(data=data), tmp_path / "runs", "s", CPU)
    changes = ["data.kind=npz", f"data.path={images(tmp_path / 'data')}"]
    assert measure([f"{folder.path}@last"], changes, CPU)[0]["data"].startswith("npz")


def test_a_path_may_hold_an_at_sign(run):
    for target in (str(run.path), f"{run.path}@last"):
        assert measure([target], ["n=6"], CPU)
    assert split_target(f"{run.path}@last") == (run.path, "last")
    assert split_target(str(run.path)) == (run.path, "")


def test_a_foreign_file_beside_a_run_can_be_given_its_network(run, own_network):
    change = "model=python:own_nets:net"
    found = measure([f"{run.path}@last", "own.pth"], [change, "data.path=data", "n=6"], CPU)
    assert len(found) == 3  # two, and their difference
    with pytest.raises(UserError, match="says itself which model it is"):
        measure([str(run.path)], [change], CPU)


def test_a_model_given_whole_keeps_its_normalisation(own_network):
    normalise = "{mean: [0.1, 0.1, 0.1], std: [0.7, 0.7, 0.7]}"
    whole = f"model={{kind: python, call: 'own_nets:net', normalise: {normalise}}}"
    (found,) = measure(["own.pth"], [whole, "data.path=data", "n=6"], CPU)
    assert found["normalise"] == {"mean": [0.1] * 3, "std": [0.7] * 3}


def test_another_ball_brings_its_own_step(run, tmp_path):
    recipe = AT(attack=PGD(threat=L2(eps=0.5), steps=1))
    data = Npz(path=images(tmp_path / "data"))
    folder = train(SMALL.replace(data=data, recipe=recipe), tmp_path / "runs", "r", CPU)

    def attack(*changes: str) -> dict:
        return measure([f"{folder.path}@last"], [*changes, "n=6"], CPU)[0]["conditions"]["attack"]

    assert attack("attack.steps=2")["rel_step"] == 0.125
    assert attack("attack.threat.kind=linf", "attack.threat.eps=4/255", "attack.steps=2")["rel_step"] == 0.25
    assert attack("attack.step_size=3/255", "attack.steps=2")["step_size"] == "3/255"
    assert attack("attack.threat.eps=1.0", "attack.rel_step=0.3", "attack.steps=2")["rel_step"] == 0.3


@pytest.mark.parametrize(
    ("changes", "kind", "steps"),
    [
        (["attack=fgsm"], "fgsm", 1),
        (["attack.kind=fgsm"], "fgsm", 1),
        (["attack=pgd", "attack.steps=2"], "pgd", 2),
    ],
)
def test_an_attack_may_be_named_by_its_kind(run, changes, kind, steps):
    (found,) = measure([f"{run.path}@last"], [*changes, "n=6"], CPU)
    conditions = found["conditions"]
    assert (conditions["attack"]["kind"], conditions["steps"], conditions["eps"]) == (kind, steps, "8/255")


def test_a_checkpoint_is_not_compared_with_itself(run):
    found = measure([str(run.path)], ["n=6"], CPU)  # one epoch: best and last are the same
    assert not any("comparison" in entry for entry in found)


def test_clean_images_have_no_robust_accuracy(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["measure", f"{run.path}@last", "attack=none", "n=6"])
    line = next(t for t in capsys.readouterr().out.splitlines() if t.startswith("last"))
    assert line.split()[3] == "-"
