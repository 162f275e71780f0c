"""`crossclass demo`."""

from collections.abc import Sequence
from pathlib import Path

from crossclass.cli.train import train_run


def main(arguments: Sequence[str]) -> None:
    """Train on the built-in Shapes for about three minutes and write a page about it.

    The last line printed is the path of the page. out=demo is the folder; other settings are the run's.
    """
    folder = train_run("shapes-demo", arguments, Path("demo"))
    from crossclass.report import write_report

    print(write_report([folder], folder / "report.html").absolute())
