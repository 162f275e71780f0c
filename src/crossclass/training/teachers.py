"""Teachers of a distilled run: from settings to a network, trained first if it is missing."""

from collections.abc import Callable
from pathlib import Path

from crossclass import models
from crossclass.analysis import evaluate
from crossclass.checkpoints.card import fingerprint, load_tensors
from crossclass.checkpoints.load import load_model
from crossclass.checkpoints.run_folder import RunFolder, place_of
from crossclass.core.device import to_device
from crossclass.core.errors import UserError
from crossclass.core.overrides import override
from crossclass.core.progress import Log
from crossclass.core.runtime import Runtime
from crossclass.data import Splits
from crossclass.training.recipes import KnowledgeDistillation, Recipe, Teacher, distillations, map_teachers
from crossclass.training.run import Run

FinishedRun = Callable[[Run], RunFolder]
"""Gives the finished folder of a run, trained if need be."""


def with_fingerprints(recipe: Recipe) -> Recipe:
    """The recipe with fingerprints in place of where its teachers' files lie; raises UserError."""
    return map_teachers(recipe, lambda kd, teacher: _with_fingerprint(teacher))


def load_teachers(
    recipe: Recipe, run: Run, splits: Splits, runtime: Runtime, finished: FinishedRun, log: Log
) -> Recipe:
    """The recipe with a network in every teacher.

    `finished` trains a teacher that is a run. Raises UserError for a teacher of other classes, or one that
    is no better than chance on the training images.
    """

    def load(kd: KnowledgeDistillation, teacher: Teacher) -> Teacher:
        path = _path(teacher) if teacher.file else _train(teacher, kd, run, finished, log)
        model, card = load_model(path)
        _check_classes(path, card.classes, card.channels, splits)
        model = to_device(model, runtime.torch_device, runtime.memory_format)
        _check_above_chance(model, splits, path)
        log(f"teacher: {path.parent.name}/{card.checkpoint}, epoch {card.epoch}")
        return teacher.replace(module=model.requires_grad_(False))

    return map_teachers(recipe, load)


def _with_fingerprint(teacher: Teacher) -> Teacher:
    if teacher.module is not None:
        raise UserError(
            "a run cannot be told from another by a module in memory; name its teacher by teachers=[{file: "
            "RUN@best.val}], or use the recipe in a loop of your own"
        )
    if teacher.file is None:
        if teacher.fingerprint is not None:
            raise UserError("the teacher was a file; give it again with recipe.teachers=[{file: ...}]")
        return teacher
    path = _path(teacher)
    sha256 = fingerprint(load_tensors(path)[0])[:16]
    if teacher.fingerprint not in (None, sha256):
        raise UserError(f"{path} is not the teacher of this run: its fingerprint is {sha256}")
    return teacher.replace(fingerprint=sha256)


def _path(teacher: Teacher) -> Path:
    assert teacher.file is not None
    path, which = place_of(teacher.file)
    if path.is_dir():
        folder = RunFolder.at(path)
        path = folder.checkpoint(which or teacher.which)
    if not path.is_file():
        raise UserError(
            f"there is no teacher {path}; train it first (crossclass train NAME out=DIR), or leave "
            "recipe.teachers out to have this run's own AT trained"
        )
    return path


def _train(teacher: Teacher, kd: KnowledgeDistillation, run: Run, finished: FinishedRun, log: Log) -> Path:
    """The checkpoint of a teacher that is a run of its own."""
    teacher_run = override(run.replace(recipe=kd.inner), teacher.changes)
    if any(distillations(teacher_run.recipe)):
        raise UserError("a teacher's run is itself distilled; give its trained checkpoint with file=...")
    kind = teacher_run.recipe.kind
    log(f"the teacher is {kind} with seed {teacher_run.seed}; it is trained first if it is missing")
    folder = finished(teacher_run)
    checkpoints = folder.checkpoints()
    name = teacher.which if teacher.which in checkpoints else "best.test"
    if name not in checkpoints:
        raise UserError(
            f"{folder.path} has no checkpoint '{teacher.which}'; delete the folder to train it anew"
        )
    return folder.checkpoint(name)


def _check_classes(path: Path, classes: int, channels: int, splits: Splits) -> None:
    here = len(splits.class_names), splits.train.images.shape[1]
    if (classes, channels) != here:
        raise UserError(
            f"the teacher {path} is for {classes} classes and {channels} channels, this run for {here[0]} "
            f"and {here[1]}; name a teacher trained on the same data"
        )


def _check_above_chance(model: models.Classifier, splits: Splits, path: Path) -> None:
    """A teacher near chance on training images has another normalisation, or other labels."""
    right = evaluate.clean_accuracy(model, splits.train.first(1000))
    chance = 1 / len(splits.class_names)
    error = (chance * (1 - chance) / min(1000, len(splits.train))) ** 0.5
    if right < chance + 3 * error and len(splits.train) >= 100:
        raise UserError(
            f"the teacher {path} is right on {right:.0%} of the training images, no better than chance: "
            "other normalisation or labels? `crossclass doctor` tells"
        )
