"""A page is a list of sections, and its tiles and tables come from the list of metrics."""

from pathlib import Path

import pytest

from crossclass.analysis.metrics import METRICS, Metric
from crossclass.analysis.records import CheckpointRef, EpochRow, Measurement, ResultFile
from crossclass.analysis.run_record import RunRecord
from crossclass.report import comparison, measurement, run, sections, write_report
from crossclass.report.run import RunView
from crossclass.report.sections import Section
from report_files import ENDS, FOREIGN, ROWS, compared, page_text, write_results, write_run

PAGES = {"run": run.SECTIONS, "measurement": measurement.SECTIONS, "comparison": comparison.SECTIONS}


@pytest.mark.parametrize("page", PAGES)
def test_every_section_has_a_template_and_every_template_a_section(page: str) -> None:
    names = [section.id for section in PAGES[page]]
    assert len(set(names)) == len(names)
    own = {f"{section.id}.html.j2" for section in PAGES[page] if not section.template}
    every = [section for each in PAGES.values() for section in each]
    used = {f"{section.template}.html.j2" for section in every if section.template}
    shared = {f"shared/{p.name}" for p in (sections.TEMPLATES / "shared").iterdir()}
    assert shared == {name for name in used if name.startswith("shared/")}
    there = {p.name for p in (sections.TEMPLATES / page).iterdir()}
    assert own | {name.partition("/")[2] for name in used if name.startswith(f"{page}/")} == there


@pytest.mark.usefixtures("undrawn")
def test_a_new_section_is_one_entry_and_one_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "seeds.html.j2").write_text("<h2>{{ title }}</h2><p>{{ seed }} was drawn</p>")
    real = sections.environment

    def both() -> object:
        env = real()
        env.loader.searchpath.append(str(tmp_path))  # type: ignore[union-attr]
        return env

    monkeypatch.setattr(sections, "environment", both)
    new = Section("seeds", "The seed", lambda view: {"seed": view.run.env["seed"]})
    nothing = Section("seeds", "No seed", lambda view: None)
    monkeypatch.setattr(run, "SECTIONS", [new, nothing, *run.SECTIONS])
    text = page_text(write_report([write_run(tmp_path / "toy", ROWS, ENDS)], tmp_path / "page.html"))
    assert "The seed 0 was drawn Best" not in text
    assert "0 was drawn" in text
    assert "No seed" not in text


@pytest.mark.usefixtures("undrawn")
def test_a_new_metric_is_on_the_pages_without_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Metric("sharpness", "sharpness", "How steep the loss is.", lambda seen: 1.0, headline=True)
    monkeypatch.setattr("crossclass.analysis.metrics.METRICS", METRICS)
    METRICS.append(new)
    try:
        ends = [{**ENDS[0], "sharpness": 3.25}, {**ENDS[1], "sharpness": 1.5}]
        run_page = page_text(write_report([write_run(tmp_path / "toy", ROWS, ends)], tmp_path / "run.html"))
        assert "3.25" in run_page
        assert "1.50" in run_page
        measured = [{**FOREIGN[0], "sharpness": 3.25}, {**FOREIGN[1], "sharpness": 1.5}]
        intervals = {"d_sharpness": [1.25, 2.25], "level": 0.9}
        both = compared(sharpness=[3.25, 1.5], d_sharpness=1.75, intervals=intervals)
        text = page_text(write_report([write_results(tmp_path, [*measured, both])], tmp_path / "m.html"))
    finally:
        METRICS.remove(new)
    assert text.count("Sharpness") == 2  # a tile, and the table of all numbers
    assert "is lower by 1.75 [1.25, 2.25]" in text


def test_a_collapse_is_warned_of_once():
    words = "predictor collapsed: 82% of the images go to one class, 2 of 6 classes are predicted at all"
    last = Measurement(checkpoint=CheckpointRef(name="last"), warnings=[words])
    for results, history, expected in (([], [1], 0), ([], [], 1), ([last], [1], 1)):
        rows = [EpochRow(epoch=1, warnings=[words])]
        run = RunRecord(Path("x"), {}, {}, rows, ResultFile(results=results), done=True)
        view = RunView(run, "x", 1, 1000)
        view.__dict__["history"] = history  # where an alarm of that name stands with its end
        assert len(view.warnings) == expected


@pytest.mark.usefixtures("undrawn")
def test_wrong_training_labels_are_said_beside_the_numbers(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "toy", ROWS, ENDS)
    words = "of the training labels are wrong"
    assert words not in page_text(write_report([folder], tmp_path / "right.html"))
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "\ndata: {kind: shapes, label_noise: 0.2}\n")
    assert f"20.0 % {words}" in page_text(write_report([folder], tmp_path / "wrong.html"))
