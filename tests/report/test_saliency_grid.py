"""Images and their saliency maps side by side: one colour scale, the bare image where a map is 0."""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from crossclass.report import plots


def grid(n: int, captions: list[str] | None = None) -> tuple[Figure, np.ndarray]:
    rng = np.random.default_rng(0)
    x, maps = rng.random((n, 8, 8, 3)), {k: rng.random((n, 8, 8)) for k in "ab"}
    return plots.saliency_grid(x, maps, captions or [""] * n), x


def drawn(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(ax.get_images()[0].get_array()) for ax in figure.axes]


def test_grid_shows_images_then_maps_in_blocks():
    figure, x = grid(8)
    *cells, _ = figure.axes
    assert len(cells) == 8 * 3
    pictures = drawn(figure)
    assert all(np.allclose(pictures[3 * i], x[i]) for i in range(8))
    across = [round(ax.get_position().x0, 4) for ax in cells[::3]]
    down = [round(ax.get_position().y0, 4) for ax in cells]
    assert len(set(across)) == 6  # six columns, then a block below
    assert across[6:] == across[:2]
    assert down[0] > down[1] > down[2] > down[18] > down[19]
    places = [ax.get_position() for ax in figure.axes]
    assert all(p.x0 >= 0 and p.y0 >= 0 and p.x1 <= 1 and p.y1 <= 1 for p in places)
    for i, p in enumerate(places):
        assert not any(p.overlaps(q) for q in places[:i])


def test_grid_has_one_scale_for_all_maps_and_states_it():
    x = np.full((2, 4, 4, 1), 0.5)
    high, low = np.full((2, 4, 4), 4.0), np.full((2, 4, 4), 1.0)
    low[1] = 4  # the strength of `high`, so the colour of `high`
    figure = plots.saliency_grid(x, {"high": high, "low": low}, ["", ""])
    first, second = drawn(figure)[:3], drawn(figure)[3:6]
    assert np.allclose(second[1], second[2])
    assert not np.allclose(first[1], first[2], atol=0.1)
    bar = figure.axes[-1]
    assert bar.get_ylim() == (0, 4)
    assert [t.get_text() for t in bar.get_yticklabels()] == ["0", "2", "4"]
    assert "at most 4" in bar.get_ylabel()
    strongest = np.asarray(bar.get_images()[0].get_array())[-1, 0]
    assert np.allclose(first[1][0, 0], strongest, atol=0.02)  # over the same grey
    again = plots.saliency_grid(x, {"high": 4 * high, "low": 4 * low}, ["", ""])
    assert np.allclose(drawn(again)[4], drawn(figure)[4])


def test_grid_leaves_the_image_bare_where_nothing_speaks_for_the_class():
    x = np.random.default_rng(0).random((1, 4, 4, 3))
    nothing = np.zeros((1, 4, 4))
    nothing[0, 0, 0], nothing[0, 3, 3], nothing[0, 0, 3] = -3, 1, math.nan
    picture = drawn(plots.saliency_grid(x, {"a": nothing}, [""]))[1]
    grey = 0.25 + 0.75 * (x[0] @ np.array([0.299, 0.587, 0.114]))
    bare = np.ones((4, 4), dtype=bool)
    bare[3, 3] = False
    assert np.allclose(picture[bare], np.repeat(grey[bare][:, None], 3, axis=1), atol=1e-6)
    assert np.ptp(picture[3, 3]) > 0.3  # a colour
    empty = plots.saliency_grid(x, {"a": np.zeros((1, 4, 4))}, [""])
    assert empty.axes[-1].get_ylabel() == "all maps are 0"


def test_grid_says_what_is_shown_and_is_repeatable(tmp_path: Path):
    names = [f"{i}: ship\nlast of a-run-with-a-name-too-long-to-show: $x^{i}$" for i in range(8)]
    figure, _ = grid(8, names)
    texts = [[t.get_text() for t in ax.texts] for ax in figure.axes[:-1]]
    assert all(set(t) == {f"{i}: ship", f"last …-show: $x^{i}$"} for i, t in enumerate(texts[::3]))
    assert not any(texts[1::3] + texts[2::3])
    labels = [ax.get_ylabel() for ax in figure.axes[:-1]]
    assert labels[:4] == ["image", "a", "b", ""]
    assert labels[18:22] == ["image", "a", "b", ""]  # again in the second block
    first, again = (plots.save(grid(8, names)[0], tmp_path / f"{k}.png") for k in "pq")
    assert first.read_bytes() == again.read_bytes()
