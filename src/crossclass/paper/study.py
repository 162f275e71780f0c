"""Reproduce entries of the paper: plan, train what is missing, measure, judge, draw; at any time again.

    <out>/<size>/<id>.json   the claim, the verdicts, the numbers, what the paper prints
    <out>/<size>/<id>.csv    every number of it, one a line
    <out>/<size>/<id>.svg    the figure, drawn by a function that is passed in (`report.plots.entries.draw`)
    <out>/<size>/runs/       the evidence of every run (`experiments.evidence`)
    <runs>/                  the run folders with their weights

What is finished is never done twice: a second call only draws again.
"""

import csv
import io
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from crossclass.core.config import Settings
from crossclass.core.errors import BusyError, UserError
from crossclass.core.files import write_atomic
from crossclass.core.progress import Log, Progress, silent
from crossclass.core.runtime import Runtime
from crossclass.data import Splits
from crossclass.paper import evidence
from crossclass.paper.claims import Numbers
from crossclass.paper.entry import Experiment, Size
from crossclass.paper.evidence import Evidence
from crossclass.paper.extras import EXTRAS
from crossclass.paper.plan import Cost, Job, Planned, cost, jobs, located, plan, room
from crossclass.paper.registry import chosen
from crossclass.paper.verdict import Verdict, all_hold
from crossclass.training import loop

WAIT = 10.0
"""Seconds between looks at runs that other processes train."""


class Study(Settings):
    """What to reproduce, how large, and where it lies."""

    size: Size = "mini"
    """`smoke` runs in seconds on generated pictures, `mini` in hours on two cores, `paper` on a GPU."""
    seeds: int = Field(3, ge=1, le=20)
    """Seeds 0, 1, ... of every run."""
    crafting: Literal["as set", "bf16"] = "as set"
    """`bf16`: every run crafts in it, also in its checks, and is another run than with `as set`."""
    data_root: Path | None = None
    """Holds cifar10/, cifar100/, tiny_imagenet/."""
    out: Path = Path("results")
    runs: Path = Path("runs")
    """Where run folders with their weights lie."""
    plan: bool = False
    """Only say what would be done."""

    @property
    def place(self) -> Path:
        """Where the results of this size lie."""
        return self.out / self.size


@dataclass(frozen=True)
class Result:
    """A reproduced entry."""

    entry: Experiment
    path: Path
    """Its JSON file."""
    numbers: Numbers
    verdicts: Sequence[Verdict]


Draw = Callable[[str, Numbers, Path], object]
"""Called with the id of an entry, its numbers, and the path of its figure."""


def reproduce(
    ids: Sequence[str],
    study: Study,
    runtime: Runtime | None = None,
    progress: Progress = silent,
    log: Log = lambda text: None,
    row: Callable[[dict[str, Any]], None] = lambda row: None,
    draw: Draw = lambda id_, numbers, path: None,
) -> list[Result]:
    """Train, measure, judge and draw entries, given by their ids; a result for each. Raises UserError.

    An interrupted call goes on after the last finished epoch when it is repeated. Several calls at the same
    time divide the runs among them. `row` is called with the log line of each epoch.
    """
    runtime = runtime or Runtime()
    entries = chosen(ids)
    wanted = jobs(entries, study.size, study.seeds, study.crafting)
    planned = plan(wanted, study.place / "runs", study.runs)
    left = [p for p in planned if p.state != "measured"]
    for line in _lines(planned, left, study, runtime):
        log(line)
    if study.plan:
        return []
    done: dict[str, Evidence] = {at.job.label: evidence.read(at.place) for at in planned if at.place}
    waiting = deque(at.job for at in left)
    busy = 0
    while waiting:
        job = waiting.popleft()
        try:
            done[job.label] = _finished(job, study, runtime, progress, log, row)
            busy = 0
        except BusyError as e:  # another `reproduce` is at it: take the next one, and see later
            waiting.append(job)
            busy += 1
            if busy >= len(waiting):
                log(f"waiting: {e}")
                time.sleep(WAIT)
                busy = 0
    found: dict[str, list[Evidence]] = {}
    for job in wanted:
        found.setdefault(job.name, []).append(done[job.label])
    return [_write(entry, found, study, log, draw) for entry in entries]


def _finished(
    job: Job,
    study: Study,
    runtime: Runtime,
    progress: Progress,
    log: Log,
    row: Callable[[dict[str, Any]], None],
) -> Evidence:
    """Train a run to its end, or read that it is there; measure what its figures need; keep the numbers."""
    run, into = located(job.run, study.data_root), study.place / "runs"
    for epoch in loop.iterate_epochs(run, study.runs, job.label, runtime, progress, log):
        row(epoch[1])
    folder = epoch[0]
    if not job.extras:  # then nobody asks for the images once more
        return evidence.keep(folder, into, {})
    splits, extras = run.data().to(runtime.torch_device), {}
    for name in job.extras:
        log(f"{job.label}: measuring {name}")
        extras[name] = EXTRAS[name](run, folder, splits, runtime, into / folder.path.name)
    return evidence.keep(folder, into, extras)


