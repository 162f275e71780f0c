"""Augmentation: crops and flips drawn for each image."""

import pytest
import torch

from crossclass.core.errors import UserError
from crossclass.data.augment import Augment

IMAGES = torch.arange(2 * 5 * 5, dtype=torch.uint8).view(1, 2, 5, 5).repeat(64, 1, 1, 1)


def test_equals_padding_and_slicing_one_by_one():
    for padding in ("reflect", "zero"):
        augment = Augment(crop=2, padding=padding, flip=False)
        out = augment(IMAGES, torch.Generator().manual_seed(0))
        shift = torch.randint(0, 5, (2, 64), generator=torch.Generator().manual_seed(0))
        mode = {"reflect": "reflect", "zero": "constant"}[padding]
        padded = torch.nn.functional.pad(IMAGES.float(), (2, 2, 2, 2), mode=mode)
        for m in range(64):
            a, b = int(shift[0, m]), int(shift[1, m])
            assert torch.equal(out[m].float(), padded[m, :, a : a + 5, b : b + 5])


def test_every_sample_has_its_own_draw():
    out = Augment(crop=2)(IMAGES, torch.Generator().manual_seed(0))
    assert len({tuple(image.flatten().tolist()) for image in out}) > 20
    flips = Augment(crop=0)(IMAGES, torch.Generator().manual_seed(0))
    mirrored = (flips != IMAGES).flatten(1).any(dim=1).float().mean()
    assert 0.25 < float(mirrored) < 0.75


def test_the_global_stream_is_untouched():
    before = torch.random.get_rng_state()
    Augment()(IMAGES, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_reflection_needs_room():
    with pytest.raises(UserError, match=r"augment\.padding=zero"):
        Augment(crop=5)(IMAGES, torch.Generator())
