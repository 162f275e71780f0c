"""The learning rate as a function of time: steps down, one cycle, or half a cosine."""

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["steps", "cyclic", "cosine"]


def factor(
    schedule: Schedule, t: float, epochs: int, milestones: Sequence[int], warmup: int, peak: float = 0.5
) -> float:
    """Share of the peak learning rate at time t in epochs, 0 < t <= epochs.

    `steps`: a tenth after each milestone, constant within an epoch (locuslab/robust_overfitting sets it per
    batch and falls at the last batch of the epoch before). `cyclic`: linear 0 -> 1 -> 0 with the peak at a
    share `peak` of the epochs. `cosine`: 1 -> 0. During the first `warmup` epochs the rate rises linearly.
    """
    if schedule == "cyclic":
        return min(t / (peak * epochs), (epochs - t) / ((1 - peak) * epochs))
    if t < warmup:
        return t / warmup
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (t - warmup) / max(1, epochs - warmup)))
    return 10.0 ** -sum(math.ceil(t) > m for m in milestones)
