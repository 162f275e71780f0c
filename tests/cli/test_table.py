"""`crossclass table` prints the table of runs and writes it."""

import csv
import json
import sys
from pathlib import Path

import pytest

from report_files import measure, result_file


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        folder = Path("runs") / f"toy-seed{seed}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"seed: {seed}\nlr: 0.1\n")
        ends = [measure("best.val", 2, 0.4 + seed / 10, 0.2, run=folder.name)]
        (folder / "measure.json").write_text(json.dumps(result_file(ends)))
    return Path("runs")


def test_it_is_printed_and_written(runs, call):
    code, out, _ = call("table", "runs", "out=t.csv", "metrics=robust,cas_normalised")
    assert code == 0
    lines = out.splitlines()
    assert lines[-1] == "t.csv"
    assert "robust best" in lines[0]
    (row,) = csv.DictReader(Path("t.csv").read_text().splitlines())
    assert (row["seeds"], float(row["robust_best"])) == ("2", 0.45)
    assert "cas_normalised_best" in row
    assert "clean_best" not in row
    for ending in ("tex", "md", "json"):
        assert call("table", "runs", f"out=t.{ending}")[0] == 0
        assert Path(f"t.{ending}").stat().st_size


def test_the_same_table_replaces_its_file_and_another_keeps_a_copy(runs, call):
    for name in ("t.csv", "t.md"):
        for _ in range(2):
            assert call("table", "runs", f"out={name}")[0] == 0
    assert sorted(p.name for p in Path().glob("t*")) == ["t.csv", "t.md"]
    Path("t.csv").write_text("mine\n")
    _, _, err = call("table", "runs", "out=t.csv")
    assert "kept as t-old.csv" in err
    assert Path("t-old.csv").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no such folder"),
        (["out=t.csv"], "needs run folders"),
        (["runs", "out=t.xlsx"], ".parquet"),
        (["runs", "metrics=robst"], "did you mean 'robust'"),
        (["runs", "rows=seeds"], "rows"),
    ],
)
def test_mistakes_are_one_sentence(runs, call, arguments, words):
    code, _, err = call("table", *arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_parquet_says_what_it_needs(runs, call, monkeypatch, library):
    if library == "pyarrow":
        pytest.importorskip("pandas")
    monkeypatch.setitem(sys.modules, library, None)
    code, _, err = call("table", "runs", "out=t.parquet")
    assert code == 2
    assert f"needs {library}" in err
