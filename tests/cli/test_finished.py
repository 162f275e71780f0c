"""A finished run is known by its folder: no torch, and no guess where it may be another run by now."""

import subprocess
import sys
from pathlib import Path

import pytest

from crossclass.cli import finished
from crossclass.cli.finished import finished_folder, keep_command

WORDS = ["epochs=8", "seed=1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("runs", "shapes-demo-seed1-0123456789ab")
    path.mkdir(parents=True)
    for name in ("config.yaml", "DONE", "report.html"):
        (path / name).write_text("")
    keep_command(path, "shapes-demo", WORDS)
    return path


def known(*words, target="shapes-demo", out="runs"):
    return finished_folder(target, words, Path(out))


def test_the_same_words_in_any_order_are_the_same_run(folder):
    assert known(*WORDS) == known(*reversed(WORDS)) == folder
    assert known(*WORDS, "runtime.threads=1", "device=cpu") == folder
    assert known(*WORDS, "out=runs", out="elsewhere") == folder
    assert known(target=str(folder)) == folder.absolute()


@pytest.mark.parametrize(
    "words", [["epochs=8"], ["epochs=8", "seed=2"], [*WORDS, "batch=3"], [*WORDS, "out=elsewhere"]]
)
def test_other_words_may_be_another_run(folder, words):
    assert known(*words) is None
    assert known(*words, target="digits-at") is None
    assert known("epochs=8", target=str(folder)) is None


@pytest.mark.parametrize("missing", ["DONE", "report.html"])
def test_what_is_not_whole_is_gone_on_with(folder, missing):
    (folder / missing).unlink()
    assert known(*WORDS) is None
    assert known(target=str(folder)) is None


def test_another_version_or_a_file_may_be_another_run(folder, monkeypatch):
    Path("images").mkdir()
    for target, words in (("shapes-demo", ["data.path=images"]), ("mine.yaml", []), ("images", [])):
        keep_command(folder, target, words)
        assert known(*words, target=target) is None
    Path("catalogue.json").write_text("other defaults")
    monkeypatch.setattr(finished, "CATALOGUE", Path("catalogue.json"))
    assert known(*WORDS) is None


@pytest.mark.parametrize("command", [["train", "shapes-demo"], ["demo", "out=runs"]])
def test_a_finished_run_is_said_without_torch(folder, command):
    code = (
        f"import sys; from crossclass.cli import main\ntry: main({[*command, *WORDS]})\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = folder if command[0] == "train" else (folder / "report.html").absolute()
    assert (done.returncode, done.stdout.splitlines()) == (0, [str(last), "False"])
    assert "finished already" in done.stderr
