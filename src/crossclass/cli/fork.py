"""`crossclass fork RUN@EPOCH path=value ...`: arms of one parent, which differ from there on."""

import itertools
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from crossclass.cli.app import Trust, app
from crossclass.core.errors import UserError

if TYPE_CHECKING:
    from crossclass.checkpoints.run_folder import RunFolder
    from crossclass.cli.own_settings import Fork
    from crossclass.training.recipes import Recipe
    from crossclass.training.run import Run


@app.command()
def fork(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RUN@EPOCH... path=value...", help="Run folders, each with its epoch"),
    ],
    trust: Trust = False,
) -> int:
    """Go on from a run's state after an epoch, with other settings.

    Batches and noise are the parent's, so its arms differ by the settings alone. EPOCH is a number or
    best.val; the parent was trained with keep_state=[EPOCH] or keep_state=[best]. Several parents (also
    as 'runs/*@15'), and path=a,b, give every combination, one after the other; each is a run folder that the
    same command finds again. The lines printed are the folders. Exit code 1 if one failed.

    \b
    Examples:
      crossclass fork runs/shapes-demo-seed0-0123456789ab@15 label_smoothing=0,0.2
      crossclass fork runs/a@best.val runs/b@best.val recipe.kind=at,kd epochs=60
      crossclass fork 'runs/*-seed*@15' eps=4/255,8/255 out=arms
    """
    from crossclass.cli.arguments import read_arguments
    from crossclass.cli.own_settings import Fork
    from crossclass.cli.progress import progress_display
    from crossclass.cli.train import show_training
    from crossclass.core.trust import names_of_code, require_consent, trusting
    from crossclass.training.run import Run

    read, failed = read_arguments(words, Run, own=Fork()), False
    if not read.targets:
        raise UserError("name a run folder and an epoch, such as runs/shapes-demo-seed0-0123456789ab@15")
    with trusting(everything=trust):
        for arm in (arms := _arms(read.targets, read.assignments, read.own)):
            require_consent(names_of_code(arm.run.to_dict()), arm.typed)
        for arm in arms:
            try:
                notes = [f"differs from its parent: {arm.differs}"]
                print(show_training(arm.run, arm.out, arm.label, read.own, notes=notes))
            except UserError as e:
                if len(arms) == 1:
                    raise
                failed = True
                with progress_display("fork") as progress:
                    progress.log(f"FAILED    {arm.typed}: {e}")
    return int(failed)


class _Arm(NamedTuple):
    run: "Run"
    out: Path
    label: str
    typed: str
    """The parent and what is changed, as it was typed."""
    differs: str
    """In what it differs from its parent, also where that was not typed."""


def _arms(targets: Sequence[str], assignments: Sequence[tuple[str, str]], own: "Fork") -> list[_Arm]:
    """Every combination of a parent with values; raises UserError for one that cannot begin."""
    from crossclass.cli.arguments import parse_values, split_values
    from crossclass.cli.train import run_with_images
    from crossclass.core.config import differences
    from crossclass.paper.runs import with_changes
    from crossclass.training.forks import parent_of
    from crossclass.training.run import Parent, Run

    arms, known = list[_Arm](), dict[str, str]()
    axes = [[(path, value) for value in split_values(text)] for path, text in assignments]
    for target in itertools.chain.from_iterable(map(_matching, targets)):
        folder, epoch = _parent(target)
        parent = Parent(run=str(folder.path), epoch=epoch)
        parent_of(parent)  # which looks for the state
        base = run_with_images(folder)
        for chosen in itertools.product(*axes):
            typed = " ".join([target, *(f"{path}={text}" for path, text in chosen)])
            values = {"lr_milestones": base.lr_milestones, **parse_values(chosen, Run)}  # never shifted
            try:
                start = base.replace(parent=None, recipe=_kept_recipe(base.recipe, values))
                run = with_changes(start, values).replace(parent=parent)
            except UserError as e:
                raise UserError(f"{typed}: {e}") from e
            one = f"{folder.path.absolute()} {run.digest()}"
            if one in known:
                raise UserError(f"'{typed}' and '{known[one]}' are the same run; take one of them out")
            known[one] = typed
            label = f"{folder.path.name.rpartition('-')[0] or folder.path.name}-fork{epoch}"
            changed = differences(base.replace(parent=None), run.replace(parent=None)).items()
            said = ", ".join(f"{path}={now} (there {before})" for path, (before, now) in changed)
            arms.append(_Arm(run, own.out or folder.path.parent, label, typed, said or "in nothing"))
    return arms


def _kept_recipe(recipe: "Recipe", values: dict[str, Any]) -> "Recipe":
    """The parent's recipe, put where another kind of recipe keeps its attack.

    With `recipe.kind=kd` or awp the parent's becomes the inner one (in `values`, unless one is given), from
    these back the inner one is taken, and the same kind stays as it is: an arm changes no attack unasked.
    """
    kind, inner = values.get("recipe.kind"), getattr(recipe, "inner", None)
    kept: Recipe = inner if inner is not None and inner.kind == kind else recipe
    if kept.kind == kind:
        del values["recipe.kind"]  # a kind that is set has its defaults
    elif kind in ("kd", "awp") and inner is None and not any(p.startswith("recipe.inner") for p in values):
        values["recipe.inner"] = recipe.to_dict()
    return kept


def _matching(target: str) -> list[str]:
    """The target, or those that a pattern such as runs/*-seed*@15 means: runs that kept a state."""
    from crossclass.checkpoints.run_folder import RunFolder

    path, at, which = target.rpartition("@")
    if not at or not any(c in path for c in "*?[") or Path(path).exists():
        return [target]
    found = [p for p in sorted(glob(path)) if Path(p, "config.yaml").is_file()]
    if kept := [f"{p}@{which}" for p in found if RunFolder(Path(p)).kept_states()]:
        return kept
    raise UserError(f"no run that kept a state is called {path}; train with keep_state=[{which or 15}]")


def _parent(target: str) -> "tuple[RunFolder, int]":
    """The folder and the epoch of RUN@EPOCH, RUN@best.val; raises UserError if it is not of that form."""
    from crossclass.checkpoints.card import load_checkpoint
    from crossclass.checkpoints.run_folder import RunFolder, split_target

    path, which = split_target(target)
    folder = RunFolder.at(path)
    number = which.removeprefix("epoch_")
    if number.isdecimal() and int(number) > 0:
        return folder, int(number)
    if which and folder.checkpoint(which).exists():
        return folder, load_checkpoint(folder.checkpoint(which))[1].epoch
    kept = folder.kept_states()
    there = f"; kept: {', '.join(map(str, kept))}" if kept else "; it kept no state (keep_state=[EPOCH] does)"
    raise UserError(
        f"name the epoch after which the fork goes on, such as {path}@{kept[-1] if kept else 15}{there}"
    )
