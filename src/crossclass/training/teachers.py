"""Teachers of a distilled run: from a name to a network, trained first if it is missing."""

from collections.abc import Callable
from pathlib import Path

from crossclass import models
from crossclass.analysis import evaluate
from crossclass.checkpoints.card import fingerprint, load_checkpoint
from crossclass.checkpoints.load import load_model
from crossclass.checkpoints.run_folder import RunFolder, place_of
from crossclass.core.config import override
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.data import Splits
from crossclass.training.recipes import AWP, AnyRecipe, KnowledgeDistillation, Teacher
from crossclass.training.run import Run

Find = Callable[[Run], RunFolder]
"""Gives the finished folder of a run, trained if need be."""


def fingerprinted(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe with fingerprints in place of where the teachers' files lie; raises UserError."""
    if isinstance(recipe, AWP):
        return recipe.replace(inner=fingerprinted(recipe.inner))
    if not isinstance(recipe, KnowledgeDistillation):
        return recipe
    return recipe.replace(teachers=tuple(_sealed(t) for t in recipe.teachers))


def present(
    recipe: AnyRecipe, run: Run, splits: Splits, runtime: Runtime, find: Find, say: Callable[[str], None]
) -> AnyRecipe:
    """The recipe with networks in place of its teachers' names; raises UserError if one does not fit."""
    if isinstance(recipe, AWP):
        return recipe.replace(inner=present(recipe.inner, run, splits, runtime, find, say))
    if not isinstance(recipe, KnowledgeDistillation):
        return recipe
    teachers = []
    for teacher in recipe.teachers:
        path = _path(teacher) if teacher.file else _trained(teacher, recipe, run, find, say)
        # code that this run names anyway, for itself or for the teacher just trained, needs no more consent
        known = teacher.file is None or load_checkpoint(path)[1].get("model") == run.model.to_dict()
        model, card = load_model(path, trust=known)
        _fits(path, card["classes"], card["channels"], splits)
        model = runtime.to_device(model)  # type: ignore[assignment]
        _knows(model, splits, path)
        say(f"teacher: {path.parent.name}/{card['checkpoint']}, epoch {card['epoch']}")
        teachers.append(teacher.replace(module=model.requires_grad_(False)))
    return recipe.replace(teachers=tuple(teachers))


def of(recipe: AnyRecipe) -> tuple[Teacher, ...]:
    """The teachers of a recipe, also of one inside a wrapper."""
    if isinstance(recipe, AWP):
        return of(recipe.inner)
    return recipe.teachers if isinstance(recipe, KnowledgeDistillation) else ()


def runs(run: Run) -> list[Run]:
    """The runs that a distilled run would train for teachers; raises UserError for changes that make none."""
    recipe = run.recipe.inner if isinstance(run.recipe, AWP) else run.recipe
    if not isinstance(recipe, KnowledgeDistillation):
        return []
    plain = run.replace(recipe=recipe.inner)
    return [override(plain, t.changes) for t in recipe.teachers if t.file is None and t.module is None]


def _sealed(teacher: Teacher) -> Teacher:
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
    found = fingerprint(load_checkpoint(path)[0])[:16]
    if teacher.fingerprint not in (None, found):
        raise UserError(f"{path} is not the teacher of this run: its fingerprint is {found}")
    return teacher.replace(fingerprint=found)


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


def _trained(
    teacher: Teacher, recipe: KnowledgeDistillation, run: Run, find: Find, say: Callable[[str], None]
) -> Path:
    plain = run.replace(recipe=recipe.inner)
    wanted = override(plain, teacher.changes)
    if of(wanted.recipe):
        raise UserError("a teacher's run is itself distilled; give its trained checkpoint with file=...")
    say(f"the teacher is {wanted.recipe.kind} with seed {wanted.seed}; it is trained first if it is missing")
    folder = find(wanted)
    there = folder.checkpoints()
    name = teacher.which if teacher.which in there else "best.test"
    if name not in there:
        raise UserError(
            f"{folder.path} has no checkpoint '{teacher.which}'; delete the folder to train it anew"
        )
    return folder.checkpoint(name)


def _fits(path: Path, classes: int, channels: int, splits: Splits) -> None:
    here = len(splits.class_names), splits.train.images.shape[1]
    if (classes, channels) != here:
        raise UserError(
            f"the teacher {path} is for {classes} classes and {channels} channels, this run for {here[0]} "
            f"and {here[1]}; name a teacher trained on the same data"
        )


def _knows(model: models.Classifier, splits: Splits, path: Path) -> None:
    """A teacher near chance on training images has another normalisation, or other labels."""
    right = evaluate.clean_accuracy(model, splits.train.first(1000))
    chance = 1 / len(splits.class_names)
    spread = (chance * (1 - chance) / min(1000, len(splits.train))) ** 0.5
    if right < chance + 3 * spread and len(splits.train) >= 100:
        raise UserError(
            f"the teacher {path} is right on {right:.0%} of the training images, no better than chance: "
            "other normalisation or labels? `crossclass doctor` tells"
        )
