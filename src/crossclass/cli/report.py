"""`crossclass report RUN`."""

from pathlib import Path

from crossclass.cli.app import Targets, app
from crossclass.cli.progress import progress_display
from crossclass.core.errors import UserError


@app.command()
def report(targets: Targets) -> None:
    """Write one page about runs or measured checkpoints.

    It needs no other file; its path is the last line. The page of one run lies in its folder, that of one
    result beside it, that of several is report.html.
    """
    from crossclass.cli.arguments import read_arguments
    from crossclass.report import write_report

    read = read_arguments(targets, out=(Path | None, None))
    paths = [Path(target) for target in read.targets]
    if not paths:
        raise UserError("report needs a run folder or a result of measure, such as runs/cifar10-mini-...")
    first = paths[0].with_suffix(".html") if paths[0].is_file() else paths[0] / "report.html"
    default = first if len(paths) == 1 else Path("report.html")
    with progress_display("report") as progress:
        page = write_report(paths, read.own.out or default, progress.log)
    print(page.absolute())
