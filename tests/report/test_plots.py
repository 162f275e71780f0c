"""Figures: what is drawn is what was given, and the same numbers give the same bytes."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from crossclass.report import plots
from report_files import EVIL, ROWS, row, square

A = [[1.0, 0.2], [0.2, 1.0]]
B = [[1.0, None], [0.4, 1.0]]


def pictures(figure):
    return [ax for ax in figure.axes if ax.images]


def test_a_sheet_has_a_picture_for_each_matrix_on_one_scale():
    figure = plots.matrix_grid(
        {"AT": {"best": A, "last": B}, "KD": {"best": B, "last": None}}, -0.5, 0.5, "RdBu"
    )
    found = pictures(figure)
    assert [ax.get_title() for ax in found] == ["best", "last", "best"]
    assert {ax.images[0].get_clim() for ax in found} == {(-0.5, 0.5)}
    assert np.array_equal(found[0].images[0].get_array(), A)
    assert found[1].images[0].get_array().mask.tolist() == [[False, True], [False, False]]
    assert [ax.get_ylabel() for ax in found] == ["AT", "", "KD"]


def test_a_long_row_is_wrapped():
    figure = plots.matrix_grid({"": {f"{i}": A for i in range(10)}}, columns=5)
    left = {round(ax.get_position().x0, 4) for ax in pictures(figure)}
    bottom = {round(ax.get_position().y0, 4) for ax in pictures(figure)}
    assert (len(left), len(bottom)) == (5, 2)


def test_a_negative_entry_does_not_look_like_zero():
    C = [[1.0, -0.2], [0.0, 1.0]]
    one, many = plots.matrix(C, ["a", "b"]), plots.matrix_grid({"AT": {"best": A, "last": C}})
    for image in one.axes[0].collections[0], pictures(many)[1].images[0]:
        (blue, negative), (zero, _) = (image.to_rgba(np.array(row))[:, :3] for row in C)
        assert negative[0] - negative[2] > 0.1  # red
        assert zero.min() > 0.9
        assert blue[2] - blue[0] > 0.1
        assert image.get_clim() == (-0.2, 1)
    counts = plots.matrix([[0.0, 2.0], [1.0, 3.0]], ["a", "b"], vmax=3)
    assert counts.axes[0].collections[0].get_clim() == (0, 3)


@pytest.mark.parametrize("rows", [{}, {"AT": {}}, {"AT": {"best": None}}])
def test_a_sheet_of_nothing_is_empty(rows):
    assert not pictures(plots.matrix_grid(rows))


def test_dots_are_the_seeds_and_bars_their_mean():
    panel = {"AT": {"best": [1.0, 3.0], "last": [0.5, None]}, "KD": {"best": [2.0, 2.0]}}
    figure = plots.dots({"CAS": panel, "I-CAS": {"AT": {"best": [4.0]}}})
    (first, second) = figure.axes
    drawn = [line.get_ydata().tolist() for line in first.lines]
    assert [1.0, 3.0] in drawn
    assert [2.0, 2.0] in drawn  # the mean of AT at best, and KD's own
    assert [0.5] in drawn
    assert first.get_title() == "CAS"
    assert [t.get_text() for t in second.get_xticklabels()] == ["AT", "KD"]


def test_lines_go_through_the_means():
    series = {"a": [(0.0, [1.0, 3.0]), (0.5, [None]), (1.0, [4.0])]}
    ax = plots.lines({"left": series}, "eps").axes[0]
    assert ax.lines[0].get_xydata().tolist() == [[0.0, 2.0], [1.0, 4.0]]
    assert sorted(y for line in ax.lines[1:] for y in line.get_ydata()) == [1.0, 3.0, 4.0]
    assert ax.get_xlabel() == "eps"


def test_words_are_all_there():
    figure = plots.text_table(["run", "eps"], [["AT", 8], ["$x^2$", None]])
    assert [t.get_text() for t in figure.axes[0].texts] == ["run", "eps", "AT", "8", "$x^2$", "None"]


def test_the_best_epoch_is_chosen_by_validation_where_there_is_any() -> None:
    assert plots.best_epoch(ROWS) == (2, "test")
    assert plots.best_epoch([*ROWS, row(5, 0.0, 0.1, val_robust=0.1)]) == (5, "val")
    assert plots.best_epoch([{"epoch": 1}]) is None
    assert plots.series(ROWS, "cas")[-1][0] == 4


def test_an_epoch_of_few_classes_does_not_flatten_cas() -> None:
    rows = [row(1, 0.1, 0.99, predicted_classes=1), *(row(e, 0.2, 0.1) for e in range(2, 6))]
    figure = plots.curves({"a": rows})
    assert figure.axes[1].get_ylim()[1] < 10
    assert "few classes predicted" in plots.svg(figure)


def test_a_drop_of_the_learning_rate_says_by_how_much() -> None:
    assert "lr /10" in plots.svg(plots.curves({"a": ROWS}, {"a": [3]}))


EPS = np.linspace(0, 0.5, 11)
DRAWN = [
    lambda: plots.curves({"a seed 0": ROWS, "a seed 1": ROWS, "b": ROWS[:2]}),
    lambda: plots.curves({"a": ROWS}, {"a": [3]}),
    lambda: plots.matrix(square(6, 0.1), EVIL),
    lambda: plots.difference([[0.0, None], [-0.3, 0.0]], ["a", "b"]),
    lambda: plots.matrix_grid({"AT": {"best": A}}),
    lambda: plots.dots({"CAS": {"AT": {"best": [1.0, 2.0]}}}),
    lambda: plots.lines({"x": {"a": [(0.0, [1.0])]}}),
    lambda: plots.text_table(["a"], [["b"]]),
    lambda: plots.feature_weights(EPS, (EPS, EPS), (EPS, EPS), 0.2, 0.3),
    lambda: plots.success_curves(3 * EPS, [plots.SuccessCurve("a", EPS, EPS, 0.2, 0.3)]),
    lambda: plots.phase_diagram(EPS, EPS, EPS, beta=0.1),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_the_same_numbers_give_the_same_bytes(draw):
    figure = draw()
    first = plots.svg(figure)
    assert first == plots.svg(figure) == plots.svg(draw())
    assert ElementTree.fromstring(first).tag.endswith("}svg")
    assert "<style" not in first
    assert "<metadata" not in first


def test_figures_share_no_id():
    ids = [set(re.findall(r'\bid="([^"]*)"', plots.svg(draw()))) for draw in DRAWN]
    assert sum(map(len, ids)) == len(set.union(*ids))


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_a_figure_is_written_in_every_format(tmp_path, kind):
    assert plots.save(DRAWN[0](), tmp_path / f"f.{kind}").stat().st_size > 1000
    assert len(list(tmp_path.iterdir())) == 1