def _lines(
    planned: Sequence[Planned], left: Sequence[Planned], study: Study, runtime: Runtime
) -> Iterator[str]:
    """The plan in words; raises UserError if images or room for what is missing are not there."""
    counts = {
        state: sum(p.state == state for p in planned) for state in ("measured", "trained", "begun", "missing")
    }
    if not planned:
        return
    yield f"{len(planned)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    costs = _costs(left, study, runtime)
    for at in planned:
        price = costs.get(at.job.label)
        tail = f" ({at.done} of {at.job.run.epochs} epochs)" if at.state == "begun" else ""
        tail += f", about {_duration(price[0])}" if price else ""
        yield f"  {at.state:8} {at.job.label}{tail}" + (f"; {at.note}" if at.note else "")
    if costs:
        seconds, size = sum(s for s, _ in costs.values()), sum(b for _, b in costs.values())
        yield (
            f"about {_duration(seconds)} of this machine, {size / 2**20:,.0f} MiB of checkpoints under "
            f"{study.runs}"
        )
        room(study.runs, size)


def _costs(left: Sequence[Planned], study: Study, runtime: Runtime) -> dict[str, tuple[float, int]]:
    """Seconds and bytes of every run that is to be trained; all seeds of a run cost the same."""
    known: dict[str, Cost] = {}
    opened: dict[str, Splits] = {}
    out = {}
    for at in left:
        if at.state == "trained":
            continue
        name, run = at.job.name, located(at.job.run, study.data_root)
        if name not in known:
            if repr(run.data) not in opened:
                opened = {repr(run.data): run.data()}  # one at a time: large data sets fill the memory
            known[name] = cost(run, opened[repr(run.data)], runtime)
        out[at.job.label] = known[name].seconds(run.epochs - at.done), known[name].bytes
    return out


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{max(1, round(seconds))} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _write(entry: Experiment, found: dict[str, list[Evidence]], study: Study, log: Log, draw: Draw) -> Result:
    """Measure, judge and draw one entry from the evidence, and write its three files."""
    evidence_of = {name: found[of] for name, of in entry.runs.items()}
    place = study.place / f"{entry.id}.json"
    code = entry.code() if entry.code is not None else None
    numbers = _before(place, code)
    if numbers is None:
        numbers = entry.measure(evidence_of, study.size)
    verdicts = entry.verdicts(numbers)
    own = [v.verdict for v in verdicts if not v.extension]
    content = {
        "id": entry.id,
        "title": entry.title,
        "claim": entry.claim,
        "size": study.size,
        "seeds": study.seeds if entry.runs else None,
        "verdict": all_hold(own) if own else None,
        "verdicts": [asdict(v) for v in verdicts],
        "printed": entry.printed,
        "runs": {name: [e.folder.name for e in each] for name, each in evidence_of.items()},
        "numbers": numbers,
        "crossclass": version("crossclass"),
        "code": code,
    }
    draw(entry.id, numbers, place.with_suffix(".svg"))
    write_atomic(place.with_suffix(".csv"), table(numbers))
    write_atomic(place, json.dumps(content, indent=1) + "\n")
    log(f"{entry.id}: {content['verdict'] or 'beyond the paper'}")
    for v in verdicts:
        beside = "beyond the paper: " if v.extension else ""
        log(f"  {v.verdict:13} {beside}{v.claim}" + (f" [{v.where}]" if v.where else ""))
    return Result(entry, place, numbers, verdicts)


def _before(place: Path, code: str | None) -> Any:
    """Stored numbers that this very code has computed, if any."""
    if code is None or not place.is_file():
        return None
    with suppress(UserError):
        found = stored(place)
        return found["numbers"] if found.get("code") == code else None
    return None


def table(numbers: Any) -> str:
    """Every number as `path,value`, a line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "value"))
    writer.writerows(_leaves(numbers, ""))
    return text.getvalue()


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}/{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{path}/{i}")
    elif value is not None:
        yield path, value


def stored(place: Path) -> dict[str, Any]:
    """One entry's JSON file. Raises UserError if it is none."""
    try:
        content: dict[str, Any] = json.loads(place.read_text())
        [Verdict(**v) for v in content["verdicts"]]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{place} is not a result of reproduce; run it again") from e
    return content
