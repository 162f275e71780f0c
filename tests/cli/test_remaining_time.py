"""The time that is left, with made timings: the last epochs count, checks are priced apart, the end too."""

import pytest

from crossclass.analysis.records import EpochRow
from crossclass.attacks import PGD
from crossclass.cli.remaining_time import RemainingTime
from crossclass.training.run import Run, Validation
from crossclass.training.validation import is_validated

# a check of 100 + 100 images takes 17 + 3 gradients of each, the end 2 networks * 500 images * (19 + 1)
RUN = Run(
    epochs=20, lr_milestones=(), validation=Validation(every=5, attack=PGD(steps=17), final=PGD(steps=19))
)
END = 5.0
"""Checks that the end costs."""


def row(epoch, seconds, check=10.0):
    watched = {"check_seconds": check, "watched": "val", "watched_n": 100, "test_n": 100}
    return EpochRow(epoch=epoch, seconds=seconds, **watched if is_validated(RUN, epoch) else {})


def left(rows, run=RUN):
    remaining = RemainingTime(run, 500)
    return [remaining.after(r) for r in rows][-1]


def test_epochs_checks_and_the_end_are_priced_apart():
    # after epoch 7: 13 epochs, checks after 10, 15 and 20
    assert left([row(e, 2.0) for e in range(1, 8)]) == pytest.approx(13 * 2 + 3 * 10 + END * 10)
    assert left([row(e, 2.0) for e in range(1, 21)]) == pytest.approx(END * 10)


def test_the_last_epochs_count():
    # the machine was busy until epoch 10: 190 s an epoch, then 4; so were the checks
    slow = [row(e, 190.0, 500.0) for e in range(1, 3)]
    fast = [row(e, 4.0, 20.0) for e in range(3, 16)]
    assert left([*slow, *fast]) == pytest.approx(5 * 4 + 20 + END * 20)
    one_hiccup = [row(e, 4.0 if e != 9 else 400.0) for e in range(1, 11)]
    assert left(one_hiccup) == pytest.approx(10 * 4 + 2 * 10 + END * 10)


def test_rows_from_before_a_resume_count_until_there_are_others():
    before = [row(e, 3.0) for e in range(1, 11)]
    assert left(before) == pytest.approx(10 * 3 + 2 * 10 + END * 10)
    assert left([*before, *(row(e, 1.0) for e in range(11, 15))]) == pytest.approx(6 * 1 + 2 * 10 + END * 10)


def test_without_validation_images_only_test_images_are_checked():
    rows = [
        r.model_copy(update={"watched": "test"}) if r.watched else r for r in (row(e, 2.0) for e in (1, 2))
    ]
    assert left(rows) == pytest.approx(18 * 2 + 4 * 10 + 2 * END * 10)
    assert left([EpochRow(epoch=20)]) == 0  # nothing is known
