"""Run folders and results of `measure` in, one self-contained HTML page out: it shows what was measured.

Nothing is measured here; the arithmetic ends at differences of stored numbers. The page needs no
network: style, script, figures and data are inside, and every number keeps its conditions.
"""

from collections.abc import Sequence
from pathlib import Path

from crossclass.core.errors import UserError
from crossclass.core.files import demand_writable, write_atomic
from crossclass.report.page import page
from crossclass.report.reading import read_results, read_run
from crossclass.report.run import finding
from crossclass.report.study import write_study

__all__ = ["finding", "write_report", "write_study"]


def write_report(targets: Sequence[Path], out: Path) -> Path:
    """Write the page of run folders and of JSON files of `measure`; returns where it lies."""
    if not targets:
        raise UserError("no run folder was given; name at least one, as in 'report runs/NAME'")
    places = list({target.resolve(): target for target in targets}.values())
    files = [place for place in places if place.suffix == ".json" or place.is_file()]
    demand_writable(out / "report.html" if out.is_dir() or not out.suffix else out)
    runs = [read_run(place) for place in places if place not in files]
    if out.is_dir() or not out.suffix:
        out = out / "report.html"
    write_atomic(out, page(runs, [read_results(file) for file in files]))
    return out
