"""`crossclass report RUN`."""

import sys
from pathlib import Path

from crossclass.cli.app import Targets, app
from crossclass.cli.progress import progress_display
from crossclass.core.errors import UserError


@app.command()
def report(targets: Targets) -> None:
    """Write one page about runs or measured checkpoints.

    Of a folder it takes all runs below: a table of their settings, curves with a band over seeds, any number
    against any setting. It needs no other file; its path is the last line. The page of one run lies in its
    folder, that of one result beside it, that of several is report.html; a page about something else is
    never overwritten.

    \b
    Examples:
      crossclass report runs/cifar10-mini-seed0-*
      crossclass report robust.json
      crossclass report runs out=all.html
    """
    from crossclass.cli.arguments import read_arguments
    from crossclass.cli.own_settings import Report
    from crossclass.core.destinations import is_stdout
    from crossclass.report import write_report

    read = read_arguments(targets, own=Report())
    if not read.targets:
        raise UserError("report needs a run folder or a result of measure, such as runs/cifar10-mini-...")
    with progress_display("report") as progress:
        paths = [Path(target) for target in read.targets]
        page = write_report(paths, read.own.out, progress.log, progress=progress.step)
    print(page.absolute(), file=sys.stderr if is_stdout(page) else sys.stdout)
