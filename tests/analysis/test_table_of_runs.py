"""A table of runs: seeds are averaged, other conditions never, and nothing is left out without a word."""

import json
import shutil
from pathlib import Path
from statistics import fmean, stdev

import pytest
import yaml
from scipy import stats

import crossclass as cc
from crossclass.analysis.metrics import Metric
from crossclass.analysis.table_of_runs import table_of_runs
from crossclass.core.errors import UserError
from report_files import measure, result_file

EPS = "PGD-20, l_inf {}/255, step eps/4, uniform start"


def write(folder: Path, robust: float, *, eps: int = 8, seed: int = 0, measured: bool = True, **more) -> Path:
    """A run folder of this seed, and what was measured of it under its own eps."""
    folder.mkdir(parents=True)
    threat = {"kind": "linf", "eps": f"{eps}/255"}
    config = {
        "recipe": {"kind": "at", "attack": {"kind": "pgd", "threat": threat}},
        "epochs": 9,
        "seed": seed,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config | more.pop("config", {})))
    (folder / "env.json").write_text(json.dumps({"label": f"toy-seed{seed}", "seed": seed}))
    if measured:
        about = {"run": folder.name, "attack": EPS.format(eps)} | more
        ends = [measure(name, 2, value, 0.2, **about) for name, value in _ends(robust)]
        (folder / "measure.json").write_text(json.dumps(result_file(ends)))
    return folder


def _ends(robust):
    return ("best.test", robust + 0.2), ("best.val", robust), ("last", robust - 0.1)


def test_seeds_are_one_row_with_a_t_interval(tmp_path):
    values = [0.4, 0.45, 0.42]
    for seed, value in enumerate(values):
        write(tmp_path / f"a{seed}", value, seed=seed)
        write(tmp_path / f"b{seed}", value / 2, seed=seed, eps=16)
    table = table_of_runs(tmp_path)
    assert table.settings == ["eps"]
    assert [(row.settings, len(row.runs)) for row in table.rows] == [
        ({"eps": "8/255"}, 3),
        ({"eps": "16/255"}, 3),
    ]
    cell = table.rows[0].cells["best", "robust"]
    expected = stats.t.interval(0.95, 2, fmean(values), stdev(values) / 3**0.5)
    assert (cell.mean, cell.low, cell.high, cell.n) == pytest.approx((fmean(values), *expected, 3))
    # best is that of validation images, whatever test images would have chosen
    assert table.rows[0].cells["last", "robust"].mean == pytest.approx(fmean(values) - 0.1)
    assert table.rows[0].conditions.chosen_by == "val"


def test_one_seed_has_the_stored_interval_over_images(tmp_path):
    ends = {"robust": [0.37, 0.43], "level": 0.95}
    write(tmp_path / "a", 0.4, intervals=ends)
    cell = table_of_runs(tmp_path).rows[0].cells["best", "robust"]
    assert (cell.mean, cell.low, cell.high, cell.n) == (0.4, 0.37, 0.43, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"attack": EPS.format(4)},
        {"n": 500},
        {"split": "val"},
        {"data": "other"},
        {"conditions": {"attribution_subset": "correct"}},
    ],
)
def test_other_conditions_are_other_rows(tmp_path, other):
    write(tmp_path / "a", 0.4, seed=0)
    write(tmp_path / "b", 0.5, seed=1, **other)
    table = table_of_runs(tmp_path)
    assert [len(row.runs) for row in table.rows] == [1, 1]
    assert table.differing_conditions


def test_runs_without_results_are_named(tmp_path):
    write(tmp_path / "a", 0.4)
    (write(tmp_path / "b", 0.4, eps=4, seed=3, measured=False) / "failure.json").write_text(
        json.dumps({"name": "not-finite", "epoch": 3, "evidence": "the loss is nan"})
    )
    going = write(tmp_path / "c", 0.4, eps=4, measured=False)
    (going / "events.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    assert table_of_runs(tmp_path).missing == {
        "eps 4/255, seed 3": "failed (not finite, epoch 3)",
        "eps 4/255, seed 0": "unfinished, epoch 2 of 9",
    }


def test_a_run_that_is_there_twice_is_counted_once(tmp_path):
    write(tmp_path / "a", 0.4)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    table = table_of_runs(tmp_path)
    assert [len(row.runs) for row in table.rows] == [1]
    assert table.doubled == {"copy": "a"}


