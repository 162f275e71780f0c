"""A table of runs as files: every format holds every number, and no name breaks one."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from crossclass.analysis.measured_runs import MeasuredRun
from crossclass.analysis.records import CheckpointRef, DataRef, Intervals, Measurement
from crossclass.analysis.table_of_runs import table
from crossclass.report import run_table

ATTACK = "PGD-20, l_inf 8/255, step 0.25 eps, uniform start"


def measured(name: str, robust: float, **more) -> Measurement:
    at = CheckpointRef(name=name, run="r", chosen_by=name.partition(".")[2] or None)
    about = {"attack": ATTACK, "data": DataRef(name="shapes (n=1)", n=1000, split="test"), **more}
    intervals = Intervals(robust=(robust - 0.02, robust + 0.03))
    return Measurement(checkpoint=at, clean=0.5, robust=robust, cas=12.0, intervals=intervals, **about)


def run(setting: str, seed: int, robust: float, **more) -> MeasuredRun:
    results = [measured("best.val", robust, **more), measured("last", robust - 0.1, **more)]
    return MeasuredRun("toy", {"model": setting, "lr": 0.1, "seed": seed}, results, Path(f"{setting}-{seed}"))


ODD = r"50% & $x_1$ \n #{a} ~^ <|>"


@pytest.fixture
def sweep():
    runs = [run("small", s, v) for s, v in ((0, 0.4), (1, 0.44))]
    return table(
        [*runs, run(ODD, 0, 0.3), MeasuredRun("toy", {"model": "large", "seed": 2}, missing="failed")]
    )


def test_a_row_for_each_setting_in_lines(sweep):
    lines = list(run_table.plain(sweep))
    assert lines[0].split() == [
        "model",
        "seeds",
        "clean",
        "best",
        "clean",
        "last",
        "robust",
        "best",
        "robust",
        "last",
        "CAS",
        "best",
        "CAS",
        "last",
    ]
    assert "42.0 ±25.4" in lines[1] or "42.0 ±25.4" in lines[2]  # 12.706 * 0.0283 / sqrt(2)
    assert "30.0 [28.0, 33.0]" in "\n".join(lines[1:3])
    notes = "\n".join(lines[3:])
    for words in (
        "t interval",
        "over test images",
        ATTACK,
        "1,000 test images",
        "validation",
        "seed 2: failed",
    ):
        assert words in notes, words


def test_csv_and_json_hold_the_numbers(sweep):
    rows = list(csv.DictReader(io.StringIO(run_table.csv_text(sweep))))
    assert {row["model"] for row in rows} == {"small", ODD}
    small = next(row for row in rows if row["model"] == "small")
    assert (float(small["robust_best"]), small["seeds"], small["eval_n"]) == (0.42, "2", "1000")
    whole = json.loads(run_table.content(sweep, Path("a.json"), "made by crossclass command 0: x"))
    assert whole["made_by"].startswith("made by")
    assert [len(row) for row in whole["rows"]] == [len(rows[0])] * 2
    assert whole["missing"] == {"model large, seed 2": "failed"}


def test_other_attacks_stand_in_rows_of_their_own_and_it_is_said():
    other = "PGD-20, l_inf 4/255, step 0.25 eps, uniform start"
    lines = list(run_table.plain(table([run("a", 0, 0.4), run("a", 1, 0.5, attack=other)])))
    assert "evaluated with" in lines[0]
    assert "l_inf 4/255" in "".join(lines[1:3])
    assert any("not averaged" in line for line in lines)


def test_markdown_has_the_same_number_of_cells_in_each_row(sweep):
    text = run_table.markdown(sweep)
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {9}
    assert len(rows) == 4


def test_latex_escapes_what_is_a_command():
    assert run_table.tex_escaped("50% & $x_1$ #{a}") == r"50\% \& \$x\_1\$ \#\{a\}"
    assert run_table.tex_escaped("a\\b~^") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_compiles_alone_and_inside_of_a_paper(sweep, tmp_path):
    (tmp_path / "sweep.tex").write_text(
        run_table.content(sweep, Path("a.tex"), "made by crossclass command 0: x")
    )
    paper = r"\documentclass{article}\usepackage{booktabs}\begin{document}a\input{sweep}b\end{document}"
    (tmp_path / "paper.tex").write_text(paper)
    for name in ("sweep.tex", "paper.tex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_parquet_is_read_back(sweep, tmp_path):
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(io.BytesIO(run_table.parquet(sweep)))
    assert list(frame["seeds"]) == [len(row.runs) for row in sweep.rows]
