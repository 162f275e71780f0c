"""Freed memory stays with the process, and timing bf16 leaves no trace."""

import platform
import subprocess
import sys

import pytest
import torch

from crossclass.core.device import bf16_pays

PROGRAM = """
import resource, sys, torch
from crossclass.core.device import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
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


def test_whether_bf16_pays_is_tried_without_a_trace():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert bf16_pays.__wrapped__() in (True, False)
    assert torch.equal(torch.rand(2), expected)
