"""One self-contained HTML page about run folders and results of `measure`.

Nothing is measured here: the arithmetic ends at differences of stored numbers. The page needs no network,
since style, script, figures and data are inside, and every number stands beside its conditions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from crossclass.analysis.metrics import Metric
from crossclass.analysis.records import ResultFile, load_results
from crossclass.analysis.run_record import load_run
from crossclass.core.errors import UserError
from crossclass.core.files import require_writable, write_atomic
from crossclass.core.progress import Log
from crossclass.report import comparison, measurement
from crossclass.report.run import RunView, curve_figures, labels
from crossclass.report.sections import TEMPLATES, download, environment

ENTRIES = 300_000
"""Matrix entries that a page carries for its sliders: about 1.5 MB."""


def write_report(targets: Sequence[Path], out: Path, log: Log = lambda text: None) -> Path:
    """Write one page about run folders and JSON files of `measure`.

    `out` is the file, or a folder in which it is `report.html`; `log` is called if it is replaced. Returns
    the path of the page. Raises UserError if a target cannot be read.
    """
    if not targets:
        raise UserError("no run folder was given; name at least one, as in 'report runs/NAME'")
    unique = list({target.resolve(): target for target in targets}.values())
    files = [path for path in unique if path.suffix == ".json" or path.is_file()]
    out = out / "report.html" if out.is_dir() or not out.suffix else out
    require_writable(out)
    runs = [load_run(path) for path in unique if path not in files]
    named = enumerate(zip(runs, labels(runs), strict=True), 1)
    views = [RunView(run, label, i, ENTRIES // len(runs)) for i, (run, label) in named]
    html = _html(views, [_results(path, i) for i, path in enumerate(files, 1)])
    if out.exists():
        log(f"{out} is replaced")
    write_atomic(out, html)
    return out


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


def _html(runs: Sequence[RunView], files: Sequence[ResultsView]) -> str:
    single = len(runs) + sum(len(file.measurements) for file in files) == 1
    template = environment().get_template("page.html.j2")
    return template.render(
        runs=runs,
        files=files,
        single=single,
        heading=1 if single else 2,
        overlay=curve_figures(runs) if len(runs) > 1 else {},
        js=Markup((TEMPLATES / "page.js").read_text("utf-8")),
    )
