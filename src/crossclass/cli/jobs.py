"""Many runs that differ in a few settings: `key=a,b,c` becomes a grid, each point a run folder of its own.

A run folder is found by the digest of its run, so a sweep can be called again at any time, in several
processes, on several machines with one disk: what is finished is left alone, what was begun is resumed, and
no run is trained by two processes at once (`files.lock`).
"""

import itertools
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from crossclass.cli.consent import environment, split_values
from crossclass.core.errors import UserError
from crossclass.core.progress import Log
from crossclass.core.trust import consent, names_of_code, require_consent, trusting
from crossclass.paper.runs import resolve
from crossclass.training.run import Run

BUSY = 75
"""Exit code of a command whose run another process is training (EX_TEMPFAIL)."""
WAIT = 5.0
"""Seconds between looks at runs that others train."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep, as the command line would say it."""

    target: str
    changes: tuple[str, ...]
    run: Run

    def command(self, more: Sequence[str] = ()) -> list[str]:
        """What trains it: `crossclass train ...`."""
        return ["crossclass", "train", self.target, *self.changes, *more]

    @property
    def says(self) -> str:
        """The target and what is changed."""
        return " ".join([self.target, *self.changes])


def expand(target: str, changes: Sequence[str] = ()) -> list[Point]:
    """Every point of the grid; commas outside of brackets and quotes separate values.

    `target` is a named run, a run file, or a sweep file: YAML with `run` (a name or a run file) and `grid`
    (path to a list of values). Raises UserError for a run that is not valid, naming it, and for two
    points that are the same run, or for code in a file that nobody has given consent to.
    """
    base, axes = _read(target)
    for change in changes:
        path, sign, values = change.partition("=")
        if not sign or not path:
            raise UserError(f"'{change}' is not of the form path.to.setting=value,value")
        axes[path] = split_values(values)
    points: list[Point] = []
    known: dict[str, str] = {}
    for chosen in itertools.product(*axes.values()):
        said = tuple(f"{path}={value}" for path, value in zip(axes, chosen, strict=True))
        try:
            _, run = resolve(base, said)
        except UserError as e:
            raise UserError(f"{' '.join([base, *said])}: {e}") from e
        require_consent(names_of_code(run.to_dict()), target)
        point = Point(base, said, run)
        if (digest := run.digest()) in known:
            raise UserError(f"'{point.says}' and '{known[digest]}' are the same run; take one of them out")
        known[digest] = point.says
        points.append(point)
    return points


def _read(target: str) -> tuple[str, dict[str, list[str]]]:
    """The run and the grid of a sweep file; the target itself and no grid for anything else."""
    path = Path(target)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return target, {}
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise UserError(f"{path} cannot be read as YAML") from e
    if not isinstance(content, dict) or "grid" not in content:
        return target, {}  # a run file
    if unknown := set(content) - {"run", "grid"}:
        raise UserError(f"{path}: a sweep file has 'run' and 'grid', not '{min(map(str, unknown))}'")
    grid = content["grid"]
    if not isinstance(content.get("run"), str) or not isinstance(grid, dict):
        raise UserError(f"{path}: 'run' names a run, and 'grid' is 'path: [value, ...]'")
    return content["run"], {str(k): [_said(v) for v in _values(v)] for k, v in grid.items()}


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) and value else [value]


def _said(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).split("\n...")[0].strip()


def lines(points: Sequence[Point], more: Sequence[str] = ()) -> Iterator[str]:
    """One command per run, for any scheduler."""
    for point in points:
        yield shlex.join(point.command(more))


