"""What a command leaves behind: results before words, formats by name, nothing of another one overwritten."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from crossclass.analysis.records import ResultFile
from crossclass.analysis.result_files import load_results, write_results
from crossclass.cli import streams
from crossclass.core import made_by
from crossclass.core.errors import UserError
from crossclass.core.files import json_text

COMMAND = f"{sys.executable} -m crossclass"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What bash makes of a line; its exit code is that of the first command of a pipe."""
    return subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


PRINTING = {
    "a reader that leaves at once": "| true",
    "a reader of one line": "| head -1",
    "a full disk behind stdout": "> /dev/full",
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "a full disk behind stderr": "2> /dev/full",
    "both closed": ">&- 2>&-",
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
@pytest.mark.parametrize("what", PRINTING)
def test_printing_that_fails_loses_no_result_and_fails_no_command(here, whole, what):
    done = shell(f"{COMMAND} measure {whole.path}@last n=6 attack.steps=1 out=m.json {PRINTING[what]}")
    assert load_results("m.json").results[0].data.n == 6
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert ("cut off" in done.stderr) == (what == "a full disk behind stdout")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_what_is_only_printed_fails_where_it_is_cut_off(here):
    for line in ("list", "show pgd", "schema", "sweep shapes-demo seed=1,2 plan=true"):
        assert shell(f"{COMMAND} {line} | head -1").returncode == 0
        cut_off = shell(f"{COMMAND} {line} > /dev/full")
        assert cut_off.returncode == 2
        assert len(cut_off.stderr.splitlines()) == 1


def test_characters_that_stdout_cannot_encode_are_escaped(here):
    np.savez(
        "test.npz",
        images=np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8),
        labels=np.arange(12) % 2,
        class_names=np.array(["кот", "b"]),
    )
    Path("nets.py").write_text(
        "from torch import nn\n"
        "def net(num_classes=2):\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))\n"
    )
    import torch
    from torch import nn

    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    torch.save(net.state_dict(), "a.pth")
    line = f"{COMMAND} measure a.pth model=python:nets:net data.path=. attack.steps=1 out=m.json"
    done = shell(line, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert load_results("m.json").results[0].class_names == ["кот", "b"]
    assert "\\u043a\\u043e\\u0442" in done.stdout


def test_a_stream_that_failed_once_is_left_alone(here):
    class Full:
        written = 0

        def write(self, text):
            self.written += 1
            raise OSError(28, "No space left on device")

    full = Full()
    stream = streams.Stream(full)
    assert stream.write("one") == 3
    stream.writelines(["two", "three"])
    assert full.written == 1
    assert stream.cut_off == "No space left on device"


class TestOverwriting:
    @pytest.fixture(autouse=True)
    def _here(self, here, whole, call):
        self.run, self.call = str(whole.path), call

    def measure(self, *settings: str) -> str:
        """The last line that measure prints: its file."""
        code, out, err = self.call("measure", f"{self.run}@last", "attack.steps=1", *settings)
        assert code == 0, err
        return out.splitlines()[-1]

    def test_another_command_line_takes_a_name_of_its_own(self):
        assert self.measure("n=6") == "measure.json"
        first = Path("measure.json").read_bytes()
        assert self.measure("n=7") == "measure-2.json"
        assert self.measure("n=8") == "measure-3.json"
        assert Path("measure.json").read_bytes() == first
        assert [load_results(f"measure{i}.json").results[0].data.n for i in ("", "-2", "-3")] == [6, 7, 8]

    def test_the_same_command_line_replaces_its_own_whatever_the_order_of_settings(self):
        assert self.measure("n=6", "seed=1") == "measure.json"
        assert self.measure("n=7") == "measure-2.json"
        assert self.measure("seed=1", "n=6", "runtime.threads=1") == "measure.json"
        assert self.measure("n=7") == "measure-2.json"
        assert self.measure("n=7", "out=measure-2.json") == "measure-2.json"

    def test_another_file_under_the_same_name_takes_a_name_of_its_own(self):
        first, *_, other = sorted(Path(self.run).glob("**/*.safetensors"))
        assert first.read_bytes() != other.read_bytes()
        images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
        np.savez("test.npz", images=images, labels=np.arange(12) % 3)
        for file, expected in ((first, "measure.json"), (other, "measure-2.json"), (first, "measure.json")):
            Path("a.safetensors").write_bytes(file.read_bytes())
            code, out, err = self.call(
                "measure", "a.safetensors", "data.kind=npz", "data.path=.", "clean=true"
            )
            assert code == 0, err
            assert out.splitlines()[-1] == expected

    def test_a_file_of_unknown_origin_is_kept(self):
        Path("measure.json").write_text("[]")
        assert self.measure("n=6") == "measure-2.json"
        assert Path("measure.json").read_text() == "[]"

    def test_what_was_under_a_name_that_is_asked_for_is_kept_beside_it(self):
        assert self.measure("n=6", "out=m.json") == "m.json"
        before = Path("m.json").read_bytes()
        code, out, err = self.call("measure", f"{self.run}@last", "attack.steps=1", "n=7", "out=m.json")
        assert (code, out.splitlines()[-1]) == (0, "m.json")
        assert "what m.json was before is kept as" in err
        assert "m-old.json" in err
        assert Path("m-old.json").read_bytes() == before
        assert load_results("m.json").results[0].data.n == 7
        self.measure("n=7", "out=m.json")  # its own is replaced
        self.measure("n=6", "out=m.json")
        assert sorted(p.name for p in Path().glob("m*.json")) == ["m-old-2.json", "m-old.json", "m.json"]
        assert load_results("m-old-2.json").results[0].data.n == 7

    def test_a_link_stays_and_what_it_led_to_is_kept(self):
        Path("store").mkdir()
        Path("store/m.json").write_text("old")
        Path("store/m.json").chmod(0o664)
        Path("m.json").symlink_to("store/m.json")
        assert self.measure("n=6", "out=m.json") == "m.json"
        assert Path("m.json").is_symlink()
        assert Path("store/m-old.json").read_text() == "old"
        assert load_results("store/m.json").results[0].data.n == 6
        assert Path("store/m.json").stat().st_mode & 0o777 == 0o664

    def test_what_cannot_be_copied_is_not_replaced(self, monkeypatch):
        Path("m.json").write_text("old")
        monkeypatch.setattr(made_by.shutil, "copy2", Mock(side_effect=OSError(28, "No space left on device")))
        code, _, err = self.call("measure", f"{self.run}@last", "attack.steps=1", "n=6", "out=m.json")
        assert code == 2
        assert "No space left" in err
        assert Path("m.json").read_text() == "old"

    def test_an_empty_file_is_taken(self):
        Path("m.json").touch()
        assert self.measure("n=6", "out=m.json") == "m.json"

    def test_the_same_words_in_another_folder_are_another_command_line(self, monkeypatch, tmp_path):
        assert self.measure("n=6", f"out={tmp_path}/m.json") == f"{tmp_path}/m.json"
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        self.measure("n=6", f"out={tmp_path}/m.json")
        assert (tmp_path / "m-old.json").is_file()

    def test_what_another_process_made_meanwhile_is_kept(self, monkeypatch):
        from crossclass.analysis import measure as measuring

        real = measuring.measure

        def slow(*arguments, **more):
            Path("measure.json").write_text("another process was faster")
            return real(*arguments, **more)

        monkeypatch.setattr(measuring, "measure", slow)
        assert self.measure("n=6") == "measure-2.json"
        assert Path("measure.json").read_text() == "another process was faster"

    def test_the_file_says_what_made_it_without_folders_of_this_machine(self):
        self.measure("n=6")
        said = load_results("measure.json").made_by
        assert said.startswith("made by crossclass command ")
        assert "n=6" in said
        assert "/" not in said.partition(": ")[2]

    def test_doctor_keeps_as_measure_does(self):
        few = ("n=8", "n_attack=4", "out=d.json")
        assert self.call("doctor", f"{self.run}@last", *few)[0] in (0, 1)
        before = Path("d.json").read_bytes()
        assert json.loads(before)[0]["made_by"].startswith("made by crossclass command ")
        assert self.call("doctor", f"{self.run}@best.val", *few)[0] in (0, 1)
        assert Path("d-old.json").read_bytes() == before
        assert Path("d.json").read_bytes() != before

    def test_pages_are_kept_apart_by_what_they_are_about(self):
        self.measure("n=6")
        self.measure("n=7")

        def page(*targets: str) -> str:
            return Path(self.call("report", *targets)[1].strip()).name

        assert page("measure.json", "measure-2.json") == "report.html"
        assert page("measure-2.json", self.run) == "report-2.html"
        assert page("measure.json", "measure-2.json") == "report.html"
        before = Path("report.html").read_bytes()
        assert self.call("report", "measure.json", "out=report.html")[0] == 0
        assert Path("report-old.html").read_bytes() == before


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_a_figure_says_what_made_it(here, kind):
    from matplotlib.figure import Figure

    from crossclass.report import plots

    mark, path = made_by.mark(["verify", "a"], "verify a"), Path(f"x.{kind}")
    plots.save(Figure(), path, mark)
    assert made_by.is_free(path, mark)
    assert not made_by.is_free(path, made_by.mark(["verify", "b"], "verify b"))


ENDINGS = [
    *(("measure", f"m.{e}", ".json") for e in ("pdf", "svg", "png", "html", "csv", "yaml")),
    *(("doctor", f"d.{e}", ".json") for e in ("pdf", "svg", "csv")),
    *(("report", f"p.{e}", ".html") for e in ("pdf", "svg", "png", "json", "csv")),
    *(("verify", f"v.{e}", ".svg") for e in ("html", "json", "csv")),
]


@pytest.mark.parametrize(("command", "out", "instead"), ENDINGS)
def test_another_format_is_refused_before_any_work(here, whole, call, command, out, instead):
    target = str(whole.path) if command in ("report", "verify") else f"{whole.path}@last"
    code, printed, err = call(command, target, f"out={out}")
    assert (code, printed, err.count("\n")) == (2, "", 1)
    assert instead in err
    assert not any(here.iterdir())


class TestLargeMatrices:
    def results(self, value: float) -> ResultFile:
        C = [[value] * 101 for _ in range(101)]
        return ResultFile.model_validate(
            {"results": [{"checkpoint": {"name": "last"}, "matrices": {"C": C}}], "comparisons": []}
        )

    def test_images_beside_the_result_are_kept(self, here):
        np.savez("test.npz", images=np.zeros(3))
        before = Path("test.npz").read_bytes()
        write_results(Path("test.json"), self.results(0.5))
        assert Path("test.npz").read_bytes() == before
        assert load_results("test.json").results[0].matrix("C")[3][4] == 0.5

    def test_numbers_and_matrices_of_two_measurements_are_not_mixed(self, here):
        write_results(Path("m.json"), self.results(0.5))
        old = Path("m.json").read_bytes()
        write_results(Path("m.json"), self.results(0.25))
        Path("m.json").write_bytes(old)  # as if it was killed between the two files
        with pytest.raises(UserError, match="another measurement"):
            load_results("m.json")


def test_json_has_null_for_what_is_no_number():
    text = json_text({"a": [float("nan"), (1.5, float("inf"))], "b": {"c": -float("inf")}})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, [1.5, None]], "b": {"c": None}}


def test_killed_at_any_moment_the_file_is_whole(here, whole):
    """Seeded moments, from the first import to after the end."""
    line = [*COMMAND.split(), "measure", f"{whole.path}@last", "n=6", "attack.steps=1", "out=m.json"]
    for delay in np.random.default_rng(0).uniform(0.5, 4, 3):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait()
        if Path("m.json").exists():
            assert load_results("m.json").results[0].data.n == 6
