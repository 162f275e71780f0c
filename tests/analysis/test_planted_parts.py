"""Features against planted parts: a made network that finds exactly the parts, mixtures, and dead units."""

import pytest
import torch
import torch.nn.functional as F

from crossclass.analysis.planted_parts import found_parts
from crossclass.data import Shapes
from crossclass.data.shapes import part

SHAPES = Shapes(n_test=1200, n_train=6, n_val=6, noise=0.1)
PARTS = SHAPES.classes + len(SHAPES.graph)


def made(mixtures: torch.Tensor) -> torch.Tensor:
    """Features of the test images: each row of `mixtures` adds up what filters of the parts find."""
    drawn = SHAPES.drawn("test")
    stamps = torch.stack([part(p, SHAPES.part_size) for p in range(PARTS)])
    stamps = stamps / stamps.square().sum(dim=(1, 2, 3), keepdim=True)
    found = F.conv2d(drawn.images.float() / 255 - 0.5, stamps).relu().amax(dim=(2, 3))
    return found @ mixtures.T


def test_a_network_of_the_planted_parts_has_a_pure_feature_for_each() -> None:
    drawn = SHAPES.drawn("test")
    seen = found_parts(made(torch.eye(PARTS)), drawn.strengths, drawn.labels, SHAPES.parts_of)
    assert bool(seen.pure.all())
    assert seen.share.argmax(dim=1).tolist() == list(range(PARTS))
    assert seen.found.tolist() == [1] * PARTS
    assert not seen.mixed.any()
    assert not seen.dead.any()


def test_mixtures_dead_units_and_noise_are_told_apart() -> None:
    drawn = SHAPES.drawn("test")
    weights = torch.zeros(4, PARTS)
    weights[0, [0, 6]] = 1.0  # two parts of one class
    weights[1, [1, 4]] = 1.0  # of two classes
    weights[2, 7] = -1.0  # less of a part is a response too
    g = made(weights)  # the last one is 0 everywhere
    noise = torch.randn(len(g), 20, generator=torch.Generator().manual_seed(0))
    seen = found_parts(torch.cat([g, noise], dim=1), drawn.strengths, drawn.labels, SHAPES.parts_of)
    assert seen.mixed.tolist() == [True, True] + [False] * 22
    assert seen.pure.tolist() == [False, False, True] + [False] * 21
    assert seen.dead.tolist() == [False, False, False, True] + [False] * 20
    assert set((seen.share[0] > 0.1).nonzero()[:, 0].tolist()) == {0, 6}
    assert set((seen.share[1] > 0.1).nonzero()[:, 0].tolist()) == {1, 4}
    assert seen.response[2, 7] < 0
    assert not seen.share[3:].any()


def test_the_response_is_that_to_one_standard_deviation() -> None:
    y = torch.arange(2).repeat(200)
    s = torch.zeros(400, 2)
    s[torch.arange(400), y] = torch.randn(400, generator=torch.Generator().manual_seed(1))
    g = 3 * s[:, [0]] + 10 * y[:, None]  # what tells the classes apart is no response
    seen = found_parts(g, s, y, [[0], [1]])
    own = s[y == 0, 0]
    assert float(seen.response[0, 0]) == pytest.approx(3 * float(own.std()), rel=1e-2)
    assert seen.share[0].tolist() == [1.0, 0.0]


def test_too_few_images_find_nothing() -> None:
    s = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    seen = found_parts(torch.eye(2), s, torch.arange(2), [[0], [1]])
    assert not seen.share.any()
