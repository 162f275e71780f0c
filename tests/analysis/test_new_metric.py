"""A new number beside CAS is one entry: registered here, and present everywhere without further edits."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from crossclass.analysis import intervals
from crossclass.analysis.metrics import METRICS, Metric, register
from crossclass.analysis.records import load_results, schema
from crossclass.analysis.run_record import load_run
from crossclass.cli import app
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.report import write_report
from crossclass.training.loop import train
from crossclass.training.run import Run
from run_file import TINY

ROOT = Path(__file__).parents[2]
KEPT = Metric(
    "kept",
    "kept by the attack",
    "Share of the images whose predicted class the attack does not change.",
    lambda p: float((p.clean == p.robust).double().mean()),
    unit="accuracy",
    direction="higher",
    interval=lambda p: intervals.accuracy(p.clean == p.robust, p.labels),
    difference=lambda a, b: intervals.accuracy_difference(a.clean == a.robust, b.clean == b.robust),
    per_epoch=("val", "test"),
    headline=True,
)


@pytest.fixture
def registered() -> Iterator[None]:
    register(KEPT)
    try:
        yield
    finally:
        METRICS.remove(KEPT)


@pytest.mark.usefixtures("registered")
def test_it_is_in_csv_json_console_page_comparison_schema_and_docs(tmp_path: Path) -> None:
    folder = train(load_yaml(Run, TINY, "tiny"), out=tmp_path / "runs", runtime=Runtime(device="cpu")).path

    with (folder / "metrics.csv").open() as file:
        first = next(csv.DictReader(file))
    assert 0 <= float(first["val_kept"]) <= 1
    assert load_run(folder).rows[0]["test_kept"] == pytest.approx(float(first["test_kept"]), rel=1e-4)

    found = load_results(folder / "measure.json")
    result = found.results[-1]
    assert 0 <= result["kept"] <= 1
    assert result.intervals is not None
    assert result.intervals.ends("kept") is not None
    assert json.loads((folder / "measure.json").read_text())["results"][-1]["kept"] == result["kept"]

    out = tmp_path / "again.json"
    console = CliRunner().invoke(app, ["measure", str(folder), "attack.steps=1", f"out={out}"])
    assert console.exit_code == 0, console.output
    assert "kept" in console.output
    both = load_results(out)
    for comparison in both.comparisons:
        assert comparison["d_kept"] == pytest.approx(comparison["kept"][0] - comparison["kept"][1])
        assert comparison.intervals is not None
        assert comparison.intervals.ends("d_kept") is not None
    assert "kept by the attack" in write_report([folder], tmp_path / "run.html").read_text()
    assert "Kept by the attack" in write_report([out], tmp_path / "results.html").read_text()

    assert schema()["$defs"]["Measurement"]["properties"]["kept"]["description"] == KEPT.doc
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import made

        assert KEPT.doc in made.metrics()
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.mark.parametrize("key", ["cas", "C", "warnings", "attack", "no name"])
def test_a_key_in_use_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=key):
        register(Metric(key, key, "", lambda p: 0.0))
    assert sum(m.key == key for m in METRICS) == (key == "cas")
