"""One self-contained HTML page about run folders and results of `measure`.

Nothing is measured here: the arithmetic ends at differences of stored numbers. The page needs no network,
since style, script, figures and data are inside, and every number stands beside its conditions.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from crossclass.analysis.metrics import Metric
from crossclass.analysis.records import ResultFile, load_results
from crossclass.analysis.run_record import load_run
from crossclass.core.destinations import is_replaced
from crossclass.core.errors import UserError
from crossclass.core.files import require_ending, require_writable, write_atomic
from crossclass.core.made_by import mark, require_free, reserved
from crossclass.core.progress import Log
from crossclass.report import comparison, measurement
from crossclass.report.run import RunView, curve_figures, labels
from crossclass.report.sections import TEMPLATES, download, environment

ENTRIES = 300_000
"""Matrix entries that a page carries for its sliders: about 1.5 MB."""


def write_report(targets: Sequence[Path], out: Path | None = None, log: Log = lambda text: None) -> Path:
    """Write one page about run folders and JSON files of `measure`.

    Without `out` the page of one run lies in its folder, that of one result beside it, and that of several is
    `report.html`, or `report-2.html` where a page about something else has that name.

    Args:
        targets: What the page is about.
        out: The file, or a folder in which it is `report.html`; unset, a name of the page's own.
        log: Called if a page about the same is replaced.

    Returns:
        The path of the page.

    Raises:
        UserError: A target cannot be read, or `out` is something else already.
    """
    if not targets:
        raise UserError("no run folder was given; name at least one, as in 'report runs/NAME'")
    unique = list({target.resolve(): target for target in targets}.values())
    files = [path for path in unique if path.suffix == ".json" or path.is_file()]
    page = out or _default_name(unique)
    page = page / "report.html" if page.is_dir() or not (page.suffix or os.path.lexists(page)) else page
    require_ending(page, ".html", ".htm")
    require_writable(page)
    about = [os.path.relpath(path.resolve(), page.absolute().parent) for path in unique]
    made_by = mark(["report", *about], " ".join(["report", *(path.resolve().name for path in unique)]))
    if out is not None:
        require_free(page, made_by)
    runs = [load_run(path) for path in unique if path not in files]
    named = enumerate(zip(runs, labels(runs), strict=True), 1)
    views = [RunView(run, label, i, ENTRIES // len(runs)) for i, (run, label) in named]
    html = _html(views, [_results(path, i) for i, path in enumerate(files, 1)], made_by)
    with reserved(page, made_by) as page:
        if is_replaced(page):
            log(f"{page} is replaced")
        write_atomic(page, html)
    return page


def _default_name(targets: Sequence[Path]) -> Path:
    if len(targets) > 1:
        return Path("report.html")
    (one,) = targets
    return one.with_suffix(".html") if one.is_file() else one / "report.html"


@dataclass(frozen=True)
class ResultsView:
    """What the page shows of one result file: its checkpoints, then the comparisons."""

    path: Path
    file: ResultFile
    index: int
    """Tells its anchors from those of other files."""

    @cached_property
    def measurements(self) -> list[measurement.MeasurementView]:
        """Its checkpoints, in the order of the file."""
        return measurement.views(self.file.results, f"result-{self.index}")

    @cached_property
    def comparisons(self) -> list[comparison.ComparisonView]:
        """What differs between two of them."""
        return comparison.views(self.file, self.path.parent, f"comparison-{self.index}")

    @property
    def warnings(self) -> list[str]:
        """Those of all its checkpoints, each behind the name of the checkpoint."""
        return [f"{view.label}: {text}" for view in self.measurements for text in view.m.warnings]

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that any of its checkpoints has."""
        return measurement.measured_metrics(self.file.results)

    @property
    def download(self) -> tuple[str, str]:
        """The name of the file and its data URL."""
        return download(self.path)


def _results(path: Path, index: int) -> ResultsView:
    if path.is_file() and path.read_bytes()[:1].strip() not in (b"", b"[", b"{"):
        raise UserError(
            f"{path}: not a result of measure; if it is a checkpoint, 'crossclass measure {path.name} ... "
            "out=result.json' first, and report that"
        )
    file = load_results(path)
    if not file.results:
        raise UserError(f"{path}: holds no measured checkpoint; write it anew with 'crossclass measure'")
    return ResultsView(path, file, index)


def _html(runs: Sequence[RunView], files: Sequence[ResultsView], made_by: str) -> str:
    single = len(runs) + sum(len(file.measurements) for file in files) == 1
    template = environment().get_template("page.html.j2")
    return template.render(
        runs=runs,
        files=files,
        single=single,
        heading=1 if single else 2,
        overlay=curve_figures(runs) if len(runs) > 1 else {},
        made_by=made_by,
        js=Markup((TEMPLATES / "page.js").read_text("utf-8")),
    )
