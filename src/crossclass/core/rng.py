"""Random streams: each starts from an integer that is computed from (seed, epoch, step, purpose).

So a run can be resumed bit for bit without saved generator states, evaluating changes no stream of the
training, and a run does not depend on Python's hash, on other libraries' draws, or on what ran before it.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Purpose = Literal[
    "init",
    "order",
    "augment",
    "attack",
    "check",
    "subset",
    "shapes",
    "measure",
    "unused",
    "doctor",
    "mix",
    "loss",
    "refresh",
    "network",
    "evaluation",
    "rehearsal",
    "label noise",
]
"""Appended to only: a purpose is known by its place in this list, and another one would change every run."""
_PURPOSES = {name: number for number, name in enumerate(get_args(Purpose), 1)}
_MASK = (1 << 64) - 1


def _mix(state: int, value: int) -> int:
    """One SplitMix64 step, so that neighbouring seeds and epochs give unrelated streams."""
    z = (state + 0x9E3779B97F4A7C15 * (value + 1)) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def stream_seed(seed: int, epoch: int, step: int, purpose: Purpose, row: int = 0) -> int:
    """The integer in [0, 2^63) that starts one stream; `row` differs between the pieces of one batch.

    Epochs are counted from 1 and steps from 0; use 0 for both where a stream belongs to the whole run.
    """
    state = 0
    for part in (seed, epoch, step, _PURPOSES[purpose], *((row,) if row else ())):
        state = _mix(state, part)
    # torch's CPU generator keeps only the low 32 bits of a seed, so they carry all the mixing
    return state & ((1 << 63) - 1)


def seed_global_rng(seed: int, device: torch.device) -> None:
    """Start Python's, NumPy's and PyTorch's global streams from `seed`; only inside `isolated_rng`."""
    # not torch.manual_seed, which would also seed GPUs that nobody puts back
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 - the stream libraries use


@contextmanager
def isolated_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Start Python's, NumPy's and PyTorch's global streams from `seed` inside, and restore them afterwards.

    For code that takes no generator: dropout, external networks and attacks. If `device` is a GPU, its stream
    is included.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_global_rng(seed, device)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def generator(
    seed: int,
    epoch: int = 0,
    step: int = 0,
    purpose: Purpose = "init",
    device: torch.device | str = "cpu",
) -> torch.Generator:
    """A new generator for one purpose in one step of a run; its seed is that of `stream_seed`.

    On the CPU it draws the same numbers on every machine. On a GPU (Philox, from the same seed) it draws the
    same on every GPU, and other numbers than on a CPU; nothing is copied, and the host does not wait.
    """
    return torch.Generator(device).manual_seed(stream_seed(seed, epoch, step, purpose))


class SlicedGenerator(torch.Generator):
    """A generator with which `uniform` and `normal` draw for a whole batch and return some of its rows.

    So several processes, or pieces of a batch one after the other, get the noise that the whole batch gets in
    one process.
    """

    total: int
    """Samples in the whole batch."""
    rows: slice
    """Which of them are returned."""


def slice_generator(whole: torch.Generator, rows: slice, total: int) -> torch.Generator:
    """A generator in the state of `whole` that returns `rows` of the noise of `total` samples.

    It is `whole` itself if these are all rows.
    """
    if rows == slice(0, total):
        return whole
    part = SlicedGenerator(whole.device)
    part.set_state(whole.get_state())
    part.total, part.rows = total, rows
    return part


def uniform(like: Tensor, g: torch.Generator | None) -> Tensor:
    """Uniform float32 noise in [0, 1) with the shape [n, ...], device and memory format of `like`.

    A `g` of None draws from the global stream of the device.
    """
    return _drawn(torch.rand, like, g)


def normal(like: Tensor, g: torch.Generator | None) -> Tensor:
    """Standard normal float32 noise with the shape [n, ...], device and memory format of `like`.

    A `g` of None draws from the global stream of the device.
    """
    return _drawn(torch.randn, like, g)


def _drawn(draw: Callable[..., Tensor], like: Tensor, g: torch.Generator | None) -> Tensor:
    # On the generator's device: a CPU generator gives the same noise on every machine.
    device = g.device if g is not None else like.device
    n = g.total if isinstance(g, SlicedGenerator) else len(like)
    noise = draw((n, *like.shape[1:]), generator=g, device=device, dtype=torch.float32)
    if isinstance(g, SlicedGenerator):
        noise = noise[g.rows]
    return torch.empty_like(like, dtype=torch.float32).copy_(noise)
