"""One self-contained HTML page about run folders and results of `measure`.

Nothing is measured here: the arithmetic ends at differences of stored numbers. The page needs no network,
since style, script, figures and data are inside, and every number stands beside its conditions.
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from crossclass.analysis.measured_runs import measured_runs, run_folders
from crossclass.analysis.pictures import Pictures, load_pictures
from crossclass.analysis.records import ResultFile
from crossclass.analysis.result_files import load_results
from crossclass.analysis.run_record import RunRecord, load_run
from crossclass.core.destinations import is_replaced
from crossclass.core.errors import UserError
from crossclass.core.files import require_ending, require_writable, write_atomic
from crossclass.core.made_by import mark, replaced, reserved
from crossclass.core.progress import Log, Progress, silent
from crossclass.report import comparison, measurement, plots
from crossclass.report.figures import PageFigure
from crossclass.report.format import short_attack
from crossclass.report.many_runs import ManyRuns, many_runs
from crossclass.report.run import RunView, curve_figure
from crossclass.report.run_names import labels, what_differs
from crossclass.report.sections import TEMPLATES, download, environment

ENTRIES = 1_000_000
"""Matrix entries that a page carries for its sliders: about 2 MB."""
SCRIPTS = ("save.js", "matrices.js", "plot.js")
EACH = 12
"""A page about more runs than these leaves out what the page of each run shows."""


def write_report(
    targets: Sequence[Path],
    out: Path | None = None,
    log: Log = lambda text: None,
    *,
    live: int = 0,
    progress: Progress = silent,
) -> Path:
    """Write one page about run folders, all runs below folders, and JSON files of `measure`.

    Without `out` the page of one run lies in its folder, that of one result beside it, and that of several is
    `report.html`, or `report-2.html` where a page about something else has that name.

    Args:
        targets: What the page is about.
        out: The file, or a folder in which it is `report.html`; unset, a name of the page's own.
        log: Called if a page about the same is replaced.
        live: Seconds after which an open page reads itself anew while a run is not finished; 0 is never.
        progress: Called with how many runs and results are drawn.

    Returns:
        The path of the page.

    Raises:
        UserError: A target cannot be read, or the page cannot be written.
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
    folders = [path for path in unique if path not in files]
    progress("read the runs", 0, 1)
    runs = _runs(folders)
    below = _below(folders)
    many = many_runs(measured_runs(unique)) if len(below) > 1 else None
    if many and len(below) > len(folders):  # in the order of the table, not of the names of folders
        order = [run.folder.resolve() for row in many.whole.rows for run in row.runs if run.folder]
        order += [run.folder.resolve() for run in runs]
        runs.sort(key=lambda run: order.index(run.folder.resolve()))
    named = enumerate(zip(runs, labels(runs), strict=True), 1)
    views = [RunView(run, label, i, ENTRIES // max(len(runs), 1)) for i, (run, label) in named]
    live = 0 if all(run.done for run in runs) else live
    results = [_results(path, i) for i, path in enumerate(files, 1)]
    html = _html(views, results, many, made_by, live, progress)
    with reserved(page, made_by) if out is None else replaced(page, made_by, log) as page:
        if is_replaced(page):
            log(f"{page} is replaced")
        write_atomic(page, html)
    return page


def _below(folders: Sequence[Path]) -> list[Path]:
    """The run folders at or below these, each once."""
    return list({run.resolve(): run for folder in folders for run in run_folders(folder)}.values())


def _runs(folders: Sequence[Path]) -> list[RunRecord]:
    """The runs; those below a folder that have no epoch yet stand in the table only."""
    named = {folder.resolve() for folder in folders}
    there = [run for run in _below(folders) if run.resolve() in named or (run / "events.jsonl").exists()]
    return [load_run(run) for run in there]


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
    shown_elsewhere: bool = False
    """Whether its checkpoints stand in a comparison with another file."""

    @cached_property
    def pictures(self) -> list[Pictures | None]:
        """Those beside the file, one for each result."""
        return load_pictures(self.path, len(self.file.results))

    @cached_property
    def measurements(self) -> list[measurement.MeasurementView]:
        """Its checkpoints, in the order of the file."""
        return measurement.views(self.file.results, f"result-{self.index}", self.pictures)

    @cached_property
    def comparisons(self) -> list[comparison.ComparisonView]:
        """What differs between two of them."""
        return comparison.views(self.file, self.path.parent, f"comparison-{self.index}", self.pictures)

    @cached_property
    def alone(self) -> list[measurement.MeasurementView]:
        """The checkpoints that no comparison shows."""
        if self.shown_elsewhere:
            return []
        shown = {id(m) for view in self.comparisons for _, m in view.sides if len(view.sides) == 2}
        return [view for view in self.measurements if id(view.m) not in shown]

    @property
    def warnings(self) -> list[str]:
        """Those of all its checkpoints, each behind the name of the checkpoint."""
        return [f"{view.label}: {text}" for view in self.measurements for text in view.m.warnings]

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


def _html(
    runs: Sequence[RunView],
    files: Sequence[ResultsView],
    many: ManyRuns | None,
    made_by: str,
    live: int,
    progress: Progress,
) -> str:
    compared = [view for file in files for view in file.comparisons]
    if not compared and (compared := _side_by_side(runs, files)) and not runs:
        files = [replace(file, shown_elsewhere=True) for file in files]
    subjects = len(runs) + sum(len(file.alone) for file in files)
    single = not compared and not many and subjects == 1
    about = _about(runs, files, compared) if subjects or not many else many.title
    if len(compared) == 1 and not runs and compared[0].title == about:
        compared = [replace(compared[0], title="")]
    template, done = environment().get_template("page.html.j2"), itertools.count()
    total = len(runs) + len(compared) + sum(len(file.alone) for file in files)

    def draw(view: RunView | comparison.ComparisonView | measurement.MeasurementView, heading: int) -> Markup:
        progress("draw", next(done), total)
        return view.html(heading)

    return template.render(
        runs=runs,
        files=files,
        compared=compared,
        single=single,
        many=many,
        each=len(runs) <= EACH,
        about=about,
        heading=2,
        draw=draw,
        alike=_alike(runs),
        overlay=_overlay(runs) if len(runs) > 1 else None,
        made_by=made_by,
        live=live,
        unlike=_unlike(runs, files) if not compared else "",
        js=Markup(
            "".join((TEMPLATES / name).read_text("utf-8") for name in ("save.js", "matrices.js", "plot.js"))
        ),
    )


def _side_by_side(runs: Sequence[RunView], files: Sequence[ResultsView]) -> list[comparison.ComparisonView]:
    """Two runs at their best, or two checkpoints of different files, if they were measured alike."""
    measured = [view for file in files for view in file.measurements]
    if len(runs) == 2 and not measured:
        both = [view.both for view in runs]
        if both[0] is None or both[1] is None:
            return []
        names = runs[0].label, runs[1].label
        title = f"At their best: {names[0]} against {names[1]}"
        one = comparison.between(both[0].best, both[1].best, names, "comparison-best", title)
        return [one] if one else []
    if len(measured) == 2 and not runs:
        a, b = measured
        names = a.label, b.label
        if names[0] == names[1]:
            names = files[0].path.stem, files[-1].path.stem
        title, shown = f"{names[0]} against {names[1]}", (a.pictures, b.pictures)
        one = comparison.between(a.m, b.m, names, "comparison-1", title, shown)
        return [one] if one else []
    return []


def _unlike(runs: Sequence[RunView], files: Sequence[ResultsView]) -> str:
    """Why two checkpoints that could be one comparison are not; empty where there are not two."""
    measured = [view.m for file in files for view in file.measurements]
    best = [view.both.best for view in runs if view.both]
    both = best if len(runs) == 2 and not measured else measured if not runs else []
    return comparison.unlike(*both) if len(both) == 2 else ""


def _about(
    runs: Sequence[RunView], files: Sequence[ResultsView], compared: Sequence[comparison.ComparisonView]
) -> str:
    """The title of the page: it names what it is about, or what differs."""
    measured = [view.label for file in files for view in file.measurements]
    names = [view.label for view in runs] + measured
    if len(names) == 1:
        return names[0]
    if len(compared) >= 1 and not runs and len({(view.c.a, view.c.b) for view in compared}) == 1:
        return f"{compared[0].c.a} against {compared[0].c.b}"
    shared = {plots.without_seed(str(view.run.env.get("label") or "")) for view in runs}
    common = shared.pop() if len(shared) == 1 and not measured else ""
    head = f"{common}: " if common and not names[0].startswith(common) else ""
    if len(names) == 2:
        return f"{head}{names[0]} against {names[1]}"
    count = [f"{len(runs)} runs"] * bool(runs) + [f"{len(measured)} measured checkpoints"] * bool(measured)
    keys = what_differs([view.run for view in runs])
    what = f" that differ in {', '.join(keys[:4])}" if keys and not files else ""
    return head + " and ".join(count) + what


def _alike(runs: Sequence[RunView]) -> str:
    """The attack and the images of all runs, if they are the same."""
    both = [view.both for view in runs if view.both]
    texts = {short_attack(b.attack, b.best.data.n, b.split) for b in both}
    if len(texts) != 1:
        return ""
    return f"All numbers of the table: {both[0].attack}; {texts.pop().partition('; ')[2]}."


def _overlay(runs: Sequence[RunView]) -> PageFigure:
    checks = sorted({view.check for view in runs})
    note = f"Lines pass through the checks during training ({' or '.join(checks)}); round marks are the best "
    note += "epochs. Runs that differ only by their seed share a colour: thin lines are seeds, the bold line "
    note += "is their mean, the band spans them."
    return curve_figure(runs, "Robust accuracy and CAS over the epochs of all runs", note)
