"""Printing fails no command, whatever is behind stdout and stderr."""

import io
import sys
from pathlib import Path

import pytest

from crossclass.analysis.result_files import load_results
from crossclass.cli import main, streams
from run_file import TINY


class Full(io.TextIOBase):
    """A disk that is full, or a reader that has gone."""

    encoding, errors = "utf-8", "strict"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error

    def isatty(self) -> bool:
        return True


def closed() -> io.TextIOWrapper:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    stream.close()
    return stream


BEHIND = {
    "nothing": lambda: None,
    "a full disk": lambda: Full(OSError(28, "No space left on device")),
    "a reader that has gone": lambda: Full(BrokenPipeError(32, "Broken pipe")),
    "a closed file": closed,
    "ascii": lambda: io.TextIOWrapper(io.BytesIO(), "ascii"),
    "the locale C": lambda: io.TextIOWrapper(io.BytesIO(), "ascii", errors="surrogateescape"),
}


@pytest.fixture
def behind(tmp_path, monkeypatch):
    """Run a command with these streams; its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(what: str, *arguments: str) -> int:
        out, err = BEHIND[what](), BEHIND[what]()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as e:
                main(arguments)
        assert "Traceback" not in "".join(written(s) for s in (out, err))
        return int(e.value.code or 0)

    return run


def written(stream) -> str:
    if not isinstance(stream, io.TextIOWrapper) or stream.closed:
        return ""
    stream.flush()
    return stream.buffer.getvalue().decode("ascii")


@pytest.mark.parametrize("what", BEHIND)
def test_results_are_there(behind, whole, what):
    few = ("n=6", "attack.steps=1")
    assert behind(what, "measure", f"{whole.path}@last", *few, "out=m.json") == 0
    assert load_results("m.json").results[0].data.n == 6
    assert behind(what, "report", "m.json", "out=p.html") == 0
    assert Path("p.html").read_text("utf-8").rstrip().endswith("</html>")
    assert behind(what, "doctor", f"{whole.path}@last", "n=8", "n_attack=4", "out=d.json") in (0, 1)
    assert Path("d.json").stat().st_size > 100
    assert behind(what, "verify", str(whole.path), "out=v.svg") in (0, 1)
    assert Path("v.svg").exists()


@pytest.mark.parametrize("what", BEHIND)
def test_training_goes_on(behind, what):
    Path("tiny.yaml").write_text(TINY)
    assert behind(what, "train", "tiny.yaml", "epochs=1", "lr_milestones=[]", "out=runs") == 0
    assert len(list(Path("runs").glob("*/DONE"))) == 1


@pytest.mark.parametrize("what", BEHIND)
@pytest.mark.parametrize("line", ["list", "show pgd", "schema", "--help", "--version", "train --help"])
def test_what_is_only_printed(behind, line, what):
    code = behind(what, *line.split())
    assert code in ((0, 2) if what in ("a full disk", "a closed file") else (0,))


@pytest.mark.parametrize("what", BEHIND)
@pytest.mark.parametrize(
    "line", ["measure", "train no-such-run", "nonsense", "report nowhere.json", "measure a x=1"]
)
def test_a_mistake_keeps_its_exit_code(behind, line, what):
    assert behind(what, *line.split()) == 2


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_what_the_encoding_lacks_is_escaped_and_the_rest_is_printed(errors):
    raw = io.BytesIO()
    stream = streams.Stream(io.TextIOWrapper(raw, "ascii", errors=errors))
    for text in ("кот ", "\udcff ", "end"):
        stream.write(text)
    stream.flush()
    assert raw.getvalue() == b"\\u043a\\u043e\\u0442 \\udcff end"
    assert stream.cut_off == ""


def test_a_stream_that_code_of_others_closes_goes_on():
    raw = io.StringIO()
    stream = streams.Stream(raw)
    stream.write("a")
    stream.close()
    stream.write("b")
    assert raw.getvalue() == "ab"


def test_a_stream_that_cannot_be_told_to_escape():
    class Latin(io.StringIO):
        encoding = "latin-1"

        def write(self, text: str) -> int:
            text.encode(self.encoding)
            return super().write(text)

    latin = Latin()
    stream = streams.Stream(latin)
    stream.write("é кот")
    assert latin.getvalue() == "é \\u043a\\u043e\\u0442"
