"""One self-contained HTML page: style, script, figures and data are inside, and every name is escaped."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from crossclass.analysis.records import ResultFile
from crossclass.analysis.run_record import RunRecord
from crossclass.report.results import ResultsView
from crossclass.report.run import RunView, curve_figures, labels
from crossclass.report.sections import ALONE, AMONG, TEMPLATES, environment

ENTRIES = 300_000
"""Matrix entries that a page carries for its sliders: about 1.5 MB."""


def page(runs: Sequence[RunRecord], files: Sequence[tuple[Path, ResultFile]]) -> str:
    """The HTML of run folders and of result files, in this order."""
    named = enumerate(zip(runs, labels(runs), strict=True), 1)
    views = [RunView(run, label, i, ENTRIES // len(runs)) for i, (run, label) in named]
    results = [ResultsView(path, file, i) for i, (path, file) in enumerate(files, 1)]
    single = len(views) + sum(len(r.measurements) for r in results) == 1
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            runs=views,
            files=results,
            single=single,
            levels=ALONE if single else AMONG,
            overlay=curve_figures(views) if len(views) > 1 else {},
            assets={p.suffix[1:]: Markup(p.read_text("utf-8")) for p in TEMPLATES.glob("*.[cj]s*")},
        )
    )
