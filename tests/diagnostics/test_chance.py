"""What the doctor calls more than chance: exact tails, paired comparisons, the best renumbering."""

import math
from fractions import Fraction
from itertools import permutations

import pytest
import torch

from conftest import seeded
from crossclass.analysis.accuracy_tests import hardly_learned, learned
from crossclass.analysis.renumbering import explaining_renumbering, renumbering
from crossclass.diagnostics.findings import ALPHA, beats, exceeds, tail_probability


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (10, 0.5), (40, 0.02), (60, 0.135)])
def test_tail_is_the_exact_binomial(n: int, p: float):
    q = Fraction(p)
    for count in range(n + 1):
        exact = sum(math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(count, n + 1))
        assert tail_probability(count, n, p) == pytest.approx(float(exact), rel=1e-9)
    assert tail_probability(3, 3, 1.0) == 1


def test_comparisons_are_paired_and_ask_for_more_than_chance():
    a = torch.zeros(1000, dtype=torch.bool)
    a[:10] = True
    none = torch.zeros_like(a)
    assert beats(a, none)  # 10 : 0 has p = 2^-10 < 1/1000
    assert not beats(a[:9], none[:9])
    assert not beats(none, a)
    assert not beats(a, none, by=0.01)  # one per cent exactly is not more
    assert not beats(a, none, tests=2)
    half = torch.arange(1000) % 2 == 0
    assert not beats(half, ~half), "unpaired counts would be equal, too; here 500 : 500"
    assert beats(torch.ones(1000).bool(), half | (torch.arange(1000) > 20))


def test_a_share_is_exceeded_only_beyond_binomial_error():
    least = next(c for c in range(201) if exceeds(c, 200, 0.02))
    assert tail_probability(least, 200, 0.02) < ALPHA <= tail_probability(least - 1, 200, 0.02)
    assert not exceeds(0, 0, 0.02)


def test_renumbering_is_the_best_one_where_classes_are_clear():
    for meant in permutations(range(4)):
        counts = torch.randint(0, 20, (4, 4), generator=seeded(1))
        for output, true in enumerate(meant):
            counts[true, output] += 40
        assert renumbering(counts).tolist() == list(meant)
    assert renumbering(torch.ones(3, 3, dtype=torch.int64)).tolist() == [0, 1, 2]  # nothing moves unasked


def test_a_head_that_tells_some_classes_by_accident_is_no_renumbering():
    # three outputs for six classes: another numbering triples the accuracy, and three outputs have no class
    labels = torch.arange(600) % 6
    predicted = torch.tensor([3, 3, 0, 0, 5, 5])[labels]
    assert explaining_renumbering(predicted, labels) is None
    meant = torch.tensor([1, 2, 3, 4, 5, 0])
    assert explaining_renumbering(meant[labels], labels) == tuple(meant.argsort().tolist())
    two = torch.tensor([1, 0, 2, 3, 4, 5])
    assert explaining_renumbering(two[labels], labels) == (1, 0, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("classes", "hardly", "beyond"), [(2, 0.55, 0.625), (10, 0.19, 0.3), (100, 0.02, 0.03)]
)
def test_what_untrained_heads_reach_is_not_learned(classes: int, hardly: float, beyond: float):
    labels = torch.arange(10_000) % classes

    def right(share: float) -> torch.Tensor:
        return torch.arange(10_000) < share * 10_000

    assert hardly_learned(right(hardly - 0.005), labels)
    assert not hardly_learned(right(hardly + 0.005), labels)
    assert not learned(right(beyond - 0.005), labels)
    assert learned(right(beyond + 0.005), labels)
    few = labels[:20]
    assert hardly_learned(right(0.25)[:20] & (few == 0), few), "one of twenty"