def test_a_result_file_adds_to_the_run_that_it_is_about(tmp_path):
    write(tmp_path / "runs" / "a", 0.4, eps=4)
    write(tmp_path / "runs" / "b", 0.4, eps=8)
    file = tmp_path / "strong.json"
    of_run = measure("last", 9, 0.1, 0.2, run="a", attack="AutoAttack, l_inf 8/255")
    foreign = measure("resnet", 9, 0.6, 0.2, attack="AutoAttack, l_inf 8/255")
    file.write_text(json.dumps(result_file([of_run, foreign])))
    table = table_of_runs([tmp_path / "runs", file])
    found = {(row.name, row.settings.get("eps"), row.conditions.attack): row.cells for row in table.rows}
    assert found["toy", "4/255", "AutoAttack, l_inf 8/255"]["last", "robust"].mean == 0.1
    assert found["resnet", None, "AutoAttack, l_inf 8/255"]["", "robust"].mean == 0.6
    assert table.named


def test_files_of_one_name_are_not_averaged(tmp_path):
    for name, value in (("one", 0.4), ("two", 0.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result_file([measure("net", 9, value, 0.2)])))
    table = table_of_runs([tmp_path / "one.json", tmp_path / "two.json"])
    assert sorted(row.cells["", "robust"].mean for row in table.rows) == [0.4, 0.5]
    assert len({row.name for row in table.rows}) == 2


def test_what_is_pooled_can_be_chosen(tmp_path):
    for i in range(3):
        write(
            tmp_path / f"{i}",
            0.4 + i / 100,
            seed=i,
            config={"data": {"kind": "shapes", "seed": i}},
            data=f"x{i}",
        )
    assert len(table_of_runs(tmp_path).rows) == 3
    assert [len(row.runs) for row in table_of_runs(tmp_path, pool=("seed", "data.seed")).rows] == [3]
    table = table_of_runs(tmp_path, rows="runs")
    assert {row.settings["seed"] for row in table.rows} == {0, 1, 2}


def test_any_metric_can_be_a_column(tmp_path, monkeypatch):
    write(tmp_path / "a", 0.4, sharpness=3.25)
    assert table_of_runs(tmp_path, metrics=["cas_normalised"]).records()[0]["cas_normalised_best"] == 0.2
    # of a program that had registered it, which this one has not
    assert table_of_runs(tmp_path, metrics=["sharpness"]).records()[0]["sharpness_last"] == 3.25
    new = Metric("sharpness", "sharpness", "How steep the loss is.", lambda seen: 1.0)
    monkeypatch.setattr("crossclass.analysis.table_of_runs.METRICS", [new])
    assert table_of_runs(tmp_path, metrics=["sharpness"]).metrics == [new]
    monkeypatch.undo()
    with pytest.raises(UserError, match="did you mean 'robust'"):
        table_of_runs(tmp_path, metrics=["robst"])


def test_records_are_flat_and_carry_their_conditions(tmp_path):
    write(tmp_path / "a", 0.4, eps=4, conditions={"eps": "4/255", "steps": 20})
    write(tmp_path / "b", 0.4, eps=8, conditions={"eps": "8/255", "steps": 20})
    first, _ = table_of_runs(tmp_path).records()
    assert first["eps"] == 4 / 255
    assert (first["eval_attack"], first["eval_eps"], first["eval_steps"]) == (EPS.format(4), 4 / 255, 20)
    assert (first["eval_n"], first["eval_split"], first["best_chosen_on"]) == (1000, "test", "val")
    assert not [v for v in first.values() if isinstance(v, dict | list)]


def test_all_measurements_of_a_folder_are_one_record(tmp_path):
    for seed in (0, 1):
        write(tmp_path / "runs" / f"a{seed}", 0.4, seed=seed)
    one = tmp_path / "one.json"
    one.write_text(json.dumps(result_file([measure("net", 9, 0.4, 0.2)])))
    assert len(cc.load_results(tmp_path / "runs").results) == 6
    assert [r.checkpoint.name for r in cc.load_results([tmp_path / "runs" / "a0", one]).results][-1] == "net"
    assert cc.load_results(one).of("net").matrix("C")
    assert "2 runs in 1 rows" in repr(cc.table_of_runs(tmp_path / "runs"))


def test_paths_that_are_no_runs(tmp_path):
    for path, said in ((tmp_path, "no run is in this folder"), (tmp_path / "none", "no such folder")):
        with pytest.raises(UserError, match=said):
            table_of_runs(path)
