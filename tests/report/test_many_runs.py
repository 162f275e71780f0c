"""A page about many runs: named by what differs, seeds in one row, any number against any setting."""

import json
import re
from pathlib import Path

import pytest
import yaml

from crossclass.analysis.run_record import load_run
from crossclass.report import write_report
from crossclass.report.run_names import labels
from report_files import ENDS, ROWS, Page, visible_text, write_run

pytestmark = pytest.mark.usefixtures("undrawn")


def sweep(root: Path, settings: list[dict], seeds: int = 2) -> list[Path]:
    """A run folder for each setting and seed."""
    folders = []
    for i, setting in enumerate(settings):
        for seed in range(seeds):
            ends = [{**one, "run": f"{i}-{seed}", "robust": one["robust"] + seed / 10} for one in ENDS]
            folder = write_run(root / f"{i}-{seed}", ROWS, ends, label=f"toy-seed{seed}", seed=seed)
            config = {"epochs": 9, "seed": seed, "recipe": {"kind": "at"}, **setting}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            folders.append(folder)
    return folders


def plot_of(html: str) -> dict:
    figure = html.split('data-save="numbers-and-settings"')[1]
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', figure, re.DOTALL)[1])


def test_runs_are_named_by_what_differs(tmp_path):
    runs = [load_run(f) for f in sweep(tmp_path, [{"lr": 0.1, "batch": 8}, {"lr": 0.2, "batch": 8}])]
    assert labels(runs) == [f"lr {lr}, seed {s}" for lr in (0.1, 0.2) for s in (0, 1)]
    assert labels(runs[::2]) == ["lr 0.1", "lr 0.2"]
    assert labels(runs[:2]) == ["toy, seed 0", "toy, seed 1"]


def test_a_folder_is_a_page_of_all_runs_below(tmp_path):
    sweep(tmp_path / "runs", [{"lr": 0.2}, {"lr": 0.1}])
    write_run(tmp_path / "runs" / "begun", []).joinpath("events.jsonl").unlink()
    html = write_report([tmp_path / "runs"], tmp_path / "page.html").read_text()
    text = visible_text(html)
    assert "toy: 4 runs that differ in lr" in text
    assert "25.3 ±63.5" in text  # the mean of 20.3 and 30.3, 12.706 * 5
    assert "unfinished, epoch 0" in text
    # in the order of the settings, not of the folders
    assert [text.index(f"lr {lr}, seed 0 :") for lr in (0.1, 0.2)] == sorted(
        text.index(f"lr {lr}, seed 0 :") for lr in (0.1, 0.2)
    )
    assert {"run-1", "run-2", "run-3", "run-4"} <= set(Page(html).values("id"))


def test_the_plot_holds_every_number_of_every_run(tmp_path):
    sweep(tmp_path / "runs", [{"lr": 0.2, "recipe": {"kind": k}} for k in ("at", "kd")] + [{"lr": 0.1}])
    plot = plot_of(write_report([tmp_path / "runs"], tmp_path / "page.html").read_text())
    assert [(s["name"], s["numeric"]) for s in plot["settings"]] == [("lr", True), ("recipe", False)]
    assert plot["settings"][0]["places"] == {"0.1": 0.1, "0.2": 0.2}
    labels = [number["label"] for number in plot["numbers"]]
    assert {"Robust accuracy, best (%)", "CAS, last", "CAS / max, best"} <= set(labels)
    assert len(plot["columns"]) == len(plot["rows"][0]) == 4 + len(labels)
    assert len(plot["rows"]) == 6
    robust = labels.index("Robust accuracy, best (%)")
    assert [cells[robust][0] for _, cells in plot["means"]] == pytest.approx([0.253] * 3)


def test_a_page_of_very_many_runs_leaves_single_ones_out(tmp_path):
    sweep(tmp_path / "runs", [{"lr": lr / 10} for lr in range(1, 8)])
    html = write_report([tmp_path / "runs"], tmp_path / "page.html").read_text()
    assert "7 settings" not in html
    assert html.count('class="one"') == 0
    assert "crossclass report RUN" in html
    hrefs = [h for h in Page(html).values("href") if h.startswith("#run")]
    assert hrefs == []
