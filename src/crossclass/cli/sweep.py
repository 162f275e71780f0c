"""`crossclass sweep NAME path=a,b,c`: many runs that differ in a few settings, each a run folder of its own.

A run folder is found by the digest of its run, so a sweep can be called again at any time, in several
processes, on several machines with one disk: what is finished is left alone, what was begun is resumed, and
no run is trained by two processes at once (`files.lock`).
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossclass.cli.app import Changes, Trust, app
from crossclass.cli.catalogue import require_run
from crossclass.cli.progress import ProgressDisplay, progress_display
from crossclass.core.errors import UserError
from crossclass.core.trust import names_of_code, require_consent, trusting

if TYPE_CHECKING:
    from crossclass.cli.jobs import Outcome
    from crossclass.cli.own_settings import Sweep
    from crossclass.training.run import Run


@app.command()
def sweep(
    target: Annotated[
        str, typer.Argument(metavar="NAME|FILE.yaml", help="A named run, a run file, a sweep file")
    ],
    changes: Changes = None,
    trust: Trust = False,
) -> int:
    """Train many runs: path=a,b,c makes a grid.

    Each point is a run folder that is found again. NAME is a named run, FILE.yaml a run file or a sweep file
    (`run: NAME`, `grid: {path: [a, b]}`). At the end it prints the table of its runs, as `crossclass table`
    does. Exit code 1 if a run failed.

    \b
    Examples:
      crossclass sweep shapes-demo seed=0,1,2 jobs=2
      crossclass sweep cifar10-mini data.path=DIR recipe.attack.threat.eps=4/255,8/255 plan=true
      crossclass sweep grid.yaml slurm='{partition: gpu, timeout_min: 600}'
    """
    require_run(target)
    from crossclass.cli.arguments import read_settings
    from crossclass.cli.jobs import submit
    from crossclass.cli.own_settings import Sweep
    from crossclass.training.run import Run

    changes = changes or []
    read = read_settings(changes, Run, own=Sweep())
    more = [t for t in changes if t.partition("=")[0].split(".")[0] in ("out", "runtime")]
    more += ["--trust"] if trust else []
    with trusting(everything=trust):
        points = expand(target, [f"{path}={text}" for path, text in read.assignments])
    if read.own.plan:
        _require_no_registered(points, "plan=true prints commands")
        for line in lines(points, more):
            print(line)
        return 0
    if read.own.slurm is not None:
        _require_no_registered(points, "slurm starts processes")
        for job in submit(points, more, read.own.out / "slurm-logs", read.own.slurm):
            print(job)
        return 0
    with progress_display("sweep") as progress:
        try:
            outcomes = _train(points, more, read.own, progress)
        except KeyboardInterrupt:
            print(*_table(_so_far(points, read.own.out)), sep="\n")
            raise
        for line in _table(outcomes):
            print(line)
        progress.log(f"crossclass report {read.own.out} draws these runs; crossclass table writes the table")
    return int(any(one.failure for one in outcomes))


def _train(
    points: "list[Point]", more: list[str], own: "Sweep", progress: ProgressDisplay
) -> "list[Outcome]":
    """Train what is not finished yet; what became of every point."""
    from crossclass.cli.jobs import Outcome, begun, registered_here, run_all, train_here

    log = progress.log
    done = {label: folder.path for label, folder in begun(points, own.out).items() if folder.done}
    if done:
        log(f"finished already: {len(done)} of {len(points)}")
    waiting = [point for point in points if point.label not in done]
    if here := registered_here(waiting):
        log(f"{', '.join(here)} is registered in this program, which trains the runs itself, one by one")
        trained = train_here(waiting, own, log)
    else:
        trained = run_all(waiting, more, own.jobs, log, progress.step)
    ended = {one.point.label: one for one in trained}
    return [ended.get(p.label) or Outcome(p, done[p.label]) for p in points]


def _so_far(points: "list[Point]", out: Path) -> "list[Outcome]":
    """What there is of every point when a sweep is interrupted."""
    from crossclass.cli.jobs import Outcome, begun

    there = begun(points, out)
    return [Outcome(p, there[p.label].path if p.label in there else None) for p in points]


def _require_no_registered(points: "list[Point]", what: str) -> None:
    from crossclass.cli.jobs import registered_here

    if here := registered_here(points):
        raise UserError(
            f"{what} for other processes, which do not know {', '.join(here)}, registered in this program; "
            "leave it out, and this process trains the runs itself"
        )


def _table(outcomes: "Sequence[Outcome]") -> Iterator[str]:
    """The lines of the table of a sweep."""
    from dataclasses import replace

    from crossclass.analysis.measured_runs import MeasuredRun, read_run
    from crossclass.analysis.setting_names import settings_of
    from crossclass.analysis.table_of_runs import table
    from crossclass.report.run_table import plain

    runs = []
    for point, folder, failure in outcomes:
        why = f"failed: {failure}" if failure else "not started"
        known = MeasuredRun(point.name, settings_of(point.run.to_dict()), missing=why)
        runs.append(replace(read_run(folder), name=point.name) if folder and not failure else known)
    yield from plain(table(runs))


@dataclass(frozen=True)
class Point:
    """One run of a sweep, as the command line would say it."""

    target: str
    changes: tuple[str, ...]
    run: "Run"

    def command(self, more: Sequence[str] = ()) -> list[str]:
        """What trains it: `crossclass train ...`."""
        return ["crossclass", "train", self.target, *self.changes, *more]

    @property
    def name(self) -> str:
        """What its folder is called, before its seed and digest."""
        path = Path(self.target)
        return path.stem if path.suffix in (".yaml", ".yml") else self.target

    @property
    def label(self) -> str:
        """The target and what is changed."""
        return " ".join([self.target, *self.changes])


def expand(target: str, changes: Sequence[str] = ()) -> list[Point]:
    """Every point of the grid; commas outside of brackets and quotes separate values.

    `target` is a named run, a run file, or a sweep file: YAML with `run` (a name or a run file) and `grid`
    (path to a list of values). Raises UserError for a run that is not valid, naming it, and for two
    points that are the same run, or for code in a file that nobody has given consent to.
    """
    from crossclass.cli.arguments import parse_values, read_settings, split_values
    from crossclass.core.yaml_reader import is_path, types_at
    from crossclass.paper.runs import resolve
    from crossclass.training.run import Run

    base, axes = _read(target)
    for path, text in read_settings(changes, Run).assignments:
        whole = os.path.exists(text) and is_path(types_at([Run], path))  # a name may hold commas
        axes[path] = [text] if whole else split_values(text)
    points: list[Point] = []
    known: dict[str, str] = {}
    for chosen in itertools.product(*axes.values()):
        changed = list(zip(axes, chosen, strict=True))
        texts = tuple(f"{path}={text}" for path, text in changed)
        try:
            _, run = resolve(base, parse_values(changed, Run))
        except UserError as e:
            raise UserError(f"{' '.join([base, *texts])}: {e}") from e
        require_consent(names_of_code(run.to_dict()), target)
        point = Point(base, texts, run)
        if (digest := run.digest()) in known:
            raise UserError(f"'{point.label}' and '{known[digest]}' are the same run; take one of them out")
        known[digest] = point.label
        points.append(point)
    return points


def _read(target: str) -> tuple[str, dict[str, list[str]]]:
    """The run and the grid of a sweep file; the target itself and no grid for anything else."""
    path = Path(target)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return target, {}
    from crossclass.core.yaml_reader import read_mapping, typed_text

    # values of a grid stay as they are written: what they mean, the setting says
    try:
        content = read_mapping(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path} cannot be read as YAML") from e
    if "grid" not in content:
        return target, {}  # a run file
    if unknown := set(content) - {"run", "grid"}:
        raise UserError(f"{path}: a sweep file has 'run' and 'grid', not '{min(unknown)}'")
    run, grid = content.get("run"), content["grid"]
    if run is None or isinstance(run, dict | list) or not isinstance(grid, dict):
        raise UserError(f"{path}: 'run' names a run, and 'grid' is 'path: [value, ...]'")
    values = {key: value if isinstance(value, list) and value else [value] for key, value in grid.items()}
    return typed_text(run), {key: [typed_text(v) for v in value] for key, value in values.items()}


def lines(points: Sequence[Point], more: Sequence[str] = ()) -> Iterator[str]:
    """One command per run, for any scheduler."""
    import shlex

    for point in points:
        yield shlex.join(point.command(more))
