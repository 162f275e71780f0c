"""The processes of a sweep: on this machine, or handed to SLURM."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from crossclass.analysis.metrics import METRICS
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.cli.app import BUSY
from crossclass.cli.consent import environment
from crossclass.cli.own_settings import Training
from crossclass.cli.sweep import Point
from crossclass.core.config import Settings
from crossclass.core.errors import UserError
from crossclass.core.progress import Log, Progress, silent
from crossclass.core.trust import consent, trusting
from crossclass.training.loop import train, with_checksums

WAIT = 5.0
"""Seconds between looks at runs that others train."""


class Outcome(NamedTuple):
    """What became of a point."""

    point: Point
    folder: Path | None
    """Of the run, where it was begun."""
    failure: str = ""
    """Why it failed, in a sentence."""


def run_all(
    points: Sequence[Point],
    more: Sequence[str] = (),
    jobs: int = 1,
    log: Log = print,
    progress: Progress = silent,
) -> list[Outcome]:
    """Train every point, `jobs` at a time, each in a process of its own; what became of them, in their order.

    A failure stops nothing else. Runs that another process trains are waited for. Interrupted, it stops its
    processes; the same call goes on. Each job has a GPU of its own where there are several, and its share of
    the cores.
    """
    environments = deque(_environments(jobs, any(m.startswith("runtime.threads=") for m in more)))
    waiting, running, outcomes = deque(points), list[_TrainingProcess](), list[Outcome]()
    done, busy = 0, 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs and busy < len(waiting):
                running.append(_TrainingProcess(waiting.popleft(), more, environments.popleft()))
                log(f"started   {running[-1].point.label}")
                progress("train", done, len(points))
            ended = _first_to_end(running)
            if ended is None:  # all that are left are being trained elsewhere
                busy = 0
                time.sleep(WAIT)
                continue
            running.remove(ended)
            environments.append(ended.environment)
            code, reason = ended.end()
            if code == BUSY:
                waiting.append(ended.point)
                busy += 1
                continue
            busy, done = 0, done + 1
            outcomes.append(Outcome(ended.point, ended.folder, "" if code == 0 else reason))
            if code == 0:
                log(f"finished  {ended.point.label} ({done} of {len(points)})")
                for warning in ended.warnings:
                    log(f"          {warning}")
            else:
                log(f"FAILED    {ended.point.label}: {reason}")
    finally:
        for one in running:  # interrupted: a run that is killed can be resumed
            one.process.terminate()
            one.end()
    return sorted(outcomes, key=lambda one: points.index(one.point))


def train_here(points: Sequence[Point], settings: Training, log: Log = print) -> list[Outcome]:
    """Train every point in this process, one after the other; what became of them."""
    outcomes = list[Outcome]()
    for done, point in enumerate(points, 1):
        log(f"started   {point.label}")
        try:
            folder = train(point.run, settings.out, f"{point.name}-seed{point.run.seed}", settings.runtime)
            outcomes.append(Outcome(point, folder.path))
            log(f"finished  {point.label} ({done} of {len(points)})")
        except UserError as e:
            outcomes.append(Outcome(point, None, str(e)))
            log(f"FAILED    {point.label}: {e}")
    return outcomes


def registered_here(points: Sequence[Point]) -> list[str]:
    """What the points use that only this program knows: plug-ins and metrics that it has registered."""
    found = [m.key for m in METRICS if not m.compute.__module__.startswith("crossclass.")]
    for point in points:
        waiting = deque[Any]([point.run])
        while waiting:
            one = waiting.popleft()
            if isinstance(one, Settings):
                if not type(one).__module__.startswith("crossclass."):
                    found.append(str(getattr(one, "kind", type(one).__name__)))
                waiting.extend(getattr(one, name) for name in type(one).model_fields)
            elif isinstance(one, list | tuple):
                waiting.extend(one)
    return list(dict.fromkeys(found))


def begun(points: Sequence[Point], out: Path) -> dict[str, RunFolder]:
    """The folders that there are of points, by the label of the point, without a process for each."""
    found: dict[str, RunFolder] = {}
    splits, data = None, None
    if not any(out.glob("*/config.yaml")):
        return found
    for point in points:
        with suppress(UserError):  # whoever trains it says so
            if splits is None or data != point.run.data:
                splits, data = point.run.data(), point.run.data
            folder = RunFolder.of(out, point.name, with_checksums(point.run, splits))
            if (folder.path / "config.yaml").exists():
                found[point.label] = folder
    return found


def _environments(jobs: int, threads_given: bool) -> Iterator[dict[str, str]]:
    """What to add to the environment of each job that runs beside others.

    Threads of two jobs on the same cores wait for each other: ten times slower was seen.
    """
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpus = gpus if gpus != [""] else [str(i) for i in range(torch.cuda.device_count())]
    share = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1
    for i in range(jobs):
        variables = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if len(gpus) > 1 else {}
        if jobs > 1 and not threads_given and "OMP_NUM_THREADS" not in os.environ:
            variables["OMP_NUM_THREADS"] = str(share)
        yield variables


class _TrainingProcess:
    """A process that trains a point; its output goes to a file, which no pipe can block."""

    def __init__(
        self, point: Point, more: Sequence[str], own_environment: dict[str, str] | None = None
    ) -> None:
        self.point, self.environment = point, own_environment or {}
        self.output = tempfile.TemporaryFile()  # noqa: SIM115
        self.printed = tempfile.TemporaryFile()  # noqa: SIM115
        self.folder: Path | None = None  # known when it has ended
        self.warnings: list[str] = []  # of its settings, known when it has ended
        # -P: a yaml.py beside the run file must not be taken for the library
        command = [sys.executable, "-P", "-m", *point.command(more)]
        where = {**os.environ, **self.environment, **environment()}
        self.process = subprocess.Popen(command, env=where, stdout=self.printed, stderr=self.output)

    def end(self) -> tuple[int, str]:
        """Its exit code, and its last line of output."""
        code = self.process.wait()
        text, printed = _read_and_close(self.output), _read_and_close(self.printed)
        if code == 0 and printed:
            self.folder = Path(printed.splitlines()[-1])
        self.warnings = [line for line in text.splitlines() if line.startswith("warning: ")]
        return code, text.splitlines()[-1] if text else f"exit code {code}"


def _read_and_close(file: IO[bytes]) -> str:
    file.seek(0)
    text = file.read().decode(errors="replace").strip()
    file.close()
    return text


def _first_to_end(running: Sequence[_TrainingProcess]) -> _TrainingProcess | None:
    while running:
        for one in running:
            if one.process.poll() is not None:
                return one
        time.sleep(0.05)
    return None


class SlurmJob:
    """A point as a job of submitit's: preempted or out of time, it is queued again and resumes."""

    def __init__(self, point: Point, more: Sequence[str]) -> None:
        self.point, self.more, self.names = point, tuple(more), consent().names

    def __call__(self) -> None:
        """Train it to its end. Raises RuntimeError if it fails."""
        with trusting(*self.names):  # on another machine, perhaps
            running = _TrainingProcess(self.point, self.more)
        code, reason = running.end()
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
    if "cluster" not in own and shutil.which("sbatch") is None:  # submitit would run them here instead
        raise UserError("there is no SLURM here (no sbatch); slurm={cluster: local} tries it without")
    try:
        executor = submitit.AutoExecutor(folder=str(logs), cluster=own.pop("cluster", None))
        executor.update_parameters(**{"timeout_min": 600, **own})
        with executor.batch():  # submitit asks the function itself whether it can go on: no lambda
            jobs = [executor.submit(SlurmJob(p, more)) for p in points]
    except (NameError, TypeError, ValueError, RuntimeError, FileNotFoundError) as e:
        raise UserError(f"submitit refused the jobs: {e}") from e
    return [str(job.job_id) for job in jobs]
