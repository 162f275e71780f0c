"""The sentences of a page: what fell or rose, by how much, and whether that may be chance."""

from pathlib import Path
from typing import Any

import pytest

from crossclass.analysis.metrics import metric
from crossclass.analysis.records import Measurement
from crossclass.report import write_report
from crossclass.report.best_and_last import BestAndLast
from crossclass.report.format import change, value_interval
from report_files import ROWS, compared, foreign, measure, page_text, write_results, write_run


@pytest.mark.parametrize(
    ("best", "last", "by", "done", "expected"),
    [
        ((10, 0.203, 12.7), (60, 0.061, 2.8), "test", True,
         "peaked at 20.3 % in epoch 10 and ended at 6.1 % in epoch 60; CAS went from 12.70 to 2.80."),
        ((10, 0.203, 12.7), (60, 0.25, 13.5), "val", True,
         "was 20.3 % in epoch 10, the best by validation, and did not fall: it ended at 25.0 % in epoch 60; "
         "CAS did not fall: 12.70 to 13.50."),
        ((10, 0.203, None), (20, 0.1, None), "test", False,
         "peaked at 20.3 % in epoch 10 and stands at 10.0 % in epoch 20 so far; CAS was not measured."),
        ((9, 0.2, 5.0), (9, 0.2, 5.0), "val", True,
         "is 20.0 % in epoch 9, the best by validation and the last one checked; CAS there is 5.00."),
    ],
)  # fmt: skip
def test_finding(best: tuple[Any, ...], last: tuple[Any, ...], by: str, done: bool, expected: str) -> None:
    at: Any = ({"name": "best", "epoch": best[0], "chosen_by": by}, {"name": "last", "epoch": last[0]})
    both = (
        Measurement(checkpoint=where, robust=robust, cas=cas)
        for where, (_, robust, cas) in zip(at, (best, last), strict=True)
    )
    sentence = BestAndLast(*both, "measure.json").finding(done).replace("\u00a0", " ")
    assert sentence == f"Test robust accuracy {expected}"


@pytest.mark.usefixtures("undrawn")
def test_of_a_best_checkpoint_that_is_the_last_nothing_is_compared(tmp_path: Path) -> None:
    ends: list[Any] = [measure("best.val", 4, 0.21, 0.4), measure("last", 4, 0.21, 0.4)]
    text = page_text(write_report([write_run(tmp_path / "a", ROWS, ends)], tmp_path / "a.html"))
    assert "±0.00" not in text
    assert "the difference has a scale of its own" not in text
    two: list[Any] = [measure("best.val", 2, 0.21, 0.4), measure("last", 4, 0.21, 0.4)]
    text = page_text(write_report([write_run(tmp_path / "b", ROWS, two)], tmp_path / "b.html"))
    assert "±0.00" in text
    assert "the difference has a scale of its own" in text


@pytest.mark.parametrize(
    ("clean", "n", "learned"), [(0.29, 100, False), (0.45, 100, True), (0.29, 10_000, True)]
)
def test_a_run_that_only_guesses_is_said_first(clean: float, n: int, learned: bool) -> None:
    best, last = (
        Measurement(
            checkpoint={"name": name, "epoch": epoch, "chosen_by": "val"},
            data={"n": n, "split": "test"},
            classwise_robust=[0.2] * 4,
            clean=clean,
            robust=0.2,
            cas=9.0,
        )
        for name, epoch in (("best", 2), ("last", 4))
    )
    both = BestAndLast(best, last, "measure.json")
    assert both.finding(True).startswith("This run has not learned") == (not learned)
    assert bool(both.verdict()) == learned


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("interval", "chance"), [([0.002, 0.008], False), ([-0.001, 0.011], True), (None, None)]
)
def test_whether_a_loss_may_be_chance_is_what_the_paired_interval_says(
    tmp_path: Path, interval: list[float] | None, chance: bool | None
) -> None:
    # 0.5 points on 1,000 images: within two unpaired standard errors, yet told apart by the paired interval
    ends: list[Any] = [measure("best.val", 2, 0.210, 0.4), measure("last", 4, 0.205, 0.1)]
    both = compared(a="best.val", b="last", robust=[0.210, 0.205], cas=[12.0, 3.0], d_robust=0.005)
    both["comparison"]["intervals"] = {"d_robust": interval, "level": 0.95} if interval else None
    text = page_text(write_report([write_run(tmp_path / "a", ROWS, [*ends, both])], tmp_path / "a.html"))
    verdict = text.split("forgets cross-class features.")[1].split("warning")[0]
    assert ("may be chance" in verdict) == (chance is True)
    assert ("0.2, 0.8] points" in verdict) == (chance is False)
    assert ("no interval" in verdict.lower()) == (interval is None)
    alone = page_text(write_report([write_run(tmp_path / "b", ROWS, ends)], tmp_path / "b.html"))
    assert "may be chance" not in alone
    assert "makes no statement about chance" in alone


@pytest.mark.usefixtures("undrawn")
def test_best_and_last_are_compared_under_the_same_attack_only(tmp_path: Path) -> None:
    ends = [measure("best.val", 2, 0.9, 0.4, attack="none"), measure("last", 4, 0.1, 0.1)]
    text = page_text(write_report([write_run(tmp_path / "a", ROWS, ends)], tmp_path / "a.html"))
    assert "90.0 %" in text  # in the table of evaluations
    assert "peaked at 30.0 % in epoch 2" in text  # but judged by the checks of the epochs


@pytest.mark.usefixtures("undrawn")
def test_within_a_run_numbers_fall_and_rise(tmp_path: Path) -> None:
    ends = [foreign("best.val", 0.203, 0.4, run="r"), foreign("last", 0.061, 0.1, run="r")]
    of = [{"checkpoint": "best.val", "run": "r"}, {"checkpoint": "last", "run": "r"}]
    both = compared(a="best.val", b="last", of=of, d_clean=-0.075, intervals={"d_clean": [-0.1, -0.04]})
    text = page_text(write_report([write_results(tmp_path, [*ends, both])], tmp_path / "a.html"))
    assert "From best.val to last robust accuracy fell by 14.2 points and CAS fell by 9.00." in text
    assert "rose by 7.5 points [4.0, 10.0]" in text
    assert "best.val against last" in text


@pytest.mark.parametrize(
    ("d", "ends", "key", "within", "expected"),
    [
        (7.56, [6.94, 8.36], "cas", True, "fell by 7.56 [6.94, 8.36]"),
        (-7.56, [-8.36, -6.94], "cas", True, "rose by 7.56 [6.94, 8.36]"),
        (0.155, [0.129, -0.18], "robust", False, "is lower by 15.5 points [12.9, −18.0]"),
        (-0.02, None, "robust", False, "is higher by 2.0 points"),
        (0.004, [-0.1, 0.2], "cas", True, "moved by 0.00 [−0.10, 0.20]"),
        (0.0004, None, "robust", False, "differs by 0.0 points"),
    ],
)
def test_a_change_has_a_direction_and_its_interval(
    d: float, ends: Any, key: str, within: bool, expected: str
) -> None:
    assert change(d, ends, metric(key), within=within).replace("\u00a0", " ") == expected
    assert value_interval(None, metric(key)) == value_interval([None, 0.1], metric(key)) == ""
