"""`crossclass reproduce ID`."""

from typing import Annotated

import typer

from crossclass.cli.app import app
from crossclass.cli.progress import progress_display
from crossclass.core.errors import UserError


@app.command()
def reproduce(ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids; path=value")]) -> None:
    """Reproduce figures, tables and theorems of the paper.

    Each claim is judged on the numbers. ID is fig1, table1, thm1 ('crossclass list' names all), or all.
    Interrupt it at will: the same command goes on. The page's path is the last line.

    \b
    Examples:
      crossclass reproduce fig2 size=smoke
      crossclass reproduce all data_root=DIR seeds=3
      crossclass reproduce thm1 thm2 plan=true
    """
    from crossclass.cli.arguments import read_arguments
    from crossclass.cli.own_settings import Execution
    from crossclass.core.overrides import override
    from crossclass.paper.reproduce import Callbacks, Study, reproduce
    from crossclass.report.plots.paper_figures import draw, draw_maps
    from crossclass.report.study import write_study

    read = read_arguments(ids, Study, own=Execution())
    if not read.targets:
        raise UserError("reproduce needs an id, such as fig2 or all; 'crossclass list' names them")
    study = override(Study(), read.changes)
    with progress_display("reproduce") as progress:
        calls = Callbacks(progress.step, progress.log, progress.row, draw, draw_maps)
        done = reproduce(read.targets, study, read.own.runtime, calls)
    if done:
        print(write_study(study.folder).absolute())
