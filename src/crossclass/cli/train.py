"""`crossclass train NAME`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from crossclass.cli.app import Changes, Trust, app
from crossclass.cli.catalogue import require_run
from crossclass.cli.progress import progress_display


@app.command()
def train(
    target: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A named run or a run file")],
    changes: Changes = None,
    trust: Trust = False,
) -> None:
    """Train a run, or go on with it.

    The same command resumes what was interrupted. NAME is a named run. The last line printed is the run's
    folder.

    \b
    Examples:
      crossclass train shapes-demo
      crossclass train cifar10-mini data.path=DIR epochs=20 seed=1
      crossclass train mine.yaml out=runs runtime.threads=4
    """
    require_run(target)
    from crossclass.core.trust import trusting

    with trusting(everything=trust):
        print(train_run(target, changes or [], Path("runs")))


def train_run(target: str, arguments: Sequence[str], out: Path) -> Path:
    """Train the run of a name or file to its end, showing how far it is; its folder."""
    from crossclass.cli.arguments import read_settings
    from crossclass.cli.own_settings import Train
    from crossclass.paper.runs import resolve
    from crossclass.training import loop
    from crossclass.training.run import Run

    read = read_settings(arguments, Run, own=Train(out=out))
    label, run = resolve(target, read.changes)
    with progress_display(label, run.epochs) as progress:
        if "lr_milestones" not in read.changes and run.lr_milestones != resolve(target)[1].lr_milestones:
            progress.log(
                f"lr_milestones={list(run.lr_milestones)}, at the same shares of {run.epochs} epochs"
            )
        for folder, row in loop.iterate_epochs(
            run, read.own.out, f"{label}-seed{run.seed}", read.own.runtime, progress.step, progress.log
        ):
            if folder.done:
                progress.log(f"finished already: {folder.path}")
                break
            progress.row(row)
    return folder.path
