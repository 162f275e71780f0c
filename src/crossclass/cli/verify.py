"""`crossclass verify RUN`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from crossclass.cli.app import Changes, app


@app.command()
def verify(
    target: Annotated[str, typer.Argument(metavar="RUN", help="A run folder")], changes: Changes = None
) -> int:
    """Compare a run with a published training curve.

    Printed is which part of it agrees, and which does not. Exit code 1 if the run contradicts the curve.

    \b
    Examples:
      crossclass verify runs/rice2020-seed0-*
      crossclass verify runs/rice2020-seed0-* out=beside.svg
      crossclass verify runs/rice2020-seed0-* against=list
    """
    from crossclass.checkpoints.run_folder import RunFolder
    from crossclass.cli.arguments import made_by, read_settings
    from crossclass.cli.own_settings import Verify
    from crossclass.core.config import load_yaml
    from crossclass.core.files import require_writable
    from crossclass.core.made_by import replaced
    from crossclass.paper import published_curves
    from crossclass.report import plots
    from crossclass.training.run import Run

    read = read_settings(changes or [], own=Verify())
    own, folder = read.own, RunFolder.at(Path(target))
    if own.out:
        plots.file_kind(own.out)
        require_writable(own.out)
        settings = [("against", own.against), ("tolerance", str(own.tolerance))]
        mark = made_by(own.out, "verify", [target], settings)
    rows, env = folder.rows(), folder.read("env.json")
    run = load_yaml(Run, folder.config(), str(folder.path / "config.yaml"))
    conditions = published_curves.conditions(run.to_dict(), rows, env)
    verdict = published_curves.verify(rows, own.against, tolerance=own.tolerance, run=conditions)
    if own.out:
        curves = published_curves.overlay(rows, own.against, folder.path.name, conditions)
        with replaced(own.out, mark, lambda words: print(words, file=sys.stderr)) as path:
            plots.save(plots.curves(curves), path, mark)
    for line in published_curves.table(verdict):
        print(line)
    if own.out:
        print(path)
    return int(verdict.verdict == "does not hold")
