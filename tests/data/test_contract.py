"""What every data set promises: sound parts of the sizes asked for, the same each time, on every machine."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crossclass import data
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.core.plugins import kind_of, members
from crossclass.data import CIFAR10, CIFAR100, AnyData, ArraySplit, Digits, Subset, TinyImageNet, arrays
from crossclass.models import statistics
from dataset_files import cifar10_files, cifar100_files, numbered_npz, put_cifar, put_tiny


def put_folder(place: Path) -> None:
    g = np.random.default_rng(4)
    for name in (
        f"{part}/{label}/{i}.png" for part in ("train", "test") for label in "abcd" for i in range(5)
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(g.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(place / name)


MADE = {
    "shapes": None,
    "digits": None,
    "npz": lambda place, patch: numbered_npz(place),
    "folder": lambda place, patch: put_folder(place),
    "cifar10": lambda place, patch: put_cifar(patch, CIFAR10, place, cifar10_files()),
    "cifar100": lambda place, patch: put_cifar(patch, CIFAR100, place, cifar100_files()),
    "tiny_imagenet": lambda place, patch: put_tiny(patch, place),
}
"""How to make a small one of each kind: at least 16 training and 6 test images."""
KINDS = {kind_of(member): member for member in members(AnyData)}


@pytest.fixture
def made(request, tmp_path, monkeypatch):
    """A data set of the kind asked for, over files made for the purpose."""
    kind = request.param
    if MADE[kind] is None:
        return KINDS[kind]()
    MADE[kind](tmp_path, monkeypatch)
    return KINDS[kind](path=tmp_path)


def test_every_kind_has_a_made_example():
    assert set(MADE) == set(KINDS)


class TestEveryKind:
    every = pytest.mark.parametrize("made", KINDS, indirect=True)
    cut = pytest.mark.parametrize(
        "made", [k for k, m in KINDS.items() if issubclass(m, Subset)], indirect=True
    )
    stored = pytest.mark.parametrize("made", [k for k in KINDS if MADE[k]], indirect=True)

    @every
    def test_is_sound_and_the_same_each_time(self, made):
        splits, again = made(), made()
        assert splits.checksum == again.checksum
        assert len(splits.class_names) == len(set(splits.class_names))
        for name in ("train", "val", "test"):
            part = getattr(splits, name)
            assert torch.equal(part.images, getattr(again, name).images)
            assert part.images.dtype == torch.uint8
            assert part.images.is_contiguous()
            assert part.labels.dtype == torch.int64
            if len(part):
                assert int(part.labels.min()) >= 0
                assert int(part.labels.max()) < len(splits.class_names)
                assert part.images.float().std() > 1

    @every
    def test_has_the_sizes_asked_for(self, made):
        cut = made.replace(n_train=9, n_val=5, n_test=6)
        splits = cut()
        assert (len(splits.train), len(splits.val), len(splits.test)) == (9, 5, 6)
        assert splits.checksum != made.replace(n_train=9, n_val=5, n_test=5)().checksum

    @cut
    def test_validation_follows_training_in_file_order(self, made):
        splits, whole = (
            made.replace(n_train=9, n_val=5, balanced=False)(),
            made.replace(n_train=14, balanced=False, n_val=0)(),
        )
        assert torch.equal(torch.cat([splits.train.images, splits.val.images]), whole.train.images)
        assert torch.equal(torch.cat([splits.train.labels, splits.val.labels]), whole.train.labels)

    @cut
    def test_can_be_balanced(self, made):
        present = len(made().train.labels.unique())
        cut = made.replace(n_train=present, n_val=min(present, 4), n_test=min(present, 4), balanced=True)
        splits, other = cut(), cut.replace(subset_seed=1)()
        assert sorted(splits.train.labels.tolist()) == made().train.labels.unique().tolist()
        assert len(splits.test.labels.unique()) == min(present, 4)
        assert not torch.equal(splits.train.images, other.train.images)

    @every
    def test_settings_say_nothing_of_this_machine(self, made, tmp_path):
        assert str(tmp_path) not in made.yaml()
        assert "download" not in made.yaml()
        assert made.digest() == KINDS[made.kind]().digest()
        assert load_yaml(type(made), made.yaml(), "f") == KINDS[made.kind]()

    @stored
    def test_without_files_the_remedy_is_named(self, made, tmp_path):
        with pytest.raises(UserError, match=r"data\.path=DIR"):
            KINDS[made.kind]()()
        with pytest.raises(UserError, match="nowhere"):
            KINDS[made.kind](path=tmp_path / "nowhere")()


@pytest.mark.parametrize(
    ("made", "sizes"),
    [("cifar10", (30, 6, 10)), ("cifar100", (18, 6, 100)), ("tiny_imagenet", (33, 6, 3))],
    indirect=["made"],
)
def test_published_sets_are_read_whole(made, sizes):
    splits = made()
    assert (len(splits.train), len(splits.test), len(splits.class_names)) == sizes
    assert not hasattr(made, "checksum")  # their content is known, so that it is no part of a run


@pytest.mark.parametrize(
    ("kind", "reader"), [(CIFAR10, "cifar"), (CIFAR100, "cifar"), (TinyImageNet, "tiny_imagenet")]
)
@pytest.mark.parametrize("wanted", [False, True])
def test_download_is_asked_for_only_on_request(kind, reader, wanted, tmp_path, monkeypatch):
    seen = []

    def read(*arguments):
        place, split, download, *_ = arguments[1:] if reader == "cifar" else arguments
        seen.append((place, split, download))
        return ArraySplit(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2), ("a", "b"))

    monkeypatch.setattr(getattr(data, reader), f"read_{reader}", read)
    kind(path=tmp_path, download=wanted)()
    assert seen == [(tmp_path, "train", wanted), (tmp_path, "test", False)]


@pytest.mark.parametrize(
    ("kind", "folder", "near"), [("cifar100", "cifar100", 0.01), ("tinyimagenet", "tiny_imagenet", 0.02)]
)
def test_statistics_are_those_of_the_images(kind, folder, near):
    root = Path(os.environ.get("CROSSCLASS_DATA", ""))
    found = sorted(root.glob(f"{folder}*/train.npz"))  # a few classes of Tiny-ImageNet will do
    if not os.environ.get("CROSSCLASS_DATA") or not found:
        pytest.skip(f"CROSSCLASS_DATA names no folder with {folder}/train.npz")
    x = arrays.read_npz(found[0].parent, "train").images[::5] / np.float32(255)
    mean, std = statistics()[kind]
    np.testing.assert_allclose(x.mean(axis=(0, 1, 2), dtype=np.float64), mean, atol=near)
    # Tiny-ImageNet's usual numbers are the mean of each image's own std, not the std of all pixels.
    own = x.std(axis=(1, 2)).mean(axis=0)
    spread = own if kind == "tinyimagenet" else x.std(axis=(0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(spread, std, atol=near)


def test_digits() -> None:
    splits = Digits()()
    assert (len(splits.train), len(splits.val), len(splits.test)) == (1200, 300, 297)
    assert splits.train.images.shape[1:] == (1, 8, 8)
    assert splits.class_names == tuple("0123456789")
    assert set(splits.train.images.flatten().tolist()) == {round(v * 255 / 16) for v in range(17)}
    assert splits.train.labels[:10].tolist() == list(range(10))
    # the first scan, a zero, as scikit-learn's documentation prints it
    first = [round(v * 255 / 16) for v in (0, 0, 5, 13, 9, 1, 0, 0)]
    assert splits.train.images[0, 0, 0].tolist() == first
