"""I-CAS against a triple loop, in any block size, with unequal, single and absent classes."""

from itertools import pairwise
from math import sqrt

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import seeded
from crossclass.analysis import attribution, instances

SIZES = (7, 1, 12, 0, 5)  # of the classes: a single sample, and a class without any


def sample(d: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = seeded(seed)
    y = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    y = y[torch.randperm(len(y), generator=generator)]
    g = torch.randn(len(y), d, generator=generator).clamp(min=0)
    g[3] = 0.0
    return g, torch.randn(len(SIZES), d, generator=generator), y


def literal_cosines(g: Tensor, W: Tensor, y: Tensor) -> list[list[float]]:
    rows = [
        [a * b for a, b in zip(x, W.tolist()[i], strict=True)]
        for x, i in zip(g.tolist(), y.tolist(), strict=True)
    ]
    norms = [sqrt(sum(v * v for v in r)) for r in rows]

    def cosine(p: int, q: int) -> float:
        if norms[p] == 0 or norms[q] == 0:
            return 0.0
        return sum(a * b for a, b in zip(rows[p], rows[q], strict=True)) / (norms[p] * norms[q])

    return [[cosine(p, q) for q in range(len(rows))] for p in range(len(rows))]


def literal_instance(g: Tensor, W: Tensor, y: Tensor) -> list[list[float]]:
    """Section 5.3 word for word: for each x of i its most similar x' of j, averaged over i."""
    cosines, labels, k = literal_cosines(g, W, y), y.tolist(), len(W)
    out = [[0.0] * k for _ in range(k)]
    for i in range(k):
        of_i = [p for p, c in enumerate(labels) if c == i]
        for j in range(k):
            of_j = [q for q, c in enumerate(labels) if c == j]
            if i == j:
                out[i][j] = 1.0 if of_i else 0.0
            elif of_i and of_j:
                out[i][j] = sum(max(cosines[p][q] for q in of_j) for p in of_i) / len(of_i)
    return out


def literal_nearest(g: Tensor, W: Tensor, y: Tensor) -> list[list[float]]:
    cosines, labels = literal_cosines(g, W, y), y.tolist()
    out = []
    for p in range(len(labels)):
        others = [[cosines[p][q] for q, c in enumerate(labels) if c == j and q != p] for j in range(len(W))]
        out.append([max(values) if values else 0.0 for values in others])
    return out


@pytest.mark.parametrize("block", [1, 2, 7, 8, 24, 25, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_nearest_and_its_means_are_the_triple_loop(block: int, seed: int) -> None:
    g, W, y = sample(seed=seed)
    near = instances.nearest(g, W, y, block=block)
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, torch.tensor(literal_nearest(g, W, y)), rtol=0, atol=1e-6)
    found = instances.instance_correlation(near, y)
    truth = torch.tensor(literal_instance(g, W, y), dtype=torch.float64)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)
    assert not torch.allclose(found, found.T, atol=1e-2)  # the most similar is not mutual


@pytest.mark.parametrize("block", [1, 3, 8, 25, 100])
def test_the_two_most_similar_samples_of_each_class(block: int) -> None:
    g, W, y = sample()
    g[int((y == 0).nonzero()[0])] = g[int((y == 0).nonzero()[4])]  # two copies of an image
    cosines, labels = literal_cosines(g, W, y), y.tolist()
    found = instances.neighbours(g, W, y, block=block)
    assert torch.equal(found.best, instances.nearest(g, W, y))
    for p in range(len(labels)):
        for j in range(len(W)):
            others = [q for q, c in enumerate(labels) if c == j and q != p]
            values = sorted((cosines[p][q] for q in others), reverse=True) + [0.0] * (2 - len(others))
            assert float(found.best[p, j]) == pytest.approx(values[0], abs=1e-6)
            assert float(found.second[p, j]) == pytest.approx(values[1], abs=1e-6)
            at = int(found.which[p, j])
            if others:
                assert at in others
                assert cosines[p][at] == pytest.approx(values[0], abs=1e-6)
            else:
                assert at == -1


def test_float64_features_give_float64_cosines() -> None:
    g, W, y = sample()
    near = instances.nearest(g.double(), W.double(), y)
    truth = torch.tensor(literal_nearest(g, W, y), dtype=torch.float64)
    torch.testing.assert_close(near, truth, rtol=0, atol=1e-13)


def test_all_pairs_is_the_mean_over_every_ordered_pair() -> None:
    g, W, y = sample()
    cosines, labels, k = literal_cosines(g, W, y), y.tolist(), len(W)
    truth = torch.zeros(k, k, dtype=torch.float64)
    for i in range(k):
        for j in range(k):
            pairs = [
                cosines[p][q]
                for p in range(len(labels))
                for q in range(len(labels))
                if labels[p] == i and labels[q] == j
            ]
            truth[i, j] = sum(pairs) / len(pairs) if pairs else 0.0
    # the zero attribution has cosine 0 with itself as well
    torch.testing.assert_close(instances.all_pairs(g, W, y), truth, rtol=0, atol=1e-6)


def test_equal_classes_share_everything_and_disjoint_ones_nothing() -> None:
    y = torch.arange(12) % 3
    same = instances.instance_correlation(instances.nearest(torch.ones(12, 3), torch.ones(3, 3), y), y)
    torch.testing.assert_close(same, torch.ones(3, 3, dtype=torch.float64))
    assert attribution.cas(same) == pytest.approx(6)
    own = instances.instance_correlation(instances.nearest(torch.ones(12, 3), torch.eye(3), y), y)
    assert torch.equal(own, torch.eye(3, dtype=torch.float64))


def test_cosines_stay_within_one_and_know_no_scale() -> None:
    g, W, y = sample(d=40)
    near = instances.nearest(g, W, y)
    for factor in (1e-30, 1e30):
        torch.testing.assert_close(instances.nearest(g * factor, W, y), near, rtol=0, atol=1e-6)
    twins = torch.rand(100, 7, generator=seeded(0)).repeat(2, 1)
    high = instances.nearest(twins, torch.ones(2, 7), torch.arange(200) // 100)
    assert float(high.max()) <= 1.0
    assert float(torch.stack([high[:100, 1], high[100:, 0]]).min()) > 1 - 1e-6  # the twin is found
    opposite = torch.tensor([[1.0], [-1.0]]).repeat(1, 40)
    low = instances.nearest(torch.ones(2, 40), opposite, torch.arange(2))
    assert float(low.min()) == pytest.approx(-1)


def test_a_sample_that_is_not_finite_is_similar_to_nothing_among_neighbours() -> None:
    g, W, y = sample()
    off = g.clone()
    off[5] = 0.0
    for value in (torch.inf, torch.nan):
        g[5, 2] = value
        assert torch.equal(instances.neighbours(g, W, y).best, instances.neighbours(off, W, y).best)


def test_what_depends_on_a_sample_that_is_not_finite_is_nan() -> None:
    g, W, y = sample()
    near, pairs = instances.nearest(g, W, y), instances.all_pairs(g, W, y)
    other = torch.arange(len(W)) != y[5]
    for value in (torch.inf, torch.nan):
        g[5, 2] = value
        found, rows = instances.nearest(g, W, y), torch.arange(len(y)) != 5
        assert bool(found[5].isnan().all())
        assert bool(found[:, y[5]].isnan().all())
        assert torch.equal(found[rows][:, other], near[rows][:, other])
        I = instances.instance_correlation(found, y)  # noqa: E741 - the paper's matrix
        assert bool(I[y[5]][other].isnan().all())
        assert torch.tensor(attribution.cas(I)).isnan()
        found = instances.all_pairs(g, W, y)
        assert bool(found[y[5]].isnan().all())
        assert torch.equal(found[other][:, other], pairs[other][:, other])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_labels_of_any_integer_type_and_half_features(dtype: torch.dtype) -> None:
    g, W, y = sample()
    near = instances.nearest(g, W, y)
    assert torch.equal(instances.nearest(g, W, y.to(dtype)), near)
    assert torch.equal(
        instances.instance_correlation(near, y.to(dtype)), instances.instance_correlation(near, y)
    )
    half = instances.nearest(g.half(), W, y)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, near, rtol=0, atol=5e-3)


def test_no_setting_of_lower_precision_reaches_the_cosines() -> None:
    g, W, y = sample()
    near = instances.nearest(g, W, y)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(instances.nearest(g, W, y), near)
            assert torch.equal(instances.all_pairs(g, W, y), instances.all_pairs(g.clone(), W, y))
    finally:
        torch.set_float32_matmul_precision(before)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.most = max(self.most, out.numel())
        return out


@pytest.mark.parametrize("n", [300, 600])
def test_memory_does_not_grow_with_the_square_of_n(n: int) -> None:
    generator = seeded(0)
    g, W = torch.rand(n, 4, generator=generator), torch.rand(3, 4, generator=generator)
    y = torch.arange(n) % 3
    with Largest() as seen:
        instances.nearest(g, W, y, block=30)
        instances.all_pairs(g, W, y)
    assert seen.most <= n * 4  # as large as the features; a block is smaller


def test_a_maximum_over_more_candidates_is_larger() -> None:
    generator = seeded(0)
    scores = []
    for n in (30, 120, 480):
        y = torch.arange(n) % 3
        near = instances.nearest(torch.rand(n, 30, generator=generator), torch.ones(3, 30), y)
        scores.append(attribution.cas(instances.instance_correlation(near, y)))
    assert all(a < b for a, b in pairwise(scores))
