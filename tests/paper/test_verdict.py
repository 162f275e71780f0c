"""Three words for a claim: by its interval, and over many."""

import math

import pytest

from crossclass.paper.verdict import all_hold, exceeds


@pytest.mark.parametrize(
    ("interval", "margin", "word"),
    [
        ((0.1, 0.3), 0.0, "holds"),
        ((0.1, 0.3), 0.1, "undecided"),
        ((0.1, 0.3), 0.2, "undecided"),
        ((-0.3, -0.1), 0.0, "does not hold"),
        ((-0.3, 0.0), 0.0, "does not hold"),
        ((0.0, 0.3), 0.0, "undecided"),
        ((0.2, 0.2), 0.1, "holds"),
        ((0.2, 0.2), 0.2, "does not hold"),
        ((0.2, math.inf), 0.1, "holds"),
        ((-math.inf, math.inf), 0.0, "undecided"),
        ((math.nan, 1.0), 0.0, "undecided"),
        ((1.0, math.nan), 0.0, "undecided"),
    ],
)
def test_the_whole_interval_decides(interval, margin, word):
    assert exceeds(interval, margin) == word


def test_an_interval_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match="from low to high"):
        exceeds((1.0, 0.0))


def test_one_failure_is_enough_and_one_doubt_prevents_a_yes():
    assert all_hold(["holds", "holds"]) == "holds"
    assert all_hold(["holds", "undecided"]) == "undecided"
    assert all_hold(["undecided", "does not hold", "holds"]) == "does not hold"
    with pytest.raises(ValueError, match="at least one"):
        all_hold([])
