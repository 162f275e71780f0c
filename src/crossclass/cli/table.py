"""`crossclass table RUNS`."""

from pathlib import Path
from typing import Annotated

import typer

from crossclass.cli.app import app
from crossclass.core.errors import UserError

ENDINGS = (".csv", ".tex", ".md", ".json", ".parquet")


@app.command()
def table(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="RUN|FOLDER|FILE...", help="Run folders, folders of runs, results of measure"),
    ],
) -> None:
    """Print or write one table of many runs.

    A row is a setting, with the mean over its seeds and a t interval. Columns are named by what differs. Of a
    folder it takes all runs below. Numbers of different attacks or images are never averaged.

    \b
    Examples:
      crossclass table runs
      crossclass table runs out=sweep.tex metrics=robust,cas
      crossclass table runs/cifar10-mini-* pgd50.json rows=runs out=runs.csv
    """
    from crossclass.analysis.table_of_runs import table_of_runs
    from crossclass.cli.arguments import made_by, read_arguments
    from crossclass.cli.own_settings import Table
    from crossclass.core.files import require_writable, write_atomic
    from crossclass.core.made_by import replaced
    from crossclass.report import run_table

    read = read_arguments(targets, own=Table())
    own, out = read.own, read.own.out
    if not read.targets:
        raise UserError("table needs run folders or a folder that holds runs, as in 'crossclass table runs'")
    if out is not None:
        if out.suffix.lower() not in ENDINGS:
            raise UserError(f"out={out}: a table is written as {', '.join(ENDINGS)}; give out=FILE.csv")
        require_writable(out)
    found = table_of_runs(read.targets, pool=own.pool, rows=own.rows, metrics=own.metrics)
    for line in run_table.plain(found):
        print(line)
    if out is not None:
        settings = [(name, str(getattr(own, name))) for name in ("rows", "pool", "metrics")]
        mark = made_by(Path(out), "table", read.targets, settings)
        content = run_table.content(found, out, mark)
        if out.suffix.lower() == ".csv" and _same_columns(out, str(content)):
            write_atomic(out, content)  # CSV has no room for a mark
        else:
            with replaced(out, mark, lambda text: typer.echo(text, err=True)) as path:
                write_atomic(path, content)
        print(out)


def _same_columns(path: Path, content: str) -> bool:
    """Whether there is a table with these columns already, an older one of the same runs."""
    from crossclass.core.destinations import is_replaced

    if not is_replaced(path):
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline() == content.partition("\n")[0] + "\n"