def run_all(
    points: Sequence[Point], more: Sequence[str] = (), jobs: int = 1, log: Log = print
) -> list[Point]:
    """Train every point, `jobs` at a time, each in a process of its own; those that failed.

    A failure stops nothing else. Runs that another process trains are waited for. Interrupted, it stops its
    processes; the same call goes on. Each job has a GPU of its own where there are several, and its share of
    the cores. Raises UserError for fewer than one job.
    """
    if jobs < 1:
        raise UserError(f"jobs={jobs} trains nothing; give jobs=1 or more")
    places = deque(_places(jobs, any(m.startswith("runtime.threads=") for m in more)))
    waiting, going, failed = deque(points), list[_Going](), list[Point]()
    done, busy = 0, 0
    try:
        while waiting or going:
            while waiting and len(going) < jobs and busy < len(waiting):
                going.append(_Going(waiting.popleft(), more, places.popleft()))
                log(f"started   {going[-1].point.says}")
            ended = _first_to_end(going)
            if ended is None:  # all that are left are being trained elsewhere
                busy = 0
                time.sleep(WAIT)
                continue
            going.remove(ended)
            places.append(ended.place)
            code, reason = ended.end()
            if code == BUSY:
                waiting.append(ended.point)
                busy += 1
                continue
            busy, done = 0, done + 1
            if code == 0:
                log(f"finished  {ended.point.says} ({done} of {len(points)})")
            else:
                failed.append(ended.point)
                log(f"FAILED    {ended.point.says}: {reason}")
    finally:
        for one in going:  # interrupted: a run that is killed can be resumed
            one.process.terminate()
            one.end()
    return failed


def _places(jobs: int, threads_given: bool) -> Iterator[dict[str, str]]:
    """What to add to the environment of each job that runs beside others.

    Threads of two jobs on the same cores wait for each other: ten times slower was seen.
    """
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpus = gpus if gpus != [""] else [str(i) for i in range(torch.cuda.device_count())]
    share = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1
    for i in range(jobs):
        place = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if len(gpus) > 1 else {}
        if jobs > 1 and not threads_given and "OMP_NUM_THREADS" not in os.environ:
            place["OMP_NUM_THREADS"] = str(share)
        yield place


class _Going:
    """A process that trains a point; what it says goes to a file, which no pipe can block."""

    def __init__(self, point: Point, more: Sequence[str], place: dict[str, str] | None = None) -> None:
        self.point, self.place, self.said = point, place or {}, tempfile.TemporaryFile()  # noqa: SIM115
        # -P: a yaml.py beside the run file must not be taken for the library
        command = [sys.executable, "-P", "-m", *point.command(more)]
        where = {**os.environ, **self.place, **environment()}
        self.process = subprocess.Popen(command, env=where, stdout=subprocess.DEVNULL, stderr=self.said)

    def end(self) -> tuple[int, str]:
        """Its exit code, and the last line that it said."""
        code = self.process.wait()
        self.said.seek(0)
        text = self.said.read().decode(errors="replace").strip()
        self.said.close()
        return code, text.splitlines()[-1] if text else f"exit code {code}"


def _first_to_end(going: Sequence[_Going]) -> _Going | None:
    while going:
        for one in going:
            if one.process.poll() is not None:
                return one
        time.sleep(0.05)
    return None


class Training:
    """A point as a job of submitit's: preempted or out of time, it is queued again and resumes."""

    def __init__(self, point: Point, more: Sequence[str]) -> None:
        self.point, self.more, self.names = point, tuple(more), consent().names

    def __call__(self) -> None:
        """Train it to its end. Raises RuntimeError if it fails."""
        with trusting(*self.names):  # on another machine, perhaps
            going = _Going(self.point, self.more)
        code, reason = going.end()
        if code:
            raise RuntimeError(reason)

    def checkpoint(self) -> Any:
        """What SLURM runs when the job is requeued: the same, which goes on after the last epoch."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def submit(
    points: Sequence[Point], more: Sequence[str], logs: Path, settings: Mapping[str, Any]
) -> list[str]:
    """Hand every point to SLURM as one array; the ids of its jobs.

    `settings` are submitit's: partition, timeout_min, gpus_per_node, cpus_per_task, slurm_array_parallelism,
    or cluster=local to try it without SLURM. Raises UserError if submitit is missing or refuses them.
    """
    try:
        import submitit
    except ImportError as e:
        raise UserError("slurm needs submitit: pip install 'crossclass[slurm]'") from e
    own = dict(settings)
    try:
        executor = submitit.AutoExecutor(folder=str(logs), cluster=own.pop("cluster", None))
        executor.update_parameters(**{"timeout_min": 600, **own})
        with executor.batch():  # submitit asks the function itself whether it can go on: no lambda
            jobs = [executor.submit(Training(p, more)) for p in points]
    except (NameError, TypeError, ValueError, RuntimeError, FileNotFoundError) as e:
        raise UserError(f"submitit refused the jobs: {e}") from e
    return [str(job.job_id) for job in jobs]
