"""Data sets: parts that do not overlap, seeded order, augmentation per sample, files that stay the same."""

import numpy as np
import pytest
import torch

from crossclass import readers, shapes
from crossclass.augment import Augment
from crossclass.data import Digits, Folder, Npz, Shapes, Split, as_float, batches
from crossclass.errors import UserError
from crossclass.streams import generator


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
    assert serial(data.but(subset_seed=1)().train) != serial(splits.train)


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
        assert small.but(seed=1)().checksum != a.checksum
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
        images, labels = shapes.draw(n, k, edges, 32, mu=0.4, sigma=0.0, noise=0.0, generator=g)
        x = images.float() / 255 - 0.5
        stamps = torch.stack([shapes.part(p, 12) for p in range(k + len(edges))])
        response = torch.nn.functional.conv2d(x, stamps).amax(dim=(2, 3))
        for m in range(n):
            i = int(labels[m])
            shown = {i} | {k + e for e, pair in enumerate(edges) if i in pair}
            assert set(response[m].topk(len(shown)).indices.tolist()) == shown

    def test_strengths_have_the_planted_mean_and_spread(self):
        g = generator(1, 0, 0, "shapes")
        images, labels = shapes.draw(800, 2, (), 16, mu=0.2, sigma=0.05, noise=0.0, generator=g)
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
    assert readers.Raw._fields == ("images", "labels", "class_names")
