"""The torch device of a run, and what depends on it: memory, compilation, precision.

On Linux the memory that a step frees is kept for the next step. glibc hands large blocks back to the system
as soon as they are free, and the next step pays a page fault for every 4 KiB of them: 96,000 in one PGD-10
call on PreActResNet-18 with 32 images, a tenth of its time (of a thin network's, up to a quarter). The
largest size of the process does not change; only between steps its memory is not given back.
"""

import ctypes
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal, TypeVar

import torch
from torch import nn

from crossclass.core.errors import UserError

Model = TypeVar("Model", bound=nn.Module)

Device = Literal["auto", "cpu", "cuda", "mps"]
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Names of mallopt(3), as numbers in malloc.h."""
_MIB = 1 << 20


def device_type(device: Device) -> str:
    """The type of torch device of a setting: `cpu`, `cuda` or `mps`; `auto` takes a GPU if there is one.

    Raises UserError if torch does not see the device.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "cuda" and not cuda:
        raise UserError("runtime.device=cuda, but torch sees no GPU; use runtime.device=auto")
    if device == "mps" and not mps:
        raise UserError("runtime.device=mps, but torch sees none; use runtime.device=auto")
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    return device


def to_device(model: Model, device: torch.device, memory_format: torch.memory_format) -> Model:
    """The same model, moved to a device, its convolution weights in a memory format."""
    return model.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]


def compile_for_crafting(model: nn.Module, device: torch.device) -> nn.Module:
    """A compiled network with the same weights, for attacks in training.

    The loss is never compiled: GradAlign differentiates twice and AWP exchanges weights, which
    `torch.compile` does not support. Raises UserError if the CPU has no C++ compiler.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if device.type == "cpu" and not compiler:
        raise UserError("runtime.compile=true needs a C++ compiler (g++); install one, or leave it out")
    # only full batches go through it: one shape, and no second compilation for shapes in general
    compiled: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return compiled


@cache
def bf16_pays() -> bool:
    """Whether this CPU is not slower at a convolution and its gradient in bf16 than in float32.

    It is timed once, in about 20 ms, and not looked up: torch may not use the instructions that a processor
    has, and emulation takes several times as long as float32. The least of eight times of each precision
    counts; they are taken in turns.
    """
    least = dict.fromkeys((True, False), math.inf)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        layer = nn.Conv2d(32, 32, 3, padding=1).requires_grad_(False)
        x = torch.rand(16, 32, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
        for lower in (True, False) * 8:
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=lower):
                torch.autograd.grad(layer(x).float().sum(), x)
            least[lower] = min(least[lower], time.perf_counter() - started)
    return least[True] <= 1.25 * least[False]  # near 1 it does not matter, and the settings are obeyed


def out_of_memory(e: BaseException) -> bool:
    """Whether an error of a device, or of the machine, says that its memory is full."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(e, torch.OutOfMemoryError | MemoryError) or any(w in str(e) for w in words)


@contextmanager
def cudnn_benchmark(device: torch.device) -> Iterator[None]:
    """Inside, on a GPU, cuDNN tries its algorithms for every shape once and keeps the fastest."""
    before = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = before or device.type == "cuda"
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 without TF32 or autocast inside; reported numbers use no other precision."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


@cache
def keep_freed_memory() -> bool:
    """Make the C library of this process keep freed memory from now on; returns whether it does.

    This works on Linux with glibc's own allocator; elsewhere nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    # blocks come from the heap, up to the largest size that this glibc allows, ...
    large = any(mallopt(_MMAP_THRESHOLD, size) for size in (1024 * _MIB, 32 * _MIB))
    # ... and the heap never shrinks, and grows in pieces of 64 MiB
    return bool(large and mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_TOP_PAD, 64 * _MIB))
