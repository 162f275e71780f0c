"""`crossclass train NAME`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from crossclass.cli.app import Changes, Trust, app
from crossclass.core.progress import progress_display
from crossclass.core.trust import trusting


@app.command()
def train(
    target: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A named run or a run file")],
    changes: Changes = None,
    trust: Trust = False,
) -> None:
    """Train a run, or go on with it: the same command resumes what was interrupted.

    out=runs is the folder that holds the runs; runtime.device, runtime.threads say where it runs.
    """
    with trusting(everything=trust):
        print(train_run(target, changes or [], Path("runs")))


def train_run(target: str, arguments: Sequence[str], out: Path) -> Path:
    """Train the run of a name or file to its end, showing how far it is; its folder."""
    from crossclass.cli.assignments import no_targets, read_arguments
    from crossclass.core.runtime import Runtime
    from crossclass.paper.runs import resolve
    from crossclass.training import loop
    from crossclass.training.run import Run

    read = read_arguments(arguments, Run, out=(Path, out), runtime=(Runtime, Runtime()))
    no_targets(read)
    label, run = resolve(target, read.changes)
    with progress_display(label, run.epochs) as progress:
        epochs = loop.iterate_epochs(
            run, read.own.out, f"{label}-seed{run.seed}", read.own.runtime, progress.step, progress.log
        )
        try:
            for trained, row in epochs:
                folder = trained.path
                progress.row(row)
        except KeyboardInterrupt:
            progress.log("crossclass: stopped; the same command goes on after the last finished epoch")
            raise typer.Exit(130) from None
    return folder
