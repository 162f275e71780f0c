"""Teachers of a distilled run: from settings to a network, trained first if there is none yet."""

from collections.abc import Callable
from pathlib import Path

from crossclass.analysis import evaluate
from crossclass.analysis.renumbering import explaining_renumbering
from crossclass.checkpoints.card import Card, fingerprint, load_tensors
from crossclass.checkpoints.load import load_model
from crossclass.checkpoints.run_folder import RunFolder, split_target
from crossclass.core.device import to_device
from crossclass.core.errors import UserError
from crossclass.core.overrides import override
from crossclass.core.progress import Log
from crossclass.core.runtime import Runtime
from crossclass.data import Splits
from crossclass.models import Classifier
from crossclass.training.recipes import KnowledgeDistillation, Recipe, Teacher, distillations, map_teachers
from crossclass.training.run import Run

FinishedRun = Callable[[Run], RunFolder]
"""Gives the finished folder of a run, trained if need be."""


def with_fingerprints(recipe: Recipe) -> Recipe:
    """The recipe with fingerprints in place of where its teachers' files lie; raises UserError."""

    def fingerprinted(kd: KnowledgeDistillation, teacher: Teacher) -> Teacher:
        if teacher.module is not None:
            raise UserError(
                "a run cannot be told from another by a module in memory; name its teacher by "
                "teachers=[{file: RUN@best.val}], or use the recipe in a loop of your own"
            )
        if teacher.file is None:
            if teacher.fingerprint is not None:
                raise UserError("the teacher was a file; give it again with recipe.teachers=[{file: ...}]")
            return teacher
        path = _path(teacher.file, teacher.which)
        sha256 = fingerprint(load_tensors(path)[0])[:16]
        if teacher.fingerprint not in (None, sha256):
            raise UserError(f"{path} is not the teacher of this run: its fingerprint is {sha256}")
        return teacher.replace(fingerprint=sha256)

    return map_teachers(recipe, fingerprinted)


def load_teachers(run: Run, splits: Splits, runtime: Runtime, finished: FinishedRun, log: Log) -> Recipe:
    """The recipe of a run with a network in every teacher.

    `finished` trains a teacher that is a run. Raises UserError for a teacher of other classes, or one that
    is no better than chance on the training images.
    """

    def load(kd: KnowledgeDistillation, teacher: Teacher) -> Teacher:
        path = _path(teacher.file, teacher.which) if teacher.file else _train(teacher, kd, run, finished, log)
        model, card = load_model(path)
        model = to_device(model, runtime.torch_device, runtime.memory_format)
        _require_fit(path, model, card, splits)
        log(f"teacher: {path.parent.name}/{card.checkpoint}, epoch {card.epoch}")
        return teacher.replace(module=model.requires_grad_(False))

    return map_teachers(run.recipe, load)


def _path(file: str, which: str) -> Path:
    """Where a teacher lies, in a run folder as `which`; raises UserError if it does not exist."""
    path, named = split_target(file)
    if path.is_dir():
        path = RunFolder.at(path).checkpoint(named or which)
    if not path.is_file():
        raise UserError(
            f"there is no teacher {path}; train it first (crossclass train NAME out=DIR), or leave "
            "recipe.teachers out to have this run's own AT trained"
        )
    return path


def _train(teacher: Teacher, kd: KnowledgeDistillation, run: Run, finished: FinishedRun, log: Log) -> Path:
    """The checkpoint of a teacher that is a run of its own; that of a fork begins with new weights too."""
    teacher_run = override(run.replace(recipe=kd.inner, parent=None), teacher.changes)
    if any(distillations(teacher_run.recipe)):
        raise UserError("a teacher's run is itself distilled; give its trained checkpoint with file=...")
    kind = teacher_run.recipe.kind
    log(f"the teacher is {kind} with seed {teacher_run.seed}; it is trained first if there is none yet")
    folder = finished(teacher_run)
    checkpoints = folder.checkpoints()
    name = teacher.which if teacher.which in checkpoints else "best.test"
    if name not in checkpoints:
        raise UserError(
            f"{folder.path} has no checkpoint '{teacher.which}'; delete the folder to train it anew"
        )
    return folder.checkpoint(name)


def _require_fit(path: Path, model: Classifier, card: Card, splits: Splits) -> None:
    """Raises UserError for a teacher of other classes, or one that is near chance on training images."""
    classes, channels = len(splits.class_names), splits.train.images.shape[1]
    if (card.classes, card.channels) != (classes, channels):
        raise UserError(
            f"the teacher {path} is for {card.classes} classes and {card.channels} channels, this run for "
            f"{classes} and {channels}; name a teacher trained on the same data"
        )
    part = splits.train.drawn(1000, seed=0)
    said = evaluate.evaluate(model, part, None)
    right, chance = said.accuracy("clean"), 1 / classes
    error = (chance * (1 - chance) / len(part)) ** 0.5
    if explaining_renumbering(said.clean, said.labels) is not None:
        raise UserError(
            f"the teacher {path} numbers its classes otherwise than the data ({right:.0%} of the training "
            "images are right); name a teacher trained on the same data"
        )
    if right < chance + 3 * error and len(part) >= 100:
        raise UserError(
            f"the teacher {path} is right on {right:.0%} of the training images, no better than chance: "
            "other normalisation or labels? 'crossclass doctor' tells"
        )
