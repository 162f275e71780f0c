"""Data sets: parts that do not overlap, seeded order, augmentation per sample, files that stay the same."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crossclass import data
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.core.plugins import kind_of, members
from crossclass.core.rng import generator
from crossclass.data import (
    CIFAR10,
    CIFAR100,
    AnyData,
    ArraySplit,
    Digits,
    Folder,
    Npz,
    Shapes,
    Split,
    Subset,
    TinyImageNet,
    arrays,
    as_float,
    batches,
    cifar,
    shapes,
    tiny_imagenet,
)
from crossclass.data.augment import Augment
from crossclass.models import statistics


def write(folder, n_train=20, n_test=8, classes=4, size=6, seed=0, names=None):
    g = np.random.default_rng(seed)
    for split, n in (("train", n_train), ("test", n_test)):
        images = g.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        images[:, 0, 0, 0] = np.arange(n)  # a serial number in the first pixel
        extra = {"class_names": np.array(names)} if names else {}
        np.savez(folder / f"{split}.npz", images=images, labels=np.arange(n) % classes, **extra)
    return folder


def serial(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_parts_follow_each_other_in_file_order(tmp_path):
    splits = Npz(path=write(tmp_path), n_train=10, n_val=4, n_test=3)()
    assert serial(splits.train) == list(range(10))
    assert serial(splits.val) == [10, 11, 12, 13]
    assert serial(splits.test) == [0, 1, 2]
    assert splits.train.images.shape == (10, 3, 6, 6)
    assert splits.class_names == ("0", "1", "2", "3")


def test_unset_sizes_take_all_and_hold_the_validation_part_out(tmp_path):
    splits = Npz(path=write(tmp_path), n_val=5)()
    assert (len(splits.train), len(splits.val), len(splits.test)) == (15, 5, 8)
    assert not set(serial(splits.train)) & set(serial(splits.val))


def test_balanced_parts_are_balanced_seeded_and_disjoint(tmp_path):
    where = write(tmp_path, n_train=40)
    data = Npz(path=where, n_train=12, n_val=8, balanced=True)
    splits = data()
    assert torch.bincount(splits.train.labels).tolist() == [3, 3, 3, 3]
    assert torch.bincount(splits.val.labels).tolist() == [2, 2, 2, 2]
    assert not set(serial(splits.train)) & set(serial(splits.val))
    assert serial(data().train) == serial(splits.train)
    assert serial(data.replace(subset_seed=1)().train) != serial(splits.train)


def test_too_many_images_are_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(UserError, match=r"n_train \+ n_val is 24, but there are 20 training images"):
        Npz(path=tmp_path, n_train=20, n_val=4)()
    with pytest.raises(UserError, match="n_test is 9, but there are 8"):
        Npz(path=tmp_path, n_test=9)()
    with pytest.raises(UserError, match="no val images"):
        Npz(path=tmp_path)().part("val")


def test_the_checksum_stands_for_the_files(tmp_path):
    splits = Npz(path=write(tmp_path))()
    assert Npz(path=tmp_path, checksum=splits.checksum)().checksum == splits.checksum
    write(tmp_path, seed=1)
    with pytest.raises(UserError, match=r"not those of this run.*data\.path=DIR"):
        Npz(path=tmp_path, checksum=splits.checksum)()


def test_splits_must_agree(tmp_path):
    write(tmp_path, names=["a", "b", "c", "d"])
    test = dict(np.load(tmp_path / "test.npz"))
    np.savez(tmp_path / "test.npz", **{**test, "class_names": np.array(["a", "b", "c", "x"])})
    with pytest.raises(UserError, match="different classes"):
        Npz(path=tmp_path)()
    np.savez(tmp_path / "test.npz", **{**test, "images": test["images"][:, :4, :4]})
    with pytest.raises(UserError, match="make them equal"):
        Npz(path=tmp_path)()


def test_unnamed_classes_are_counted_over_both_parts(tmp_path):
    write(tmp_path)
    test = dict(np.load(tmp_path / "test.npz"))
    np.savez(tmp_path / "test.npz", images=test["images"], labels=np.zeros(8, dtype=np.int64))
    assert Npz(path=tmp_path)().class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("kind", [Npz, Folder])
def test_missing_path_names_the_remedy(kind, tmp_path):
    with pytest.raises(UserError, match=r"data\.path=DIR"):
        kind()()
    with pytest.raises(UserError, match="nowhere"):
        kind(path=tmp_path / "nowhere")()


def test_sizes_that_leave_nothing_to_train_on_are_refused(tmp_path):
    write(tmp_path)
    for n_val in (20, 25):
        with pytest.raises(UserError, match=rf"n_train \+ n_val is {n_val + 1}, but there are 20 training"):
            Npz(path=tmp_path, n_val=n_val)()


class TestWithoutTrainingImages:
    """A folder with `test.npz` alone is for measuring: nothing but training images is missing."""

    def test_the_test_part_is_that_of_the_whole_folder(self, tmp_path):
        whole = Npz(path=write(tmp_path, names=list("abcd")))()
        (tmp_path / "train.npz").unlink()
        splits = Npz(path=tmp_path)()
        assert torch.equal(splits.part("test").images, whole.test.images)
        assert torch.equal(splits.test.labels, whole.test.labels)
        assert splits.class_names == ("a", "b", "c", "d")
        assert splits.train.images.shape == splits.val.images.shape == (0, 3, 6, 6)
        assert splits.checksum != whole.checksum
        assert Npz(path=tmp_path, checksum=splits.checksum)().checksum == splits.checksum

    @pytest.mark.parametrize("changes", [{"n_test": 3}, {"n_test": 4, "balanced": True}])
    def test_the_test_part_may_be_cut(self, tmp_path, changes):
        write(tmp_path)
        (tmp_path / "train.npz").unlink()
        splits = Npz(path=tmp_path, **changes)()
        assert (len(splits.train), len(splits.val), len(splits.test)) == (0, 0, changes["n_test"])

    def test_asking_for_training_images_is_refused(self, tmp_path):
        write(tmp_path)
        (tmp_path / "train.npz").unlink()
        with pytest.raises(UserError, match="no training images"):
            Npz(path=tmp_path)().part("train")
        with pytest.raises(UserError, match="no val images"):
            Npz(path=tmp_path)().part("val")
        for sizes, n in (({"n_train": 2}, 2), ({"n_val": 2}, 3), ({"n_train": 4, "n_val": 1}, 5)):
            with pytest.raises(UserError, match=rf"is {n}, but there are 0 training images"):
                Npz(path=tmp_path, **sizes)()

    def test_other_files_are_still_missed(self, tmp_path):
        write(tmp_path)
        (tmp_path / "test.npz").unlink()
        with pytest.raises(UserError, match=r"test\.npz: there is no such file"):
            Npz(path=tmp_path)()
        (tmp_path / "train.npz").unlink()
        with pytest.raises(UserError, match=r"train\.npz: there is no such file"):
            Npz(path=tmp_path)()


def test_checksums_are_pinned(tmp_path):
    # a changed checksum locks every user out of the runs that were trained on files
    assert Digits()().checksum == "1344490ab8cca81f"
    assert Npz(path=write(tmp_path), n_train=9, n_val=3)().checksum == "9f3f85609eeeea47"
    assert Npz(path=tmp_path, n_train=9, n_val=3, balanced=True)().checksum == "8e86e5ef0e92628b"


def make_cifar(folder, batches, key):
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(3).integers(0, 256, (len(batches), 8, 3072), dtype=np.uint8)
    for name, rows in zip(batches, pixels, strict=True):
        content = {key: [i % 4 for i in range(8)], b"data": rows}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def make_cifar10(place, patch):
    make_cifar(place / "cifar-10-batches-py", list(cifar.CIFAR10.layout.md5)[:-1], b"labels")
    patch.setattr(cifar, "verified", lambda path, md5, copy: path.read_bytes())


def make_cifar100(place, patch):
    patch.setattr(
        CIFAR100, "layout", CIFAR100.layout._replace(splits={"train": ("train", "more"), "test": ("test",)})
    )
    patch.setitem(cifar.CIFAR100.layout.md5, "more", "")
    make_cifar(place / "cifar-100-python", ["train", "more", "test"], b"fine_labels")
    names = pickle.dumps({b"fine_label_names": [f"class {i}".encode() for i in range(100)]}, protocol=2)
    (place / "cifar-100-python" / "meta").write_bytes(names)
    patch.setattr(cifar, "verified", lambda path, md5, copy: path.read_bytes())


def make_pictures(places):
    g = np.random.default_rng(4)
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(g.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)


def make_tiny_imagenet(place, patch):
    patch.setattr(tiny_imagenet, "CLASSES", 4)
    patch.setattr(tiny_imagenet, "PER_CLASS", {"train": 5, "test": 2})
    home, wnids = place / "tiny-imagenet-200", [f"n0000000{i}" for i in (4, 3, 1, 2)]
    make_pictures(home / "train" / w / "images" / f"{w}_{i}.JPEG" for w in wnids for i in range(5))
    make_pictures(home / "val" / "images" / f"val_{i}.JPEG" for i in range(8))
    (home / "wnids.txt").write_text("\n".join(wnids))
    (home / "words.txt").write_text("".join(f"{w}\tword {w[-1]}, other\n" for w in wnids))
    rows = [f"val_{i}.JPEG\t{wnids[i % 4]}\t0\t0\t1\t1\n" for i in range(8)]
    (home / "val" / "val_annotations.txt").write_text("".join(rows))


def make_folder(place, patch):
    make_pictures(place / "train" / c / f"{i}.png" for c in "abcd" for i in range(5))
    make_pictures(place / "test" / c / f"{i}.png" for c in "abcd" for i in range(2))


MADE = {
    "shapes": None,
    "digits": None,
    "npz": lambda place, patch: write(place),
    "folder": make_folder,
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "tiny_imagenet": make_tiny_imagenet,
}
"""How to make a small one of each kind: at least 16 training and 8 test images of 4 classes."""
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
    def test_validation_follows_training(self, made):
        splits, whole = made.replace(n_train=9, n_val=5)(), made.replace(n_train=14, n_val=0)()
        assert torch.equal(torch.cat([splits.train.images, splits.val.images]), whole.train.images)
        assert torch.equal(torch.cat([splits.train.labels, splits.val.labels]), whole.train.labels)

    @cut
    def test_can_be_balanced(self, made):
        present = len(made().train.labels.unique())
        cut = made.replace(n_train=present, n_val=min(present, 4), n_test=min(present, 4), balanced=True)
        splits, other = cut(), cut.replace(subset_seed=1)()
        assert sorted(splits.train.labels.tolist()) == list(range(present))
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
    [("cifar10", (40, 8, 10)), ("cifar100", (16, 8, 100)), ("tiny_imagenet", (20, 8, 4))],
    indirect=["made"],
)
def test_published_sets_are_read_whole(made, sizes):
    splits = made()
    assert (len(splits.train), len(splits.test), len(splits.class_names)) == sizes
    assert not hasattr(made, "checksum")  # their content is known, so that it is no part of a run


@pytest.mark.parametrize("made", ["tiny_imagenet"], indirect=True)
class TestTinyImageNet:
    def test_what_is_held_out_has_equally_many_of_each_class(self, made):
        splits = made.replace(n_val=8)()
        assert splits.val.labels.bincount().tolist() == [2, 2, 2, 2]
        assert splits.train.labels.bincount().tolist() == [3, 3, 3, 3]
        assert splits.class_names == ("word 4", "word 3", "word 1", "word 2")

    def test_classes_may_be_sorted_as_in_image_folders(self, made):
        usual, splits = made(), made.replace(class_order="sorted")()
        assert splits.class_names == ("word 1", "word 2", "word 3", "word 4")
        for name in ("train", "test"):
            a, b = usual.part(name), splits.part(name)
            assert torch.equal(a.images, b.images)
            assert [usual.class_names[i] for i in a.labels] == [splits.class_names[i] for i in b.labels]
        assert made.replace(class_order="sorted").digest() != made.digest()


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


def test_digits_are_real_and_cut():
    splits = Digits()()
    assert (len(splits.train), len(splits.val), len(splits.test)) == (1200, 300, 297)
    assert splits.train.images.shape[1:] == (1, 8, 8)


class TestShapes:
    def test_same_seed_same_pictures_other_seed_others(self):
        small = Shapes(n_train=12, n_val=6, n_test=6)
        a, b = small(), small()
        assert torch.equal(a.train.images, b.train.images)
        assert a.checksum == b.checksum
        assert small.replace(seed=1)().checksum != a.checksum
        assert not torch.equal(a.train.images[:6], a.test.images)

    def test_a_longer_draw_is_as_balanced(self):
        assert torch.bincount(Shapes(n_train=60)().train.labels).tolist() == [10] * 6

    def test_the_truth_is_the_planted_graph(self):
        splits = Shapes(n_train=6, n_val=0, n_test=6, classes=4, edges=((0, 3), (1, 2)))()
        expected = torch.eye(4, dtype=torch.int64)
        expected[0, 3] = expected[3, 0] = expected[1, 2] = expected[2, 1] = 1
        assert torch.equal(splits.sharing, expected)

    def test_parts_are_mutually_dissimilar(self):
        similarity = shapes.part_similarity(shapes.MAX_PARTS, 12)
        assert torch.allclose(similarity.diag(), torch.ones(shapes.MAX_PARTS), atol=1e-5)
        similarity.fill_diagonal_(0)
        assert similarity.max() < 0.5
        similarity = shapes.part_similarity(10, 12)  # those of the default data set
        similarity.fill_diagonal_(0)
        assert similarity.max() < 0.3

    def test_a_class_shows_its_parts_and_no_others(self):
        # without noise: correlate every image with every part; the two shown parts stand out
        n, k, edges = 12, 4, ((0, 1), (2, 3))
        g = generator(0, 0, 0, "shapes")
        images, labels, *_ = shapes.draw(n, k, edges, 32, mu=0.4, sigma=0.0, noise=0.0, g=g)
        x = images.float() / 255 - 0.5
        stamps = torch.stack([shapes.part(p, 12) for p in range(k + len(edges))])
        response = torch.nn.functional.conv2d(x, stamps).amax(dim=(2, 3))
        for m in range(n):
            i = int(labels[m])
            shown = {i} | {k + e for e, pair in enumerate(edges) if i in pair}
            assert set(response[m].topk(len(shown)).indices.tolist()) == shown

    def test_strengths_have_the_planted_mean_and_spread(self):
        g = generator(1, 0, 0, "shapes")
        images, labels, *_ = shapes.draw(800, 2, (), 16, mu=0.2, sigma=0.05, noise=0.0, g=g)
        x = images.double() / 255 - 0.5
        energy = x[labels == 0].flatten(1).norm(dim=1)
        full = shapes.part(0, 12).double().norm()
        strength = energy / full  # |s| times the tint's root mean square
        assert abs(float(strength.mean()) - 0.2) < 0.01
        assert abs(float(strength.std()) - 0.05) < 0.015

    def test_any_size_and_number_of_classes(self):
        splits = Shapes(n_train=11, n_val=0, n_test=11, classes=11, size=24)()
        assert splits.train.images.shape == (11, 3, 24, 24)
        assert len(set(splits.class_names)) == 11
        with pytest.raises(ValueError, match="dissimilar parts"):
            Shapes(classes=20)


class TestAugment:
    x = torch.arange(2 * 5 * 5, dtype=torch.uint8).view(1, 2, 5, 5).repeat(64, 1, 1, 1)

    def test_equals_padding_and_slicing_one_by_one(self):
        for padding in ("reflect", "zero"):
            augment = Augment(crop=2, padding=padding, flip=False)
            out = augment(self.x, torch.Generator().manual_seed(0))
            shift = torch.randint(0, 5, (2, 64), generator=torch.Generator().manual_seed(0))
            mode = {"reflect": "reflect", "zero": "constant"}[padding]
            padded = torch.nn.functional.pad(self.x.float(), (2, 2, 2, 2), mode=mode)
            for m in range(64):
                a, b = int(shift[0, m]), int(shift[1, m])
                assert torch.equal(out[m].float(), padded[m, :, a : a + 5, b : b + 5])

    def test_every_sample_has_its_own_draw(self):
        out = Augment(crop=2)(self.x, torch.Generator().manual_seed(0))
        assert len({tuple(image.flatten().tolist()) for image in out}) > 20
        flips = Augment(crop=0)(self.x, torch.Generator().manual_seed(0))
        mirrored = (flips != self.x).flatten(1).any(dim=1).float().mean()
        assert 0.25 < float(mirrored) < 0.75

    def test_the_global_stream_is_untouched(self):
        before = torch.random.get_rng_state()
        Augment()(self.x, torch.Generator().manual_seed(0))
        assert torch.equal(before, torch.random.get_rng_state())

    def test_reflection_needs_room(self):
        with pytest.raises(UserError, match=r"augment\.padding=zero"):
            Augment(crop=5)(self.x, torch.Generator())


def test_batches_visit_every_image_once():
    for n, size in ((10, 3), (9, 3), (1, 4)):
        for g in (None, torch.Generator().manual_seed(0)):
            indices = torch.cat(batches(n, size, g))
            assert sorted(indices.tolist()) == list(range(n))
    assert torch.cat(batches(5, 2, None)).tolist() == [0, 1, 2, 3, 4]


def test_bytes_become_unit_range():
    assert as_float(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)).flatten().tolist() == [
        0.0,
        pytest.approx(0.2),
        1.0,
    ]


def test_raw_is_plain():
    assert ArraySplit._fields == ("images", "labels", "class_names")
