"""One list of metrics: a number that is added to it appears everywhere; result files fit their schema."""

import csv
import hashlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from crossclass.analysis import evaluate, records, result_files
from crossclass.analysis.compare import comparison
from crossclass.analysis.metrics import METRICS, Metric, metric, register_metric
from crossclass.analysis.records import metrics_csv
from crossclass.analysis.result_files import load_results, schema, write_results
from crossclass.analysis.run_record import load_run
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.paper import evidence
from crossclass.paper.run_numbers import collect
from crossclass.report import write_report
from crossclass.report.console import table
from crossclass.training.loop import train
from tiny_runs import CPU, TINY

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))


def effective_rank(p: evaluate.EvaluationPass) -> float:
    """exp of the entropy of the singular values of the class means (Roy and Vetterli 2007)."""
    s = torch.linalg.svdvals(p.means)
    share = s / s.sum()
    return float(torch.special.entr(share).sum().exp())


@pytest.fixture
def added():
    """A metric that nothing else in the repository knows."""
    new = Metric(
        "effective_rank",
        "effective rank",
        "Effective rank of the class means of attributions, between 1 and K.",
        effective_rank,
        per_epoch=("test",),
        headline=True,
    )
    yield register_metric(new)
    METRICS.remove(new)


def random_pass(seed: int, n: int = 60, k: int = 4, d: int = 7) -> evaluate.EvaluationPass:
    g = generator(seed)
    labels = torch.arange(n) % k
    predicted = torch.where(torch.rand(n, generator=g) < 0.6, labels, (labels + 1) % k)
    features = torch.rand(n, d, generator=g) + 0.5 * torch.eye(k, d)[labels]
    return evaluate.EvaluationPass(
        labels, predicted, predicted.roll(1), features, torch.randn(k, d, generator=g)
    )


def test_a_metric_that_is_added_is_seen_everywhere(added, tmp_path):
    folder = train(TINY, tmp_path / "runs", "tiny", CPU)
    # the file of a run, and its schema
    found = load_results(folder.path / "measure.json")
    values = [r["effective_rank"] for r in found.results]
    assert all(1 <= v <= 3 for v in values)
    (c,) = found.comparisons
    assert c["d_effective_rank"] == pytest.approx(c["effective_rank"][0] - c["effective_rank"][1])
    assert schema()["$defs"]["Measurement"]["properties"]["effective_rank"]["description"] == added.doc
    # every epoch
    with (folder.path / "metrics.csv").open() as file:
        logged = [row["effective_rank"] for row in csv.DictReader(file)]
    assert [float(v) for v in logged] == pytest.approx([r["effective_rank"] for r in folder.rows()], rel=1e-5)
    # the console
    lines = [line for line in table(found) if not line.startswith("warning")]  # they come first
    assert added.label in lines[0]
    assert any(added.label in line and f"{values[0]:.2f}" in line for line in lines[1:])
    # the page of a run, and of a result
    for target in (folder.path, folder.path / "measure.json"):
        html = write_report([target], tmp_path / f"{target.name}.html").read_text()
        assert added.label.capitalize() in html, target
        assert f"{values[0]:.1f}" in html, target
    # a study
    kept = evidence.keep(folder, tmp_path / "kept", {})
    numbers = collect({"AT": [kept]}, "paper")["runs"]["AT"]
    assert numbers["best"]["effective_rank"] == [values[0]]
    assert numbers["checks"]["last"]["effective_rank"] == [pytest.approx(float(logged[-1]))]
    assert numbers["best_minus_last"]["effective_rank"]["value"] == [c["d_effective_rank"]]
    # the documents
    import made

    assert f"| `effective_rank` | {added.label} |" in made.metrics()


def test_a_key_that_is_taken_is_refused():
    for key in ("cas", "checkpoint", "epoch", "no name"):
        with pytest.raises(UserError, match=f"'{key}' is taken or is no name"):
            register_metric(Metric(key, "x", "x", lambda p: 0.0))


@pytest.mark.parametrize("key", [m.key for m in METRICS])
def test_every_metric_is_finite_and_lies_in_its_interval(key):
    m, seen = metric(key), random_pass(3)
    value = m.value(seen)
    assert value is None or math.isfinite(value)
    if m.interval:
        found = m.interval(seen)
        assert found.estimate == pytest.approx(value)
    if m.difference:
        assert m.difference(seen, random_pass(4)).estimate == pytest.approx(value - m.value(random_pass(4)))


