"""A file is whole or not there, whatever the disk does."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from crossclass.core import files
from crossclass.core.errors import UserError


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_refusing_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, code):
    path = tmp_path / "x.json"
    files.write_atomic(path, "old")

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(UserError, match="out=") as e:
        files.write_atomic(path, "new")
    assert "\n" not in str(e.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_real_file_size_limit_is_a_sentence(tmp_path):
    code = (
        "import signal, sys; from pathlib import Path; from crossclass.core.files import write_atomic\n"
        "from crossclass.core.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: write_atomic(Path(sys.argv[1]), b'x' * 100_000)\n"
        "except UserError as e: print(e); sys.exit(2)\n"
    )
    target = tmp_path / "x.bin"

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "no space left to write" in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        files.write_atomic(tmp_path / "file" / "x", "")
    with pytest.raises(UserError, match=r"/file is a file, not a folder"):
        files.write_atomic(tmp_path / "file" / "y" / "x", "")


def test_unfinished_lines_are_left_out(tmp_path):
    path = tmp_path / "log"
    assert files.complete_lines(path) == []
    files.append_line(path, "one")
    files.append_line(path, "two")
    with open(path, "ab") as file:
        file.write(b"thr")
    assert files.complete_lines(path) == ["one", "two"]
