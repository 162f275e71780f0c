"""Teachers: trained when missing, named by a file, refused when they do not fit."""

import shutil

import pytest
import torch
import yaml

from crossclass.attacks import PGD
from crossclass.checkpoints.card import fingerprint, load_checkpoint, save_checkpoint
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.errors import UserError
from crossclass.data import Shapes
from crossclass.models import from_text
from crossclass.training.loop import train
from crossclass.training.recipes import AT, AWP, KnowledgeDistillation, Standard, Teacher
from crossclass.training.run import Run
from tiny_runs import CPU, TINY, killed_after, same, weights

INNER = AT(attack=PGD(steps=1))
RUN = TINY.replace(recipe=KnowledgeDistillation(inner=INNER), epochs=2, lr_milestones=(), checkpoint_every=0)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> RunFolder:
    return train(RUN.replace(recipe=INNER), tmp_path_factory.mktemp("teacher"), "t", CPU)


def test_a_missing_teacher_is_trained_first_and_only_once(tmp_path):
    folder = train(RUN, tmp_path, "kd", CPU)
    assert len(list(tmp_path.iterdir())) == 2
    (own,) = [p for p in tmp_path.iterdir() if "teacher" in p.name]
    before = {p: p.stat().st_mtime_ns for p in own.rglob("*")}
    train(RUN.replace(recipe=RUN.recipe.replace(lam=0.9)), tmp_path, "kd", CPU)
    assert before == {p: p.stat().st_mtime_ns for p in own.rglob("*")}
    assert not same(weights(folder), weights(RunFolder(own)))


def test_the_teacher_is_the_same_run_without_distillation(tmp_path, teacher):
    shutil.copytree(teacher.path, tmp_path / teacher.path.name)
    train(RUN, tmp_path, "kd", CPU)
    assert len(list(tmp_path.iterdir())) == 2  # it was found, not trained again


def test_killed_while_the_teacher_trains(tmp_path):
    whole = train(RUN, tmp_path / "whole", "kd", CPU)
    killed_after(1, tmp_path / "killed", run=RUN, inside=True)
    assert same(weights(train(RUN, tmp_path / "killed", "kd", CPU)), weights(whole))


def test_a_file_teaches_as_its_run_does(tmp_path, teacher):
    named = train(RUN, tmp_path / "named", "kd", CPU)
    for text in (f"{teacher.path}@best.val", str(teacher.checkpoint("best.val")), str(teacher.path)):
        run = RUN.replace(recipe=RUN.recipe.replace(teachers=(Teacher(file=text),)))
        folder = train(run, tmp_path / "file", "kd", CPU)
        assert same(weights(folder), weights(named))
    assert len(list((tmp_path / "file").iterdir())) == 1, "where the file lies is not part of the run"
    assert str(teacher.path) not in folder.config()
    assert fingerprint(weights(teacher, "best.val"))[:16] in folder.config()


def test_another_file_is_not_the_same_teacher(tmp_path, teacher):
    wrong = Teacher(file=f"{teacher.path}@last", fingerprint="0" * 16)
    with pytest.raises(UserError, match="is not the teacher of this run"):
        train(RUN.replace(recipe=RUN.recipe.replace(teachers=(wrong,))), tmp_path, "kd", CPU)


def test_two_teachers_one_of_another_recipe(tmp_path):
    two = (Teacher(changes={"recipe.kind": "standard"}, which="last"), Teacher(weight=6))
    train(RUN.replace(recipe=RUN.recipe.replace(teachers=two)), tmp_path, "kd", CPU)
    kinds = [yaml.safe_load(RunFolder(p).config())["recipe"]["kind"] for p in tmp_path.iterdir()]
    assert sorted(kinds) == ["at", "kd", "standard"]


def test_a_teacher_inside_a_wrapper(tmp_path, teacher):
    shutil.copytree(teacher.path, tmp_path / teacher.path.name)
    train(RUN.replace(recipe=AWP(inner=RUN.recipe)), tmp_path, "awp", CPU)


def test_teachers_that_do_not_fit_are_refused(tmp_path, teacher):
    def taught(text: str, **changes) -> Run:
        return RUN.replace(recipe=RUN.recipe.replace(teachers=(Teacher(file=text),)), **changes)

    with pytest.raises(UserError, match=r"there is no teacher .*none; train it first"):
        train(taught(str(tmp_path / "none")), tmp_path, "kd", CPU)
    four = TINY.data.replace(classes=4)
    with pytest.raises(UserError, match="for 3 classes and 3 channels, this run for 4 and 3"):
        train(taught(str(teacher.path), data=four), tmp_path, "kd", CPU)
    nested = RUN.replace(recipe=RUN.recipe.replace(teachers=(Teacher(changes={"recipe.kind": "kd"}),)))
    with pytest.raises(UserError, match="itself distilled"):
        train(nested, tmp_path, "kd", CPU)
    module = RUN.replace(recipe=RUN.recipe.replace(teachers=(Teacher(module=torch.nn.Flatten()),)))
    with pytest.raises(UserError, match="module in memory"):
        train(module, tmp_path, "kd", CPU)
    assert not list(tmp_path.glob("*/DONE"))


def test_a_teacher_that_knows_nothing_is_refused(tmp_path):
    """As after a wrong normalisation: no better than chance on the training images."""
    data = Shapes(n_train=120, n_val=12, n_test=14, classes=3, size=16)
    run = TINY.replace(data=data, recipe=Standard(), epochs=1, lr_milestones=(), checkpoint_every=0)
    folder = train(run, tmp_path, "t", CPU)
    tensors, card = load_checkpoint(folder.checkpoint("last"))
    tensors["mean"] += 40.0
    bad = tmp_path / "bad.safetensors"
    save_checkpoint(bad, tensors, card)
    taught = run.replace(recipe=KnowledgeDistillation(inner=INNER, teachers=(Teacher(file=str(bad)),)))
    with pytest.raises(UserError, match="no better than chance"):
        train(taught, tmp_path, "kd", CPU)


def test_a_network_of_ones_own_is_distilled_from_itself(tmp_path, monkeypatch, trusted):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "distilled_net.py").write_text(
        "from torch import nn\n"
        "def net(**_): return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))\n"
    )
    model, recipe = from_text("python:distilled_net:net"), KnowledgeDistillation(inner=TINY.recipe)
    run = TINY.replace(model=model, recipe=recipe, epochs=1, lr_milestones=(), checkpoint_every=0)
    assert train(run, tmp_path / "runs", "kd", CPU).done
