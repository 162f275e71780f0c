"""Settings of a run that mean something else than they seem: said at the start and kept in the run."""

import json
from dataclasses import replace

import pytest
import torch

from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.core.errors import UserError
from crossclass.data import Split, Splits
from crossclass.models import HF, Timm, Torchvision
from crossclass.training.labels import Mix
from crossclass.training.loop import iterate_epochs
from crossclass.training.recipes import AT, AWP, Standard
from crossclass.training.run import Run, Validation
from crossclass.training.run_warnings import run_warnings
from tiny_runs import CPU, TINY


def splits(n: int = 200, classes: int = 4, seen: int = 4) -> Splits:
    pixels = torch.randint(0, 256, (2, n, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    train, part = (Split(images, torch.arange(n) % seen) for images in pixels)
    return Splits(train, part, part, tuple("abcdefghij"[:classes]), "")


def test_usual_runs_are_not_warned_of():
    fast = FGSM(start="uniform", rel_step=1.25)
    for run in (
        Run(),
        Run(recipe=AT(attack=PGD(steps=7))),
        Run(recipe=AT(attack=fast)),
        Run(recipe=Standard()),
        Run(model=Timm(name="resnet18")),
        Run(model=Timm(name="resnet18", pretrained=True, normalise="imagenet")),
    ):
        assert run_warnings(run, splits()) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"batch": 256}, "batch=256"),
        ({"validation": Validation(every=201)}, "validation.every=201"),
        ({"validation": Validation(n=500)}, "validation.n=500"),
        (
            {"validation": Validation(attack=PGD(threat=Linf(eps=4 / 255)))},
            "validation.attack is in l_inf 4/255",
        ),
        ({"validation": Validation(final=PGD(threat=L2()))}, "validation.final is in l_2"),
        ({"validation": Validation(attack=PGD(steps=1))}, "validation.attack: the attack is too short"),
        ({"validation": Validation(attack=PGD(steps=1))}, " validation.attack.steps="),
        ({"validation": Validation(final=PGD(steps=1))}, " validation.final.steps="),
        ({"recipe": AT(attack=PGD(steps=2))}, "training: the attack is too short"),
        ({"recipe": AT(attack=PGD(steps=2))}, " recipe.attack.steps="),
        ({"recipe": AWP(inner=AT(attack=PGD(steps=2)))}, " recipe.inner.attack.steps="),
        ({"checkpoint_every": 300}, "checkpoint_every=300"),
        ({"lr_warmup": 300}, "lr_warmup=300"),
        ({"eps_warmup": 300}, "eps_warmup=300"),
        ({"lr": 10.0, "weight_decay": 0.2}, "weight_decay=0.2"),
        ({"attack_labels": "soft"}, "attack_labels=soft"),
        ({"mix": Mix(prob=0)}, "mix"),
        ({"restore_last_good": True}, "restore_last_good"),
        ({"model": Timm(name="resnet18", pretrained=True)}, "model.normalise=data"),
        ({"model": Torchvision(name="resnet18", weights="DEFAULT")}, "model.normalise=data"),
        ({"model": HF(repo="owner/name")}, "model.normalise=data"),
    ],
)
def test_what_means_something_else_is_one_sentence(changes, word):
    (sentence,) = run_warnings(Run().replace(**changes), splits())
    assert word in sentence
    assert sentence.isprintable()


def test_classes_without_training_images_are_named():
    (sentence,) = run_warnings(Run(), splits(classes=10, seen=5))
    assert "f, g, h and 2 more" in sentence


@pytest.mark.parametrize(("smoothing", "refused"), [(0.7, False), (0.75, True), (0.9, True)])
def test_smoothing_that_hides_the_true_class_is_refused(smoothing, refused):
    """Of four classes the true one gets 1 - s and each other s/3: equal at s = 3/4."""
    run = Run(label_smoothing=smoothing)
    if refused:
        with pytest.raises(UserError, match="label_smoothing"):
            run_warnings(run, splits())
    else:
        assert run_warnings(run, splits()) == []


def test_warnings_are_printed_at_the_start_and_kept(tmp_path):
    told = []
    run = TINY.replace(batch=64, epochs=1, lr_milestones=())
    folder, _ = next(iterate_epochs(run, tmp_path, "tiny", CPU, log=told.append))
    kept = json.loads((folder.path / "env.json").read_text())["warnings"]
    assert any("batch=64" in w for w in kept)
    assert [f"warning: {w}" for w in kept] == [t for t in told if t.startswith("warning: ")]


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="targeted"):
        next(iterate_epochs(TINY.replace(recipe=AT(attack=PGD(targeted=True))), tmp_path, "tiny", CPU))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["attack", "final"])
def test_validations_are_measurements(name):
    """Half an eps per step crosses the ball from its middle, but not from a start at its edge."""
    run = Run().replace(validation=Validation(**{name: PGD(steps=3, rel_step=0.5)}))
    (sentence,) = [w for w in run_warnings(run, splits()) if f"validation.{name}:" in w]
    assert "the attack is short" in sentence


def test_dark_images_are_said_before_training():
    parts = splits()
    dark = Split(parts.train.images // 16, parts.train.labels)
    (sentence,) = run_warnings(Run(), replace(parts, train=dark, val=dark.first(0), test=dark.first(0)))
    assert "largest pixel" in sentence
