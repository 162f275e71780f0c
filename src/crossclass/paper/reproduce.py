"""Reproduce entries of the paper: plan, train what is not there, measure, judge, draw.

    <out>/<size>/<id>.json   the claim, the verdicts, the numbers, what the paper prints
    <out>/<size>/<id>.csv    every number of it, one a line
    <out>/<size>/<id>.svg    the figure, drawn by a given function (`report.plots.paper_figures.draw`)
    <out>/<size>/runs/       the evidence of every run (`evidence`)
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

from crossclass.analysis.records import EpochRow
from crossclass.core.config import Settings
from crossclass.core.errors import BusyError, UserError
from crossclass.core.files import json_text, write_atomic
from crossclass.core.progress import Log, Progress, duration, silent
from crossclass.core.runtime import Runtime
from crossclass.data import Splits
from crossclass.paper import evidence
from crossclass.paper.entries import chosen
from crossclass.paper.entry import Entry, Numbers, Size
from crossclass.paper.evidence import Evidence
from crossclass.paper.extra_measurements import EXTRAS, DrawMaps, FinishedRun
from crossclass.paper.plan import (
    STATES,
    Cost,
    Job,
    Planned,
    check_disk_space,
    cost,
    jobs,
    plan,
    with_data_path,
)
from crossclass.paper.verdict import Verdict, all_hold
from crossclass.training import loop

WAIT = 10.0
"""Seconds to wait for runs that other processes train."""


class Study(Settings):
    """How large to reproduce entries, and in which folders."""

    size: Size = "mini"
    """`smoke` runs in seconds on generated pictures, `mini` in hours on two cores, `paper` on a GPU."""
    seeds: int = Field(default=3, ge=1, le=20)
    """Seeds 0, 1, ... of every run; at sizes smoke and mini seed 0 is shown and not counted in verdicts."""
    crafting: Literal["as set", "bf16"] = "as set"
    """`bf16`: every run crafts in bf16, also in its checks; it is another run than with `as set`."""
    data_root: Path | None = None
    """The folder that holds cifar10/, cifar100/ and tiny_imagenet/."""
    out: Path = Path("results")
    """The folder of the results, with a folder below it for each size."""
    runs: Path = Path("runs")
    """The folder of the run folders, with their weights."""
    plan: bool = False
    """Only print what would be done."""

    @property
    def folder(self) -> Path:
        """The folder of the results of this size."""
        return self.out / self.size


@dataclass(frozen=True)
class Result:
    """A reproduced entry."""

    entry: Entry
    path: Path
    """Its JSON file."""
    numbers: Numbers
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Callbacks:
    """What `reproduce` calls on its way; nothing is drawn unless functions that draw are given."""

    progress: Progress = silent
    log: Log = lambda text: None
    row: Callable[[EpochRow], None] = lambda row: None
    """Called with the row of each finished epoch."""
    draw: Callable[[str, Numbers, Path], object] = lambda id_, numbers, path: None
    """Called with the id of an entry, its numbers, and the path of its figure."""
    draw_maps: DrawMaps = lambda maps, path: None
    """Called with the saliency maps of a run, and the path of their picture."""


def reproduce(
    ids: Sequence[str], study: Study, runtime: Runtime | None = None, callbacks: Callbacks | None = None
) -> list[Result]:
    """Train, measure, judge and draw entries, given by their ids; a result for each. Raises UserError.

    An interrupted call goes on after the last finished epoch when it is repeated. Several calls at the same
    time divide the runs among them.
    """
    runtime, call = runtime or Runtime(), callbacks or Callbacks()
    entries = chosen(ids)
    if not study.plan:
        _require_no_more_there(entries, study)
    wanted = jobs(entries, study.size, study.seeds, study.crafting)
    planned = plan(wanted, study.folder / "runs", study.runs)
    left = [p for p in planned if p.state != "done"]
    for line in _plan_lines(planned, left, study, runtime):
        call.log(line)
    if study.plan:
        return []
    done: dict[str, Evidence] = {
        p.job.label: evidence.read(p.evidence_folder) for p in planned if p.evidence_folder
    }
    waiting = deque(p.job for p in left)
    busy = 0
    while waiting:
        job = waiting.popleft()
        try:
            done[job.label] = _train_and_measure(job, study, runtime, call)
            busy = 0
        except BusyError as e:  # another process trains it: take the next one first
            waiting.append(job)
            busy += 1
            if busy >= len(waiting):
                call.log(f"waiting: {e}")
                time.sleep(WAIT)
                busy = 0
    by_run: dict[str, list[Evidence]] = {}
    for job in wanted:
        by_run.setdefault(job.name, []).append(done[job.label])
    return [_finish(entry, by_run, study, call) for entry in entries]


def _require_no_more_there(entries: Sequence[Entry], study: Study) -> None:
    """Raises UserError if an entry is stored with more seeds, or from runs that crafted otherwise."""
    for entry in entries:
        path = study.folder / f"{entry.id}.json"
        if not entry.runs or not path.exists():
            continue
        try:
            content = read_entry(path)
        except UserError:  # a damaged file is written anew
            continue
        seeds, crafting = content.get("seeds") or 0, content.get("crafting", "as set")
        if seeds > study.seeds or crafting != study.crafting:
            raise UserError(
                f"{path} was made with seeds={seeds} crafting='{crafting}' and would be replaced; give these "
                "settings too, or another folder with out=DIR"
            )


def _train_and_measure(job: Job, study: Study, runtime: Runtime, call: Callbacks) -> Evidence:
    """Train a run to its end unless it is finished, measure what its entries need, and keep the numbers."""
    run, into = with_data_path(job.run, study.data_root), study.folder / "runs"
    for trained, row in loop.iterate_epochs(run, study.runs, job.label, runtime, call.progress, call.log):
        folder = trained
        call.row(row)
    if not job.extras:  # then the images are not needed
        return evidence.keep(folder, into, {})
    splits = run.data().to(runtime.torch_device)
    finished = FinishedRun(run, folder, splits, runtime, into / folder.path.name, call.draw_maps)
    extras = {}
    for name in job.extras:
        call.log(f"{job.label}: measuring {name}")
        extras[name] = EXTRAS[name](finished)
    return evidence.keep(folder, into, extras)


def _plan_lines(
    planned: Sequence[Planned], left: Sequence[Planned], study: Study, runtime: Runtime
) -> Iterator[str]:
    """The plan in words; raises UserError if images are missing or the disk is too small."""
    counts = {state: sum(p.state == state for p in planned) for state in STATES}
    if not planned:
        return
    yield f"{len(planned)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    costs = _costs(left, study, runtime)
    for at in planned:
        price = costs.get(at.job.label)
        tail = f" ({at.done} of {at.job.run.epochs} epochs)" if at.state == "to be continued" else ""
        tail += f", about {duration(price[0])}" if price else ""
        yield f"  {at.state:15} {at.job.label}{tail}" + (f"; {at.note}" if at.note else "")
    if costs:
        seconds, size = sum(s for s, _ in costs.values()), sum(b for _, b in costs.values())
        yield (
            f"about {duration(seconds)} of this machine, {size / 2**20:,.0f} MiB of checkpoints under "
            f"{study.runs}"
        )
        check_disk_space(study.runs, size)


def _costs(left: Sequence[Planned], study: Study, runtime: Runtime) -> dict[str, tuple[float, int]]:
    """Seconds and bytes of every run that is to be trained; all seeds of a run cost the same."""
    known: dict[str, Cost] = {}
    opened: dict[str, Splits] = {}
    out = {}
    for at in left:
        if at.state == "to be measured":
            continue
        name, run = at.job.name, with_data_path(at.job.run, study.data_root)
        if name not in known:
            if repr(run.data) not in opened:
                opened = {repr(run.data): run.data()}  # one at a time: large data sets fill the memory
            known[name] = cost(run, opened[repr(run.data)], runtime)
        out[at.job.label] = known[name].seconds(run.epochs - at.done), known[name].bytes
    return out


def _finish(entry: Entry, by_run: dict[str, list[Evidence]], study: Study, call: Callbacks) -> Result:
    """Measure, judge and draw one entry from the evidence, and write its three files."""
    evidence_by_name = {name: by_run[of] for name, of in entry.runs.items()}
    path = study.folder / f"{entry.id}.json"
    code = entry.code() if entry.code is not None else None
    numbers = _stored_numbers(path, code)
    if numbers is None:
        numbers = entry.measure(evidence_by_name, study.size)
    verdicts = entry.verdicts(numbers)
    own = [v.verdict for v in verdicts if not v.extension]
    content = {
        "id": entry.id,
        "title": entry.title,
        "claim": entry.claim,
        "size": study.size,
        "seeds": study.seeds if entry.runs else None,
        "crafting": study.crafting,
        "verdict": all_hold(own) if own else None,
        "verdicts": [asdict(v) for v in verdicts],
        "printed": entry.printed,
        "runs": {name: [e.folder.name for e in each] for name, each in evidence_by_name.items()},
        "numbers": numbers,
        "crossclass": version("crossclass"),
        "code": code,
    }
    call.draw(entry.id, numbers, path.with_suffix(".svg"))
    write_atomic(path.with_suffix(".csv"), csv_table(numbers))
    write_atomic(path, json_text(content) + "\n")
    call.log(f"{entry.id}: {content['verdict'] or 'beyond the paper'}")
    for v in verdicts:
        beside = "beyond the paper: " if v.extension else ""
        where = f" [{v.where}]" if v.where else ""
        chance = f" (p {v.p_holm:.2g})" if v.p_holm is not None else ""
        call.log(f"  {v.verdict:13} {beside}{v.claim}{where}{chance}")
    return Result(entry, path, numbers, verdicts)


def _stored_numbers(path: Path, code: str | None) -> Any:
    """The stored numbers of an entry, if they were computed with the same code."""
    if code is not None:
        with suppress(UserError):  # what is missing or damaged is computed again
            content = read_entry(path)
            return content["numbers"] if content.get("code") == code else None
    return None


def csv_table(numbers: Any) -> str:
    """The numbers as CSV, one `path,value` a line."""
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


def read_entry(path: Path) -> dict[str, Any]:
    """The content of an entry's JSON file. Raises UserError if the file is not one."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        [Verdict(**v) for v in content["verdicts"]]
        [content[key] for key in ("id", "title", "claim", "size")], dict(content["numbers"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is not a result of reproduce; run it again") from e
    return content
