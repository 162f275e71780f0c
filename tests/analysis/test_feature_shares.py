"""CAS split over features: sum rules, the equation as a literal loop, influences, bad input."""

import pytest
import torch
from torch import Tensor

from conftest import seeded
from crossclass.analysis import attribution, feature_shares as by_feature
from crossclass.core.errors import UserError
from populations import scattered, shared, specific

exact = torch.float64


def means(k: int, d: int, seed: int = 0) -> Tensor:
    g = seeded(seed)
    return torch.randn(k, d, generator=g, dtype=exact) + 0.5 * torch.randn(1, d, generator=g, dtype=exact)


def literal(A: Tensor) -> Tensor:
    """share_k from its equation."""
    k, d = A.shape
    share = torch.zeros(d, dtype=exact)
    for i in range(k):
        for j in range(k):
            length = A[i].norm() * A[j].norm()
            if i != j and A[i] @ A[j] / length > 0:
                for f in range(d):
                    share[f] += A[i, f] * A[j, f] / length
    return share


@pytest.mark.parametrize(("k", "d"), [(2, 1), (2, 5), (7, 11), (40, 130)])
def test_shares_add_up_to_cas(k: int, d: int) -> None:
    A = means(k, d)
    found = by_feature.feature_shares(A)
    cas = attribution.cas(attribution.correlation(A))
    assert found.share.sum().item() == pytest.approx(cas, abs=1e-12 * max(1, k * k))


def test_a_share_is_its_equation() -> None:
    A = means(5, 7)
    torch.testing.assert_close(by_feature.feature_shares(A).share, literal(A), rtol=0, atol=1e-13)


def test_the_features_of_a_pair_add_up_to_its_cosine() -> None:
    A = means(6, 9)
    C = attribution.correlation(A)
    for i, j in ((0, 1), (4, 2), (3, 3)):
        assert by_feature.pair_shares(A, i, j).sum().item() == pytest.approx(C[i, j].item(), abs=1e-12)


def test_a_feature_of_one_class_counts_for_one_and_of_all_for_all() -> None:
    A = torch.tensor([[1.0, 2.0, 0.0, 0.0], [1.0, 0.0, 0.0, -3.0], [1.0, 0.0, 0.0, 1.0]], dtype=exact)
    found = by_feature.feature_shares(A)
    assert found.effective_classes.tolist() == pytest.approx([3.0, 1.0, 0.0, 1.0])
    assert found.mass.tolist() == pytest.approx([3.0, 2.0, 0.0, 1.0])
    tiny = by_feature.feature_shares(A * 1e-200)
    torch.testing.assert_close(tiny.effective_classes, found.effective_classes)


def test_a_feature_in_another_unit_is_shared_as_much() -> None:
    g, W, y = shared(4, 9).draw(30, seeded(0))
    unit = torch.rand(9, generator=seeded(1)) + 0.5
    a, b = (
        by_feature.feature_shares(attribution.class_means(*of, y)) for of in ((g, W), (g * unit, W / unit))
    )
    torch.testing.assert_close(a.share, b.share, rtol=0, atol=1e-6)


def test_what_was_forgotten_adds_up_with_the_pairs_that_change_sign() -> None:
    A, B = means(6, 8, 1), means(6, 8, 2)
    lost = by_feature.forgotten(A, B)
    cas = [attribution.cas(attribution.correlation(M)) for M in (A, B)]
    assert lost.share.sum().item() + lost.changed_sign == pytest.approx(cas[0] - cas[1], abs=1e-12)
    C, D = attribution.correlation(A), attribution.correlation(B)
    both = (C > 0) & (D > 0) & ~torch.eye(6, dtype=torch.bool)
    assert bool(((C > 0) != (D > 0)).any())
    by_hand = torch.zeros(8, dtype=exact)
    for i, j in both.nonzero().tolist():
        by_hand += by_feature.pair_shares(A, i, j) - by_feature.pair_shares(B, i, j)
    torch.testing.assert_close(lost.share, by_hand, rtol=0, atol=1e-12)


def test_classes_without_images_share_nothing() -> None:
    A = means(4, 5)
    with_empty = torch.cat([A, torch.zeros(1, 5, dtype=exact), torch.full((1, 5), torch.nan, dtype=exact)])
    a, b = by_feature.feature_shares(A), by_feature.feature_shares(with_empty)
    torch.testing.assert_close(a.share, b.share)
    torch.testing.assert_close(a.mass, b.mass)


def test_the_influences_of_an_image_are_what_its_weight_changes() -> None:
    g, W, y = shared(4, 6).draw(12, seeded(3))
    g, W = g.double(), W.double()
    influence = by_feature._Influence(g, W, y)
    v = influence.of(torch.arange(len(y)))
    weight, step = torch.ones(len(y), dtype=exact), 1e-5

    def share(weight: Tensor) -> Tensor:
        one_hot = torch.nn.functional.one_hot(y.long(), 4).double() * weight[:, None]
        return by_feature.feature_shares((one_hot.T @ g) / one_hot.sum(dim=0)[:, None] * W).share

    n = torch.bincount(y)
    for x in (0, 7, 30):
        one = torch.zeros_like(weight).index_fill(0, torch.tensor([x]), step)
        slope = (share(weight + one) - share(weight - one)) / (2 * step) * n[y[x]]
        torch.testing.assert_close(v[x], slope, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("population", [shared(5, 12), specific(5, 12)], ids=["shared", "specific"])
def test_intervals_hold_the_truth(population) -> None:
    true = by_feature.feature_shares(attribution.class_means(*population.draw(40_000, seeded(99)))).share
    hits = total = 0
    for seed in range(40):
        low, high = by_feature.share_intervals(*population.draw(100, seeded(seed)))
        hits += int(((low <= true) & (true <= high)).sum())
        total += len(true)
    assert hits / total > 0.9


def test_intervals_of_what_was_forgotten_are_paired() -> None:
    g, W, y = scattered(5, 12).draw(50, seeded(0))
    lost = by_feature.forgotten_intervals((g, W), (g, W), y)
    assert all(bool((ends == 0).all()) for ends in lost)
    low, high = by_feature.forgotten_intervals((g, W), (1.1 * g + 0.05, W), y)
    apart = by_feature.share_intervals(g, W, y)
    assert float((high - low).mean()) < 0.5 * float((apart[1] - apart[0]).mean())


def test_a_class_with_one_image_has_no_spread() -> None:
    g, W, y = shared(3, 4).draw(10, seeded(0))
    one = torch.cat([(y != 2).nonzero().flatten(), (y == 2).nonzero().flatten()[:1]])
    low, high = by_feature.share_intervals(g[one], W, y[one])
    assert bool(low.isneginf().all() and high.isposinf().all())


def test_bad_input_is_refused() -> None:
    with pytest.raises(UserError, match="no class 7"):
        by_feature.pair_shares(means(3, 4), 0, 7)
    with pytest.raises(UserError, match="one run"):
        by_feature.forgotten(means(3, 4), means(3, 5))
