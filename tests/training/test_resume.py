"""The loop: an interrupted run equals an uninterrupted one, and a folder belongs to one process."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys

import pytest

from crossclass.checkpoints.card import load_tensors
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core import files
from crossclass.core.errors import BusyError, UserError
from crossclass.core.files import lock
from crossclass.core.runtime import Runtime
from crossclass.training.loop import iterate_epochs, train, with_checksums
from measuring import read
from tiny_runs import CPU, TINY, killed_after, same, untimed, weights


@pytest.mark.parametrize(("epoch", "inside"), [(1, False), (2, True), (3, False), (3, True)])
def test_interrupted_equals_uninterrupted(whole, tmp_path, epoch, inside):
    killed_after(epoch, tmp_path, inside=inside)
    folder = train(TINY, tmp_path, "tiny", CPU)
    for name in ("last", "best.val", "best.test", "epoch_002"):
        assert same(weights(folder, name), weights(whole, name))
    assert untimed(folder.rows()) == untimed(whole.rows())
    named = [{**r, "run": folder.path.name} if "run" in r else r for r in read(whole.path / "measure.json")]
    assert read(folder.path / "measure.json") == named


KILLED = """
import os, signal
from crossclass.cli import main
from crossclass.training import epoch

backward, steps = epoch._backward, iter(range(10))

def counted(*arguments):
    if next(steps, None) is None:  # in the middle of the third epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return backward(*arguments)

