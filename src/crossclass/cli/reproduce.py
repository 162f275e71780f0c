"""`crossclass reproduce ID`."""

from typing import Annotated

import typer

from crossclass.cli.app import app
from crossclass.core.errors import UserError
from crossclass.core.progress import progress_display


@app.command(name="reproduce")
def reproduce_(
    targets: Annotated[
        list[str], typer.Argument(metavar="ID...", help="fig1 ... table1 ... thm1, or all; path=value")
    ],
) -> None:
    """Reproduce figures, tables and theorems of the paper; each claim is judged on the numbers.

    size=smoke (seconds, no data), mini (hours on two cores) or paper (a GPU); seeds=3; data_root=DIR holds
    cifar10/, cifar100/, tiny_imagenet/; out=results, runs=runs; plan=true only says what would be done.
    Interrupt it at will: the same command goes on. The page's path is the last line.
    """
    from crossclass.cli.assignments import read_arguments
    from crossclass.core.overrides import override
    from crossclass.core.runtime import Runtime
    from crossclass.paper.reproduce import Callbacks, Study, reproduce
    from crossclass.report import write_study
    from crossclass.report.plots.entries import draw, draw_maps

    arguments = read_arguments(targets, Study, runtime=(Runtime, Runtime()))
    if not arguments.targets:
        raise UserError("reproduce needs an id, such as fig2 or all; `crossclass list` names them")
    study = override(Study(), arguments.changes)
    with progress_display("reproduce") as progress:
        try:
            calls = Callbacks(progress.step, progress.log, progress.row, draw, draw_maps)
            done = reproduce(arguments.targets, study, arguments.own.runtime, calls)
        except KeyboardInterrupt:
            progress.log("crossclass: stopped; the same command goes on after the last finished epoch")
            raise typer.Exit(130) from None
    if done:
        print(write_study(study.folder).absolute())
