"""Freed memory stays with the process: the second time, a block costs no page faults."""

import platform
import subprocess
import sys

import pytest
import torch

from crossclass.models.base import space_mean

PROGRAM = """
import resource, sys, torch
from crossclass.core import allocator
if sys.argv[1] == "kept":
    assert allocator.keep_freed_memory()
def step():
    blocks = [torch.ones(1 << 24) for _ in range(4)]
for _ in range(4): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives blocks back at once")
def test_blocks_are_touched_for_the_first_time_once():
    assert faults("kept") < 1000
    assert faults("given back") > 1000  # else there is nothing to keep on this machine


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_over_space_is_torchs_and_its_gradient_has_the_layout_of_its_input(layout, dtype):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, 4, 3, generator=g).to(dtype).contiguous(memory_format=layout).requires_grad_()
    up = torch.randn(6, 8, generator=g).to(dtype)
    mine, its = space_mean(x), x.mean(dim=(2, 3))
    assert torch.equal(mine, its)
    (a,), (b,) = (torch.autograd.grad(out, x, up) for out in (mine, its))
    assert torch.equal(a, b)
    assert a.is_contiguous(memory_format=layout)
