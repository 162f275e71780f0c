"""The theory's figures: what is marked lies where it should, no words collide, same numbers same bytes."""

from itertools import combinations, pairwise
from math import pi, sqrt
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from crossclass.paper.theory import closed
from crossclass.report import plots

MU, SIGMA, BETA = 1.0, 0.9, 0.25
EPS = np.linspace(0, MU / 2, 301)
R = np.linspace(0, 1.2, 241)
RADII = (0.0, 0.1, 0.2, 0.3)


def weights(beta: float = BETA, sigma: float = SIGMA) -> Figure:
    smoothed = closed.optimum(MU, sigma, EPS, beta=beta)
    ends = closed.eps0(MU, sigma), closed.eps1(MU, sigma, beta)
    return plots.feature_weights(EPS, closed.optimum(MU, sigma, EPS), smoothed, *ends)


def success(radii: tuple[float, ...] = RADII) -> Figure:
    curves = []
    for eps in radii:
        both = closed.p_pair(1.0, R, MU, SIGMA, eps), closed.p_all(1.0, R, MU, SIGMA, eps)
        ratios = closed.ratio_at(MU, SIGMA, eps), closed.ratio_best((MU - 2 * eps) / SIGMA)
        curves.append(plots.SuccessCurve(f"ε = {eps:g}", *both, *map(float, ratios)))
    return plots.success_curves(R, curves)


def phases(beta: float = BETA, reading: str = "A") -> Figure:
    sigma = np.linspace(0.01, sqrt(pi), 200)
    ends = closed.eps0(1.0, sigma), closed.eps1(1.0, sigma, beta, reading)
    return plots.phase_diagram(sigma, *ends, beta=beta)


def marked(ax: Axes, gid: str) -> list[Any]:
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def boxes(figure: Figure) -> dict[str, Any]:
    """Every visible word of the figure's axes and the place it takes."""
    figure.draw_without_rendering()
    words = [(i, text) for i, ax in enumerate(figure.axes) for text in ax.texts]
    return {f"{i} {text.get_text()}": Text.get_window_extent(text) for i, text in words}


@pytest.mark.parametrize("sigma", [0.3, SIGMA, 1.6])
def test_thresholds_are_marked_where_the_weights_vanish(sigma: float) -> None:
    ax = weights(sigma=sigma).axes[0]
    for gid, name, value in (
        ("eps0", "w2 AT", closed.eps0(MU, sigma)),
        ("eps1", "w2 LS", closed.eps1(MU, sigma, BETA)),
    ):
        (line,) = marked(ax, gid)
        assert set(line.get_xdata()) == {value}
        (curve,) = (drawn for drawn in ax.lines if drawn.get_label() == name)
        x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
        assert np.array_equal(y > 0, x < value)
        assert any(f"{value:.3f}" in text.get_text() for text in ax.texts)


def test_curves_of_weights_are_the_given_ones() -> None:
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in weights().axes[0].lines}
    at, smoothed = closed.optimum(MU, SIGMA, EPS), closed.optimum(MU, SIGMA, EPS, beta=BETA)
    for name, values in zip(("w1 AT", "w2 AT", "w1 LS", "w2 LS"), (*at, *smoothed), strict=True):
        assert np.array_equal(lines[name], values)


@pytest.mark.parametrize(("beta", "sigma"), [(BETA, SIGMA), (0.02, SIGMA), (0.3, 0.05), (BETA, 1.75)])
def test_no_words_collide(beta: float, sigma: float) -> None:
    for figure in (weights(beta, sigma), success((0.0, 0.01, 0.3)), phases(max(beta, 0.1))):
        for (a, one), (b, other) in combinations(boxes(figure).items(), 2):
            assert not one.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9)), (a, b)


def test_words_stay_on_the_picture() -> None:
    for figure in (weights(), success(), phases()):
        frame = figure.bbox
        for name, box in boxes(figure).items():
            assert frame.x0 <= box.x0 <= box.x1 <= frame.x1, name
            assert frame.y0 <= box.y0 <= box.y1 <= frame.y1, name


def test_maxima_and_the_choice_of_adversarial_training_lie_on_their_curves() -> None:
    for ax, p in zip(success().axes, (closed.p_pair, closed.p_all), strict=True):
        curves = [line for line in ax.lines if str(line.get_label()).startswith("ε")]
        best, at = marked(ax, "best"), marked(ax, "at")
        assert len(curves) == len(best) == len(at) == len(RADII)
        for eps, curve, top, choice in zip(RADII, curves, best, at, strict=True):
            x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
            assert np.array_equal(y, p(1.0, R, MU, SIGMA, eps))
            assert top.get_xdata()[0] == pytest.approx(x[x <= 1][np.argmax(y[x <= 1])], abs=0.006)
            assert top.get_ydata()[0] == pytest.approx(y[x <= 1].max(), abs=1e-5)
            r = choice.get_xdata()[0]
            assert r == closed.ratio_at(MU, SIGMA, eps)
            assert choice.get_ydata()[0] == pytest.approx(p(1.0, r, MU, SIGMA, eps), abs=1e-5)


@pytest.mark.parametrize(("beta", "reading"), [(BETA, "A"), (0.1, "A"), (0.3, "B")])
def test_regions_are_where_the_closed_forms_put_them(beta: float, reading: str) -> None:
    ax = phases(beta, reading).axes[0]
    rng = np.random.default_rng(0)
    eps, sigma = rng.uniform(0, 0.5, 2000), rng.uniform(0.02, sqrt(pi), 2000)
    at = closed.optimum(1.0, sigma, eps)[1] > 0
    smoothed = closed.optimum(1.0, sigma, eps, beta=beta, reading=reading)[1] > 0
    wanted = {"at": at, "smoothed": smoothed & ~at, "none": ~smoothed}
    for gid, where in wanted.items():
        (region,) = marked(ax, gid)
        inside = region.get_paths()[0].contains_points(np.stack((eps, sigma), 1))
        assert where.any()
        assert np.mean(inside == where) > 0.995  # the boundaries are polygons
    (low,), (high,) = marked(ax, "eps0"), marked(ax, "eps1")
    s = np.asarray(low.get_ydata())
    np.testing.assert_allclose(low.get_xdata(), closed.eps0(1.0, s), atol=1e-15)
    np.testing.assert_allclose(high.get_xdata(), np.minimum(closed.eps1(1.0, s, beta, reading), 0.5))


def test_what_is_outside_the_paper_is_hatched() -> None:
    ax = phases().axes[0]
    hatched = [artist for artist in (*ax.patches, *ax.collections) if artist.get_hatch()]
    assert len(hatched) == 2
    ends = ax.get_xlim(), ax.get_ylim()
    assert ends[0][1] > 0.5
    assert ends[1][1] > sqrt(pi)
    assert {artist.get_gid() for artist in ax.collections} >= {"at", "smoothed", "none"}


def test_regions_differ_in_grey() -> None:
    ax = phases().axes[0]
    colors = [marked(ax, gid)[0].get_facecolor()[0, :3] for gid in ("at", "smoothed", "none")]
    grey = [c @ [0.2126, 0.7152, 0.0722] for c in colors]
    assert min(b - a for a, b in pairwise(grey)) > 0.15


def test_a_threshold_outside_the_axis_is_not_marked() -> None:
    figure = plots.feature_weights(EPS, (EPS, EPS), (EPS, EPS), 0.2, 0.7)
    ids = [artist.get_gid() for artist in figure.axes[0].lines]
    assert "eps0" in ids
    assert "eps1" not in ids
