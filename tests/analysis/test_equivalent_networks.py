"""CAS after changes of a network that leave every prediction as it is, each made on the network itself."""

import pytest
import torch

from conftest import seeded
from crossclass.analysis import attribution, equivalent_networks
from crossclass.analysis.equivalent_networks import ROTATIONS, moved_cas

exact = torch.float64


def drawn(k: int = 4, n: int = 40, d: int = 6):
    g = torch.rand(n, d, generator=seeded(0), dtype=exact)
    return g, torch.randn(k, d, generator=seeded(1), dtype=exact), torch.arange(n) % k


def cas(g, W, y):
    return attribution.cas(attribution.correlation(attribution.class_means(g, W, y)))


def test_each_is_cas_of_the_changed_network():
    g, W, y = drawn()
    found = moved_cas(g, W, y)
    assert found.as_it_is == pytest.approx(cas(g, W, y))
    assert found.rows_shifted == pytest.approx(cas(g, W + W.std(dim=0, correction=0), y))
    assert found.rows_centred == pytest.approx(cas(g, W - W.mean(dim=0), y))
    assert found.features_shifted == pytest.approx(cas(g + g.std(dim=0, correction=0), W, y))
    assert found.features_centred == pytest.approx(cas(g - g.mean(dim=0), W, y))
    assert len(set(found.rotated)) == ROTATIONS
    assert moved_cas(g, W, y) == found
    assert moved_cas(g, W, y, seed=1).rotated != found.rotated


def test_random_bases_are_rotations():
    Q = equivalent_networks._rotation(6, torch.zeros(1), 0, 0)
    torch.testing.assert_close(Q @ Q.T, torch.eye(6, dtype=exact))


@pytest.mark.parametrize("k", [2, 5])
def test_a_class_without_images_shares_nothing_in_any_of_them(k):
    g, W, y = drawn(k)
    without = moved_cas(g, torch.cat([W, torch.ones(1, 6, dtype=exact)]), y)
    assert without.features_centred == pytest.approx(moved_cas(g, W, y).features_centred)
    assert without.features_shifted == pytest.approx(moved_cas(g, W, y).features_shifted)
