"""Shapes: seeded pictures whose parts are dissimilar, shared as planted, and where the masks say."""

import pytest
import torch
import torch.nn.functional as F

from crossclass.core.config import validated
from crossclass.core.errors import UserError
from crossclass.data import Shapes
from crossclass.data.shapes import MAX_PARTS, part


def similarity_of_parts(parts: int, size: int) -> torch.Tensor:
    """Largest normalised cross-correlation |<a, shifted b>| of every two parts over all shifts."""
    stamps = torch.stack([part(i, size) for i in range(parts)])
    stamps = stamps / stamps.flatten(1).norm(dim=1)[:, None, None, None]
    return F.conv2d(stamps, stamps, padding=size - 1).abs().amax(dim=(2, 3))


def test_same_seed_same_pictures_other_seed_others():
    small = Shapes(n_train=12, n_val=6, n_test=6)
    a, b = small(), small()
    assert torch.equal(a.train.images, b.train.images)
    assert a.checksum == b.checksum
    assert small.replace(seed=1)().checksum != a.checksum
    assert not torch.equal(a.train.images[:6], a.test.images)


def test_a_longer_draw_is_as_balanced():
    assert torch.bincount(Shapes(n_train=60)().train.labels).tolist() == [10] * 6


def test_the_truth_is_the_planted_graph():
    splits = Shapes(n_train=6, n_val=0, n_test=6, classes=4, edges=((0, 3), (1, 2)))()
    expected = torch.eye(4, dtype=torch.int64)
    expected[0, 3] = expected[3, 0] = expected[1, 2] = expected[2, 1] = 1
    assert torch.equal(splits.sharing, expected)


def test_parts_are_mutually_dissimilar():
    similarity = similarity_of_parts(MAX_PARTS, 12)
    assert torch.allclose(similarity.diag(), torch.ones(MAX_PARTS), atol=1e-5)
    similarity.fill_diagonal_(0)
    assert similarity.max() < 0.5
    similarity = similarity_of_parts(10, 12)  # those of the default data set
    similarity.fill_diagonal_(0)
    assert similarity.max() < 0.3


def test_a_class_shows_its_parts_and_no_others():
    # without noise: correlate every image with every part; the two shown parts stand out
    n, k, edges = 12, 4, ((0, 1), (2, 3))
    data = Shapes(n_train=n, classes=k, edges=edges, mu=0.4, sigma=0.0, noise=0.0)
    images, labels, *_ = data.drawn("train")
    x = images.float() / 255 - 0.5
    stamps = torch.stack([part(p, 12) for p in range(k + len(edges))])
    response = F.conv2d(x, stamps).amax(dim=(2, 3))
    for m in range(n):
        i = int(labels[m])
        shown = {i} | {k + e for e, pair in enumerate(edges) if i in pair}
        assert set(response[m].topk(len(shown)).indices.tolist()) == shown


def test_strengths_have_the_planted_mean_and_spread():
    data = Shapes(n_train=800, classes=2, edges=(), size=16, mu=0.2, sigma=0.05, noise=0.0, seed=1)
    images, labels, *_ = data.drawn("train")
    x = images.double() / 255 - 0.5
    energy = x[labels == 0].flatten(1).norm(dim=1)
    full = part(0, 12).double().norm()
    strength = energy / full  # |s| times the tint's root mean square
    assert abs(float(strength.mean()) - 0.2) < 0.01
    assert abs(float(strength.std()) - 0.05) < 0.015


def test_any_size_and_number_of_classes():
    splits = Shapes(n_train=11, n_val=0, n_test=11, classes=11, size=24)()
    assert splits.train.images.shape == (11, 3, 24, 24)
    assert len(set(splits.class_names)) == 11
    with pytest.raises(ValueError, match="dissimilar parts"):
        Shapes(classes=20)


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


def test_parts_need_pixels():
    star = tuple((0, i) for i in range(1, 6))
    with pytest.raises(UserError, match="take larger pictures"):
        validated(Shapes, {"size": 8, "classes": 6, "edges": star})