def test_what_is_undefined_is_null_and_never_nan(tmp_path):
    nothing = Metric("undefined", "undefined", "Not a number.", lambda p: math.nan)
    METRICS.append(nothing)
    try:
        assert nothing.value(random_pass(1)) is None
        seen, other = random_pass(1), random_pass(2)
        x, y = (records.Measurement(checkpoint={"name": name}, class_names=[*"abcd"]) for name in "xy")
        c = comparison(x, y, (seen, other))
        write_results(tmp_path / "m.json", records.result_file([], [c]))
    finally:
        METRICS.remove(nothing)
    text = (tmp_path / "m.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["comparisons"][0]["d_undefined"] is None


def test_matrices_of_many_classes_lie_in_a_file_beside(tmp_path):
    K = result_files.INLINE + 1
    C = torch.eye(K).tolist()
    one = records.Measurement(checkpoint=records.CheckpointRef(name="last"), matrices={"C": C}, cas=1.5)
    write_results(tmp_path / "m.json", records.result_file([one]))
    written = json.loads((tmp_path / "m.json").read_text())["results"][0]["matrices"]
    beside = tmp_path / "m-matrices.npz"
    digest = hashlib.sha256(beside.read_bytes()).hexdigest()
    assert written == {"file": beside.name, "keys": ["results/0/C"], "sha256": digest}
    again = load_results(tmp_path / "m.json").results[0]
    assert again.matrices["C"] == C
    beside.unlink()
    with pytest.raises(UserError, match=r"m-matrices\.npz, which should hold matrices of m\.json, cannot be"):
        load_results(tmp_path / "m.json")


TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
}


def fits(value, form, root) -> bool:
    """Whether a value fits a JSON Schema, of which only the words that `schema()` uses are known."""
    if ref := form.get("$ref"):
        return fits(value, root["$defs"][ref.rpartition("/")[2]], root)
    if "anyOf" in form:
        return any(fits(value, one, root) for one in form["anyOf"])
    if "const" in form:
        return value == form["const"]
    if form.get("type") == "null":
        return value is None
    kind = form.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or isinstance(value, bool) != (kind == "boolean")):
        return False
    if isinstance(value, dict):
        known, others = form.get("properties", {}), form.get("additionalProperties", True)
        inside = [(v, known.get(key, others)) for key, v in value.items()]
        full = set(form.get("required", ())) <= set(value)
        return full and all(one if isinstance(one, bool) else fits(v, one, root) for v, one in inside)
    if isinstance(value, list):
        each = form.get("prefixItems") or [form.get("items", {})] * len(value)
        return len(each) == len(value) and all(map(fits, value, each, [root] * len(value)))
    return True


def test_result_files_fit_the_schema(whole):
    form = schema()
    paths = [whole.path / "measure.json", *ROOT.glob("results/mini/runs/*/measure.json")]
    assert len(paths) > 50
    for path in paths:
        assert fits(json.loads(path.read_text()), form, form), path
    found = json.loads(paths[0].read_text())
    for spoiled in (
        {**found, "schema": 2},
        {**found, "results": [{**found["results"][0], "cas": "high"}]},
        {**found, "results": [{k: v for k, v in found["results"][0].items() if k != "checkpoint"}]},
        {**found, "unknown": 1},
    ):
        assert not fits(spoiled, form, form)


def test_stored_result_files_are_read_typed():
    paths = list(ROOT.glob("results/mini/runs/*/measure.json"))
    assert paths
    for path in paths[:5]:
        found = load_results(path)
        assert found.of("last")["cas"] > 0
        assert load_results(path).model_validate(found.to_dict()) == found


def test_the_columns_are_those_of_the_list():
    header = metrics_csv([]).strip().split(",")
    assert header[:3] == ["epoch", "lr", "seconds"]
    assert {"val_robust", "test_clean", "cas", "val_cas", "negative_mass"} <= set(header)
    assert len(header) == len(set(header))


def test_records_become_data_frames_where_pandas_is_installed(whole, monkeypatch):
    run = load_run(whole.path)
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    (first, *_) = run.results.to_pandas()
    assert (first["checkpoint"], first["cas"]) == ("best.val", run.results.results[0]["cas"])
    assert not [v for v in first.values() if isinstance(v, dict | list)]
    assert [r["cas"] for r in run.to_pandas()] == [r["cas"] for r in run.rows]
    monkeypatch.setitem(sys.modules, "pandas", None)
    for record in (run, run.results):
        with pytest.raises(UserError, match="needs pandas"):
            record.to_pandas()
