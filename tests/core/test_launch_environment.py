"""Variables that launchers set, and leave behind."""

import os
import subprocess
import sys

import pytest

from crossclass.core.errors import UserError
from crossclass.core.launch_environment import check_launcher, is_main_process, process_count
from run_file import TINY

COMPLETE = {"LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def clean(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", *COMPLETE):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_empty_counts_as_unset(clean):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "PMI_SIZE", "MASTER_ADDR"):
        clean.setenv(name, "")
    assert (process_count(), is_main_process()) == (1, True)
    check_launcher()
    assert not {"WORLD_SIZE", "RANK", "LOCAL_RANK", "PMI_SIZE", "MASTER_ADDR"} & set(os.environ)


def test_a_rank_without_a_world_is_of_another_program(clean):
    clean.setenv("RANK", "1")
    assert is_main_process()


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "two"},
        {"WORLD_SIZE": "-3"},
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "x", **COMPLETE},
        {"PMI_SIZE": "2", "PMI_RANK": "0"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"LOCAL_RANK": "first"},
        {"MASTER_PORT": "http"},
        {"WORLD_SIZE": "1" * 5000},
        {"PMI_RANK": "²"},
    ],
)
def test_what_cannot_be_followed_is_a_sentence(clean, environment):
    for name, value in environment.items():
        clean.setenv(name, value)
    with pytest.raises(UserError, match="unset") as e:
        check_launcher()
    assert any(name in str(e.value) for name in environment)
    assert str(e.value).isprintable()


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"WORLD_SIZE": ""}, 0),
        ({"WORLD_SIZE": "two"}, 2),
        ({"WORLD_SIZE": "2", "RANK": "0"}, 2),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, 2),
        ({"LOCAL_RANK": "0"}, 2),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, 2),
    ],
)
def test_a_command_says_it_in_one_sentence(tmp_path, environment, code):
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [sys.executable, "-m", "crossclass", "train", "tiny.yaml", "epochs=1", "lr_milestones=[]"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert min(environment, key=len) in done.stderr or next(iter(environment)) in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