epoch._backward = counted
main()
"""


def test_kill_9_in_mid_epoch_and_resume_gives_identical_weights(tmp_path):
    (tmp_path / "run.yaml").write_text(TINY.yaml())
    command = ["-m", "crossclass", "train", "run.yaml", "runtime.threads=1"]

    def python(*arguments: str) -> int:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, check=False, capture_output=True
        ).returncode

    assert python("-c", KILLED, *command[2:], "out=killed") == -signal.SIGKILL
    one = RunFolder(next(tmp_path.glob("killed/*")))
    assert (len(one.rows()), one.done) == (2, False)
    assert python(*command, "out=killed") == python(*command, "out=whole") == 0
    two = RunFolder(next(tmp_path.glob("whole/*")))
    assert same(weights(one), weights(two))
    assert untimed(one.rows()) == untimed(two.rows())


def test_a_second_call_does_nothing(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.path.rglob("*")}
    assert train(TINY, whole.path.parent, "another label", CPU) == whole
    assert before == {p: p.stat().st_mtime_ns for p in whole.path.rglob("*")}


def test_a_cut_off_log_line_and_a_damaged_state_are_survived(whole, tmp_path):
    killed_after(3, tmp_path)
    folder = RunFolder(next(tmp_path.iterdir()))
    with open(folder.path / "events.jsonl", "ab") as file:
        file.write(b'{"epoch": 4, "lr"')
    states = sorted((folder.path / "resume").iterdir())
    assert [s.name for s in states] == ["epoch_00002.safetensors", "epoch_00003.safetensors"]
    states[-1].write_bytes(states[-1].read_bytes()[:-100])
    said: list[str] = []
    for _ in iterate_epochs(TINY, tmp_path, "tiny", CPU, log=said.append):
        pass
    notes = [line for line in said if not line.startswith("warning") and ": at with" not in line]
    assert "epoch_00003.safetensors is damaged" in notes[0]
    assert "resuming after epoch 2" in notes[1]
    assert same(weights(folder), weights(whole))


def test_if_no_state_can_be_read_it_says_what_to_delete(tmp_path):
    killed_after(2, tmp_path)
    folder = RunFolder(next(tmp_path.iterdir()))
    for state in (folder.path / "resume").iterdir():
        state.write_bytes(b"x")
    events = (folder.path / "events.jsonl").read_text()
    with pytest.raises(UserError, match=r"no state in .*resume can be read; delete that folder"):
        train(TINY, tmp_path, "tiny", CPU)
    assert (folder.path / "events.jsonl").read_text() == events
    shutil.rmtree(folder.path / "resume")
    assert len(train(TINY, tmp_path, "tiny", CPU).rows()) == 4


def test_a_full_disk_keeps_what_was_finished(tmp_path, monkeypatch, whole):
    written = 0
    fsync = os.fsync

    def sometimes(descriptor):
        nonlocal written
        written += 1
        if written > 14:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", sometimes)
    with pytest.raises(UserError, match="no space left"):
        train(TINY, tmp_path, "tiny", CPU)
    monkeypatch.undo()
    folder = RunFolder(next(tmp_path.iterdir()))
    assert not list(folder.path.rglob("*.tmp"))
    for path in folder.path.rglob("*.safetensors"):
        load_tensors(path)  # states too
    assert same(weights(train(TINY, tmp_path, "tiny", CPU)), weights(whole))


def test_an_output_folder_of_another_run_is_refused(tmp_path, whole):
    with pytest.raises(UserError, match="folder that holds the runs"):
        train(TINY, whole.path, "tiny", CPU)
    killed_after(1, tmp_path)
    folder = next(tmp_path.iterdir())
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.05", "lr: 0.06"))
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(UserError, match="is not the run that would be trained: lr differs"):
        train(TINY, tmp_path, "tiny", CPU)
    assert sorted(p.name for p in folder.iterdir()) == before
    config.write_text("{")
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        train(TINY, tmp_path, "tiny", CPU)


def test_a_setting_added_since_does_not_orphan_a_run(tmp_path):
    killed_after(1, tmp_path)
    config = next(tmp_path.iterdir()) / "config.yaml"
    config.write_text(config.read_text().replace("grad_clip_norm: null\n", ""))
    assert "grad_clip_norm" not in config.read_text()
    assert len(train(TINY, tmp_path, "tiny", CPU).rows()) == 4


HOLDER = """
import sys, time
from pathlib import Path
from crossclass.core.files import lock
with lock(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_folder_is_trained_by_one_process_at_a_time(tmp_path):
    killed_after(1, tmp_path)
    folder = RunFolder(next(tmp_path.glob("tiny-*")))
    command = [sys.executable, "-c", HOLDER, str(folder.path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(
                BusyError, match=rf"is being trained by process {holder.pid} on .*; wait for it"
            ):
                train(TINY, tmp_path, "tiny", CPU)
            assert len(folder.rows()) == 1
        finally:
            holder.kill()  # as hard as it gets: the lock goes with the process
    assert len(train(TINY, tmp_path, "tiny", CPU).rows()) == 4


def test_a_finished_run_can_be_read_while_it_is_held(whole):
    with lock(whole.path / ".lock", "it"):
        assert train(TINY, whole.path.parent, "tiny", CPU).path == whole.path


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"), lock(tmp_path / "file" / ".lock", "it"):
        pass


def test_where_nothing_can_be_locked_one_goes_on_without(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock(tmp_path / ".lock", "it"):
        (tmp_path / "done").touch()
    assert (tmp_path / "done").exists()
    with pytest.raises(KeyError), lock(tmp_path / ".lock", "it"):
        raise KeyError


def test_what_a_killed_process_left_half_written_is_swept_up(tmp_path):
    folder = RunFolder.of(tmp_path, "tiny", TINY)
    left = [
        folder.path / ".last.safetensors.1.tmp",
        folder.path / "resume" / ".epoch_00001.safetensors.1.tmp",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    killed_after(1, tmp_path)
    assert not [p for p in left if p.exists()]


def test_nothing_is_written_into_a_folder_before_its_lock_is_held(tmp_path):
    """The process that holds the lock deletes half-written files, so nobody else may be writing one."""
    folder = RunFolder.of(tmp_path, "tiny", TINY)
    assert not list(tmp_path.iterdir())
    with lock(folder.path / ".lock", "it"), pytest.raises(BusyError):
        train(TINY, tmp_path, "tiny", CPU)
    assert [p.name for p in folder.path.iterdir()] == [".lock"]


def test_a_run_that_goes_on_elsewhere_says_what_is_different(tmp_path):
    killed_after(2, tmp_path)
    said: list[str] = []
    other = Runtime(device="cpu", layout="contiguous")
    *_, (folder, _) = iterate_epochs(TINY, tmp_path, "tiny", other, log=said.append)
    notes = [line for line in said if not line.startswith(("warning", str(tmp_path)))]
    assert notes[0].endswith("may depend on it: layout channels_last before, contiguous_format now")
    assert folder.read("env.json")["earlier"] == [{"layout": "channels_last", "epochs": 2}]
    assert RunFolder.at(folder.path).begin(with_checksums(TINY, TINY.data()), folder.read("env.json")) == []
