"""The masks of the planted parts are where the parts are drawn."""

import torch

from crossclass.data import Shapes


def test_planted_masks_lie_where_the_parts_are():
    # without texture and spread, a picture differs from grey exactly inside its parts
    data = Shapes(n_train=1, n_val=0, n_test=24, sigma=0.0, noise=0.0, mu=0.4)
    images = data().test.images
    drawn_test = data.drawn("test")
    exclusive, shared = drawn_test.exclusive, drawn_test.shared
    assert not (exclusive & shared).any()
    drawn = (images != images[0, 0, 0, 0]).any(dim=1)
    assert not (drawn & ~(exclusive | shared)).any()
    inside = (drawn & exclusive).sum() / exclusive.sum(), (drawn & shared).sum() / shared.sum()
    assert min(inside) > 0.3
    edges = torch.tensor([sum(c in e for e in data.graph) for c in range(data.classes)])
    area = exclusive.flatten(1).sum(1)
    assert torch.equal(shared.flatten(1).sum(1), edges[data().test.labels] * area)
