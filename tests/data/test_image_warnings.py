"""Images of a wrong scale, without content, or twice."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossclass.core.errors import UserError
from crossclass.data import Npz, Split, Splits
from crossclass.data.image_warnings import image_warnings


def splits(n: int = 100) -> Splits:
    pixels = torch.randint(0, 256, (2, n, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    train, test = (Split(images, torch.arange(n) % 4) for images in pixels)
    return Splits(train, train.first(0), test, tuple("abcd"), "")


def scaled(whole: Splits, by: int) -> Splits:
    train, test = (Split(part.images // by, part.labels) for part in (whole.train, whole.test))
    return replace(whole, train=train, test=test)


def test_usual_images_are_not_warned_of():
    for part in ("train", "test"):
        assert image_warnings(splits(), part) == []


def test_sixteen_grays_of_255_are_said():
    (sentence,) = image_warnings(scaled(splits(), 16), "test")
    assert "15 of 255" in sentence
    assert "53%" in sentence  # 8 / 15
    assert sentence.isprintable()


def test_one_bright_part_is_enough():
    """A night is dark; the whole set says what white is."""
    whole = splits()
    assert image_warnings(replace(whole, test=scaled(whole, 16).test), "test") == []


def test_images_without_content_are_said():
    whole = splits()
    nothing = Split(torch.full_like(whole.test.images, 7), whole.test.labels)
    said = image_warnings(replace(whole, train=nothing, test=nothing), "test")
    assert "all pixels of all images are 7" in said[0]
    some = whole.test.images.clone()
    some[:5] = torch.arange(5).byte().view(5, 1, 1, 1)
    (sentence,) = image_warnings(replace(whole, test=Split(some, whole.test.labels)), "test")
    assert "5 of 200" in sentence


def test_training_images_among_the_test_images_are_counted():
    whole = splits()
    mixed = torch.cat([whole.train.images[:30], whole.test.images[30:]])
    leaky = replace(whole, test=Split(mixed, whole.test.labels))
    (sentence,) = image_warnings(leaky, "test")
    assert "30 of 100 test images are training images" in sentence
    assert image_warnings(leaky, "train") == []


def test_copies_are_counted():
    whole = splits()
    (sentence,) = image_warnings(replace(whole, test=whole.test.take(torch.arange(100) // 2)), "test")
    assert "50 of 100 test images are copies" in sentence


@pytest.mark.parametrize("white", [1, 16])
def test_zeros_and_ones_as_bytes_are_refused(tmp_path, white):
    images = np.arange(6 * 16).reshape(6, 4, 4) % 2 * white
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", images=images.astype(np.uint8), labels=np.arange(6) % 2)
    if white == 1:
        with pytest.raises(UserError, match="multiply by 255"):
            Npz(path=tmp_path)()
    else:
        assert int(Npz(path=tmp_path)().test.images.max()) == white


def test_an_image_is_hashed_once_for_all_attacks_of_a_measurement(monkeypatch):
    whole, hashed = splits(), []
    usual = hashlib.blake2b
    monkeypatch.setattr(hashlib, "blake2b", lambda *a, **k: (hashed.append(1), usual(*a, **k))[1])
    for _ in range(3):
        image_warnings(whole, "test")
    assert len(hashed) == 200
