"""What several benchmarks do: time jobs in turns, and write the numbers to `out=FILE.json`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from crossclass.core.files import json_text, write_atomic

K = TypeVar("K")


def in_turns(jobs: Mapping[K, Callable[[], object]], rounds: int) -> dict[K, list[float]]:
    """Seconds of every job by round, so that a busy machine slows all alike; a first round warms up."""
    times: dict[K, list[float]] = {name: [] for name in jobs}
    for i in range(rounds + 1):
        for name, job in jobs.items():
            started = perf_counter()
            job()
            if i:
                times[name].append(perf_counter() - started)
    return times


def write(found: Any) -> Path | None:
    """Write the numbers to the file of the command line's `out=`, if it is there; its path."""
    for path in (Path(a.removeprefix("out=")) for a in sys.argv[1:] if a.startswith("out=")):
        write_atomic(path, json_text(found) + "\n")
        return path
    return None
