"""The calibration of `ablate` on pictures of known parts: what is taken out of them, and how it is judged."""

import json
from pathlib import Path

import pytest
import torch

from crossclass.analysis.ablation_records import CALIBRATED
from crossclass.data import Shapes
from crossclass.paper.ablation_calibration import (
    QUICK,
    judge_calibration,
    measure_calibration,
    with_parts,
)

DATA = Shapes(n_train=30, n_val=0, n_test=30, classes=4, size=16)


def test_parts_are_taken_out_where_they_lie_and_nowhere_else() -> None:
    drawn, empty = DATA.drawn("test"), DATA.replace(mu=1e-9, sigma=0.0).drawn("test")
    assert torch.equal(with_parts(DATA, "test").images, drawn.images)
    assert torch.equal(with_parts(DATA, "test", 0.0, 0.0).images, empty.images)
    alone = with_parts(DATA, "test", shared=0.0)
    at = drawn.shared[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(alone.images[~at], drawn.images[~at])
    assert torch.equal(alone.images[at], empty.images[at])
    half = with_parts(DATA, "test", exclusive=0.5).images.float()
    at = drawn.exclusive[:, None].expand(-1, 3, -1, -1)
    middle = (drawn.images.float() + empty.images.float()) / 2
    assert float((half - middle)[at].abs().max()) <= 0.5
    assert bool((half[at] != drawn.images[at]).any())


def row(network: float, pictures: float, spread: float = 0.01, apart: float = 0.2) -> dict:
    ends = {
        name: {by: {"value": v, "interval": [v - spread, v + spread]} for by in ("mass", "clean")}
        for name, v in (("network", network), ("pictures", pictures))
    }
    features = {"sees_shared_shared": 0.5 + apart, "sees_shared_specific": 0.5}
    return {"exclusive": 1.0, "shared": 0.4, "seed": 0, "features": features, **ends}


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([row(0.1, 0.2), row(-0.1, -0.05)], "holds"),
        ([row(0.1, 0.2), row(0.1, -0.05)], "does not hold"),
        ([row(0.1, 0.2), row(0.001, -0.05)], "undecided"),
        ([row(0.1, 0.001)], "undecided"),
        ([row(0.1, 0.2), row(0.1, 0.3)], "undecided"),
        ([row(0.1, 0.2), row(-0.1, -0.2), row(0.1, 0.001)], "holds"),
    ],
    ids=["alike", "against", "network silent", "pictures silent", "one way", "where pictures decide"],
)
def test_the_network_must_decide_as_the_pictures_do(rows: list[dict], verdict: str) -> None:
    found = [v.verdict for v in judge_calibration({"eps": 0.03, "rows": rows})]
    assert found == [verdict, verdict, "holds"]


def test_the_sets_must_differ_in_what_they_see() -> None:
    rows = [row(0.1, 0.2), row(-0.1, -0.2, apart=0.05)]
    assert judge_calibration({"eps": 0.03, "rows": rows})[2].verdict == "does not hold"


def test_every_part_of_it_runs() -> None:
    kept: list[int] = []
    numbers = measure_calibration(QUICK, write=lambda rows: kept.append(len(rows)))
    (one,) = numbers["rows"]
    assert kept == [1]
    assert set(one["retrained"]) == {"shared", "exclusive"}
    assert [p["keep"] for p in one["pictures"]["points"]["shared"]] == list(QUICK.keep)
    assert len(judge_calibration(numbers)) == 3


def test_what_every_result_says_is_what_was_found() -> None:
    stored = Path(__file__).parents[2] / "results" / "ablation" / "calibration.json"
    numbers = json.loads(stored.read_text())
    assert tuple(v.verdict for v in judge_calibration(numbers)) == CALIBRATED
    assert tuple(v["verdict"] for v in numbers["verdicts"]) == CALIBRATED
