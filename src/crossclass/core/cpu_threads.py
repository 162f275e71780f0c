"""How many CPU threads a training takes: what the machine can spare when it begins.

torch's threads meet after every operation, thousands of times in an epoch. Where other programs keep the
cores busy, one thread is always late and the others wait for it, so that a thin network is faster with as
many threads as cores are idle. The number is kept for the whole run, also when it is resumed: sums of
gradients are cut into as many pieces, so another number changes their last bits.
"""

import os

import psutil
import torch
from joblib import cpu_count

_SECONDS = 0.3
"""Over which the cores are watched."""
_BUSY = 0.75
"""All threads are taken where this share of the cores is idle."""


def spare_cores() -> float:
    """How many of the cores that this process may use are idle, now and by its container's limit."""
    percent = psutil.cpu_percent(_SECONDS, percpu=True)
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(percent))
    return min(sum(1 - percent[i] / 100 for i in own if i < len(percent)), float(cpu_count()))


def threads_to_take(before: int | None) -> tuple[int, str]:
    """The number of CPU threads for a training, and a sentence if it is another than torch's own.

    `before` is how many a run that is resumed took, None for one that begins.
    """
    usual = torch.get_num_threads()
    if usual == 1 or "OMP_NUM_THREADS" in os.environ:
        return usual, ""
    if before is not None:
        if before == usual or before > cpu_count():
            return usual, ""
        threads, why = before, "as before, so that the result is the same to the bit"
    elif (spare := spare_cores()) < _BUSY * usual:
        threads, why = max(1, round(spare)), "other programs keep the cores busy"
        if threads >= usual:
            return usual, ""
    else:
        return usual, ""
    return threads, f"using {threads} of {usual} CPU threads: {why} (runtime.threads={usual} takes all)"
