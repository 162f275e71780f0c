"""As many threads as the machine has idle cores; a resumed run keeps its number."""

import os
import subprocess
import sys

import psutil
import pytest
import torch

from crossclass.core import cpu_threads
from crossclass.core.cpu_threads import spare_cores, threads_to_take
from crossclass.core.launch_environment import limit_spinning
from crossclass.core.runtime import Runtime


@pytest.fixture
def machine(monkeypatch):
    """A machine on which torch takes so many threads, with so many of its cores idle."""

    def made(usual: int, idle: float, cores: int | None = None) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: usual)
        monkeypatch.setattr(cpu_threads, "spare_cores", lambda: idle)
        monkeypatch.setattr(cpu_threads, "cpu_count", lambda: cores or usual)

    return made


@pytest.mark.parametrize(
    ("usual", "idle", "taken"),
    [(2, 1.9, 2), (2, 1.0, 1), (2, 0.0, 1), (64, 60.0, 64), (64, 20.2, 20), (64, 1.6, 2), (1, 0.0, 1)],
)
def test_idle_cores_decide(machine, usual, idle, taken):
    machine(usual, idle)
    threads, note = threads_to_take(None)
    assert threads == taken
    assert ("runtime.threads" in note) == (taken < usual)


def test_a_resumed_run_keeps_its_number(machine):
    machine(2, idle=2.0)
    assert threads_to_take(1)[0] == 1
    machine(2, idle=0.0)
    assert threads_to_take(2) == (2, "")
    machine(2, idle=2.0)
    assert threads_to_take(16) == (2, "")  # of another machine


def test_what_is_given_is_obeyed(machine, monkeypatch):
    machine(2, idle=0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_to_take(None) == (2, "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    taken, said = [], []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    with Runtime(device="cpu", threads=2).training_threads(None, said.append):
        pass
    assert set(taken) == {2}
    assert said == []
    with Runtime(device="cpu").training_threads(None, said.append):
        assert taken[-1] == 1
    assert taken[-1] == 2  # as before
    assert len(said) == 1


def test_busy_cores_and_limits_of_containers_are_seen(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: [100.0, 50.0, 0.0, 0.0])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    monkeypatch.setattr(cpu_threads, "cpu_count", lambda: 4)
    assert spare_cores() == 1.5
    monkeypatch.setattr(cpu_threads, "cpu_count", lambda: 1)
    assert spare_cores() == 1


def test_threads_that_wait_sleep_soon(monkeypatch):
    for given, found in ({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None):
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        limit_spinning()
        assert os.environ.get("GOMP_SPINCOUNT") == found


def test_every_command_lets_them_sleep_before_torch_is_imported():
    code = (
        "import os, sys\nfrom crossclass.cli import main\ntry:\n    main(['list'])\n"
        "finally:\n    print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.splitlines()[-1] == "1000 False", done.stderr
