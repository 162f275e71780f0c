"""Sheets of small pictures: what is drawn is what was given, on one scale, the same bytes every time."""

import numpy as np
import pytest

from crossclass.report import plots

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


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.matrix_grid({"AT": {"best": A}}),
        lambda: plots.dots({"CAS": {"AT": {"best": [1.0, 2.0]}}}),
        lambda: plots.lines({"x": {"a": [(0.0, [1.0])]}}),
        lambda: plots.text_table(["a"], [["b"]]),
    ],
)
def test_the_same_numbers_give_the_same_bytes(draw):
    assert plots.svg(draw()) == plots.svg(draw())
