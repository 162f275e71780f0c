"""`crossclass report RUN`."""

from pathlib import Path
from typing import Annotated

import typer

from crossclass.cli.app import app
from crossclass.core.errors import UserError


@app.command()
def report(
    targets: Annotated[list[str], typer.Argument(help="Run folders, results of measure; out=PAGE.html")],
) -> None:
    """Write one self-contained page about runs or measured checkpoints; its path is the last line."""
    from crossclass.cli.assignments import read_arguments
    from crossclass.report import write_report

    arguments = read_arguments(targets, out=(Path | None, None))
    paths = [Path(target) for target in arguments.targets]
    if not paths:
        raise UserError("report needs a run folder or a result of measure, such as runs/cifar10-mini-...")
    first = paths[0].with_suffix(".html") if paths[0].is_file() else paths[0] / "report.html"
    default = first if len(paths) == 1 else Path("report.html")
    print(write_report(paths, arguments.own.out or default).absolute())
