"""The theorems as entries: the paper's statements decide the word, checks and extensions stand beside it."""

import json

import pytest

from crossclass.experiments.theorems import OWN, THEOREMS

BY_ID = {e.id: e for e in THEOREMS}


@pytest.fixture(scope="module")
def measured():
    return {id_: entry.measure({}, "smoke") for id_, entry in BY_ID.items()}


@pytest.mark.parametrize("id_", BY_ID)
def test_numbers_are_plain_and_drawn(measured, id_):
    numbers = measured[id_]
    assert json.loads(json.dumps(numbers)) == numbers
    assert BY_ID[id_].draw(numbers).axes


@pytest.mark.parametrize(("id_", "own"), [("thm1", 3), ("thm2", 1), ("thm3", 1), ("cor1", 1), ("bridge", 0)])
def test_the_paper_s_own_statements_are_told_from_the_rest(measured, id_, own):
    verdicts = BY_ID[id_].verdicts(measured[id_])
    mine = [v for v in verdicts if not v.beyond]
    assert len(mine) == own, [v.claim for v in mine]
    assert {v.word for v in mine} <= {"holds"}
    assert len(verdicts) > own


def test_every_marker_marks_something(measured):
    claims = [v["claim"] for m in measured.values() for v in m["verdicts"]]
    for words in OWN:
        assert any(words in claim for claim in claims), words


def test_what_does_not_hold_stays_visible_with_its_numbers(measured):
    verdicts = BY_ID["thm2"].verdicts(measured["thm2"])
    wrong = [v for v in verdicts if v.word == "does not hold"]
    assert any("always more beneficial" in v.claim for v in wrong)
    assert all(v.why and v.numbers for v in wrong)


def test_thresholds_of_the_pictures_are_those_of_the_paper_s_formulas(measured):
    assert measured["thm1"]["eps0"] == pytest.approx(0.5 - 0.9 / (2 * 3.141592653589793**0.5))
    assert measured["thm1"]["eps1"] == pytest.approx(0.5 - 0.75 * 0.9 / (2 * 3.141592653589793**0.5))


def test_training_stands_beside_its_theorem(measured):
    said = {id_: [v.where for v in BY_ID[id_].verdicts(measured[id_])] for id_ in ("thm1", "thm3")}
    assert sum("steps of AT" in w for w in said["thm1"]) == 4
    assert sum("label smoothing" in w and "steps of AT" in w for w in said["thm3"]) == 3
