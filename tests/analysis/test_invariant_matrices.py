"""Matrices that no change alters which alters no prediction; their equations, influences and odd input."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from conftest import seeded
from crossclass.analysis import attribution, invariant_matrices as im
from crossclass.analysis.invariant_matrices import KINDS, invariant_matrices
from populations import scattered, shared, specific

exact = torch.float64


def sample(k: int = 5, d: int = 8, n: int = 30, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g, W, y = shared(k, d).draw(n, seeded(seed))
    return g.double(), W.double() + 0.3 * torch.randn(k, d, generator=seeded(seed + 1), dtype=exact), y


def literal(g: Tensor, W: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The three from their equations."""
    k = len(W)
    means = torch.stack([g[y == i].mean(dim=0) for i in range(k)])
    Sigma = sum(torch.outer(x - means[i], x - means[i]) for x, i in zip(g, y, strict=True)) / len(g)
    W0, M0 = W - W.mean(dim=0), means - means.mean(dim=0)
    R = M0 @ W0.T
    out = {"decision": W0 @ Sigma @ W0.T, "offer": M0 @ torch.linalg.pinv(Sigma) @ M0.T, "profile": R @ R.T}
    return {kind: Q / torch.outer(Q.diagonal().sqrt(), Q.diagonal().sqrt()) for kind, Q in out.items()}


def test_each_is_its_equation() -> None:
    g, W, y = sample()
    found = invariant_matrices(g, W, y)
    for kind, matrix in literal(g, W, y).items():
        torch.testing.assert_close(found[kind].matrix, matrix, rtol=0, atol=1e-9)
        off = matrix[~torch.eye(5, dtype=torch.bool)]
        assert found[kind].score == pytest.approx(off.clamp(min=0).sum().item(), abs=1e-8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(3, 6))
def test_no_change_of_head_origin_or_basis_alters_them(seed: int, classes: int) -> None:
    g, W, y = sample(classes, 8, 20, seed)
    random = seeded(seed)
    row, origin = torch.randn(8, generator=random, dtype=exact), torch.randn(8, generator=random, dtype=exact)
    basis = torch.randn(8, 8, generator=random, dtype=exact) + 3 * torch.eye(8, dtype=exact)
    other = (3 * (g + origin)) @ basis.T, (W + 5 * row) @ torch.linalg.inv(basis)
    before, after = invariant_matrices(g, W, y), invariant_matrices(*other, y)
    C = [attribution.correlation(attribution.class_means(*of, y)) for of in ((g, W), other)]
    assert float((C[0] - C[1]).abs().max()) > 1e-3  # C is altered
    for kind in KINDS:
        torch.testing.assert_close(after[kind].matrix, before[kind].matrix, rtol=0, atol=1e-6)
        assert after[kind].interval == pytest.approx(before[kind].interval, abs=1e-5)
        assert after[kind].shrinkage == 0


def test_features_that_are_off_or_say_the_same_change_nothing() -> None:
    g, W, y = sample()
    zero, one = torch.zeros(len(g), 1, dtype=exact), torch.ones(5, 1, dtype=exact)
    twice = torch.cat([g, zero, g[:, :1]], dim=1), torch.cat([W, one, torch.zeros_like(one)], dim=1)
    before, after = invariant_matrices(g, W, y), invariant_matrices(*twice, y)
    for kind in KINDS:
        torch.testing.assert_close(after[kind].matrix, before[kind].matrix, rtol=0, atol=1e-6)


def test_fewer_images_than_features_are_shrunk_and_said() -> None:
    g, W, y = sample(4, 40, 5)
    found = invariant_matrices(g, W, y)
    assert found["offer"].shrinkage > 0
    assert found["decision"].shrinkage == found["profile"].shrinkage == 0
    assert all(bool(found[kind].matrix.isfinite().all()) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_influence_of_an_image_is_what_its_weight_changes(kind: str, monkeypatch) -> None:
    from crossclass.analysis import invariant_matrices as module

    g, W, y = sample(4, 6, 15, 3)
    kept = {}
    real = module.of_influences
    monkeypatch.setattr(
        module, "of_influences", lambda *a: kept.setdefault(len(kept), a[2]) is None or real(*a)
    )
    score = invariant_matrices(g, W, y)[kind].score
    v = kept[2 * KINDS.index(kind)]  # each is asked for twice
    v = v - torch.stack([v[y == i].mean() for i in range(4)])[y]
    monkeypatch.undo()
    for x in (0, 50):  # in a class of 15 x counts more and the others less, so that the class stays 15
        times = 4000 - (y == y[x]).long()
        times[x] += 15
        more = torch.arange(len(y)).repeat_interleave(times)
        moved = invariant_matrices(g[more], W, y[more])[kind].score - score
        assert moved * 4000 == pytest.approx(v[x].item(), rel=0.03, abs=0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_the_truth(kind: str) -> None:
    population = specific(5, 12)
    true = invariant_matrices(*population.draw(8000, seeded(99)))[kind].score
    hits = 0
    for seed in range(40):
        interval = invariant_matrices(*population.draw(100, seeded(seed)))[kind].interval
        hits += interval.low <= true <= interval.high
    assert hits >= 33


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("population", "n"), [(shared(10, 30), 20), (scattered(20, 40), 10)])
def test_intervals_of_few_images_of_many_classes_hold_the_truth(population, n: int, kind: str) -> None:
    true = invariant_matrices(*population.draw(2000, seeded(99)))[kind].score
    found = [invariant_matrices(*population.draw(n, seeded(seed)))[kind].interval for seed in range(15)]
    assert sum(i.low <= true <= i.high for i in found) >= 12
    assert all(i.low <= i.estimate <= i.high for i in found)


def test_classes_without_images_have_rows_of_zeros() -> None:
    g, W, y = sample(5)
    some = y != 2
    found = invariant_matrices(g[some], W, y[some])
    for kind in KINDS:
        assert bool((found[kind].matrix[2] == 0).all() and (found[kind].matrix[:, 2] == 0).all())
        assert found[kind].matrix[0, 0].item() == pytest.approx(1)


def test_two_classes_are_opposite() -> None:
    for of in invariant_matrices(*sample(2)).values():
        assert of.score == pytest.approx(0)
        assert of.matrix[0, 1].item() == pytest.approx(-1)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30, torch.nan])
def test_features_of_any_size_give_numbers(scale: float) -> None:
    g, W, y = sample(3)
    for of in invariant_matrices((scale * g).float(), W.float(), y).values():
        assert bool(of.matrix.isfinite().all())
        assert 0 <= of.interval.low <= of.interval.high <= 6


def test_one_image_shares_nothing() -> None:
    g, W, y = sample(3)
    for of in invariant_matrices(g[:1], W, y[:1]).values():
        assert of.score == 0


@pytest.mark.parametrize("d", [8, 300])
def test_the_size_of_a_block_changes_nothing(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    g, W, y = sample(5, d)
    before = invariant_matrices(g, W, y), attribution.class_means(g, W, y)
    for module in (attribution, im):
        monkeypatch.setattr(module, "_BLOCK", 7)
    after = invariant_matrices(g, W, y), attribution.class_means(g, W, y)
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)
    for kind in KINDS:
        torch.testing.assert_close(after[0][kind].matrix, before[0][kind].matrix, rtol=0, atol=1e-9)
        assert after[0][kind].interval == pytest.approx(before[0][kind].interval, abs=1e-6)
