"""Which images a run uses: parts that do not overlap, in file or balanced order, and their checksum."""

import numpy as np
import pytest
import torch

from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.data import Digits, Npz, Split
from crossclass.data.draw import draw
from dataset_files import numbered_npz


def serial(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_parts_follow_each_other_in_file_order(tmp_path):
    splits = Npz(path=numbered_npz(tmp_path), n_train=10, n_val=4, n_test=3, balanced=False)()
    assert serial(splits.train) == list(range(10))
    assert serial(splits.val) == [10, 11, 12, 13]
    assert serial(splits.test) == [0, 1, 2]
    assert splits.train.images.shape == (10, 3, 6, 6)
    assert splits.class_names == ("0", "1", "2", "3")


def test_unset_sizes_take_all_and_hold_the_validation_part_out(tmp_path):
    splits = Npz(path=numbered_npz(tmp_path), n_val=5)()
    assert (len(splits.train), len(splits.val), len(splits.test)) == (15, 5, 8)
    assert not set(serial(splits.train)) & set(serial(splits.val))


def test_balanced_parts_are_balanced_seeded_and_disjoint(tmp_path):
    where = numbered_npz(tmp_path, n_train=40)
    data = Npz(path=where, n_train=12, n_val=8, balanced=True)
    splits = data()
    assert torch.bincount(splits.train.labels).tolist() == [3, 3, 3, 3]
    assert torch.bincount(splits.val.labels).tolist() == [2, 2, 2, 2]
    assert not set(serial(splits.train)) & set(serial(splits.val))
    assert serial(data().train) == serial(splits.train)
    assert serial(data.replace(subset_seed=1)().train) != serial(splits.train)


def sorted_npz(folder, counts=(20, 20, 20, 20)):
    """Images sorted by class, as those of a folder are; `counts` of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 6, 6, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", images=images, labels=labels)
    return folder


def counts(split: Split) -> list[int]:
    return torch.bincount(split.labels).tolist()


def test_a_part_of_a_sorted_file_has_all_classes(tmp_path):
    data = Npz(path=sorted_npz(tmp_path), n_train=12, n_val=8, n_test=20)
    splits = data()
    assert list(map(counts, (splits.train, splits.val, splits.test))) == [[3] * 4, [2] * 4, [5] * 4]
    assert splits.checksum == data.replace(balanced=True)().checksum
    ordered = data.replace(balanced=False)()
    assert (serial(ordered.train), serial(ordered.test)) == (list(range(12)), list(range(20)))


def test_a_whole_file_keeps_its_order(tmp_path):
    splits = Npz(path=sorted_npz(tmp_path), n_test=80)()
    assert serial(splits.train) == serial(splits.test) == list(range(80))
    held_out = Npz(path=tmp_path, n_val=8)()
    assert counts(held_out.val) == [2] * 4
    assert sorted(serial(held_out.train) + serial(held_out.val)) == list(range(80))


def test_every_part_has_its_share_of_a_rare_class(tmp_path):
    """90 images of 10, 30 and 50: the 18 that are held out are a fifth of each class, not of the largest."""
    splits = Npz(path=sorted_npz(tmp_path, (10, 30, 50)), n_val=18, n_test=15)()
    assert (counts(splits.val), counts(splits.train)) == ([2, 6, 10], [8, 24, 40])
    assert counts(splits.test) == [5, 5, 5]
    assert counts(Npz(path=tmp_path, n_test=46)().test) == [10, 18, 18]  # a class gives what it has


def test_fewer_images_than_classes_are_of_any_classes():
    labels = np.repeat(np.arange(20), 5)
    drawn = [draw(labels, (3,), seed, 0)[0] for seed in range(40)]
    assert all(len(set(labels[d])) == 3 for d in drawn)
    assert len({int(label) for d in drawn for label in labels[d]}) >= 18


def test_draws_are_those_of_the_formula_on_every_platform():
    """By turns over the classes, by noise within them, ties by index: written out where noise has ties."""
    labels = np.arange(60_000) % 3
    noise = torch.rand(60_000, generator=generator(5, 2, 0, "subset")).tolist()
    assert len(set(noise)) < 60_000
    by_class = [sorted(range(k, 60_000, 3), key=lambda i: (noise[i], i)) for k in range(3)]
    (drawn,) = draw(labels, (30_000,), 5, 2)
    assert drawn.tolist() == [by_class[k][t] for t in range(10_000) for k in range(3)]
    assert draw(np.arange(12) % 4, (8,), 0, 0)[0].tolist() == [0, 5, 6, 3, 4, 1, 10, 11]


def test_images_in_memory_are_drawn_over_all_of_them():
    part = Split(torch.arange(80).view(80, 1, 1, 1).byte(), torch.arange(80) // 20)
    drawn = part.drawn(20, seed=3)
    assert counts(drawn) == [5] * 4
    assert torch.equal(drawn.images, part.take(part.sample(20, 3)).images)
    assert not torch.equal(drawn.images, part.drawn(20, seed=4).images)
    assert torch.equal(part.drawn(8, seed=3).images, drawn.images[:8])
    assert torch.equal(part.drawn(20, 3, balanced=False).images, part.images[:20])
    for all_of_it in (None, 80, 100):
        assert part.drawn(all_of_it, seed=3).images.data_ptr() == part.images.data_ptr()
    assert part.sample(100, 3).tolist() == list(range(80))


def test_too_many_images_are_refused(tmp_path):
    numbered_npz(tmp_path)
    with pytest.raises(UserError, match=r"n_train \+ n_val is 24, but there are 20 training images"):
        Npz(path=tmp_path, n_train=20, n_val=4)()
    for n_val in (20, 25):  # nothing would be left to train on
        with pytest.raises(UserError, match=rf"n_train \+ n_val is {n_val + 1}, but there are 20 training"):
            Npz(path=tmp_path, n_val=n_val)()
    with pytest.raises(UserError, match="n_test is 9, but there are 8"):
        Npz(path=tmp_path, n_test=9)()
    with pytest.raises(UserError, match="no val images"):
        Npz(path=tmp_path)().part("val")


def test_the_checksum_stands_for_the_files(tmp_path):
    splits = Npz(path=numbered_npz(tmp_path))()
    assert Npz(path=tmp_path, checksum=splits.checksum)().checksum == splits.checksum
    numbered_npz(tmp_path, seed=1)
    with pytest.raises(UserError, match=r"not those of this run.*data\.path=DIR"):
        Npz(path=tmp_path, checksum=splits.checksum)()


def test_splits_must_agree(tmp_path):
    numbered_npz(tmp_path, names=["a", "b", "c", "d"])
    test = dict(np.load(tmp_path / "test.npz"))
    np.savez(tmp_path / "test.npz", **{**test, "class_names": np.array(["a", "b", "c", "x"])})
    with pytest.raises(UserError, match="different classes"):
        Npz(path=tmp_path)()
    np.savez(tmp_path / "test.npz", **{**test, "images": test["images"][:, :4, :4]})
    with pytest.raises(UserError, match="make them equal"):
        Npz(path=tmp_path)()


def test_unnamed_classes_are_counted_over_both_parts(tmp_path):
    numbered_npz(tmp_path)
    test = dict(np.load(tmp_path / "test.npz"))
    np.savez(tmp_path / "test.npz", images=test["images"], labels=np.zeros(8, dtype=np.int64))
    assert Npz(path=tmp_path)().class_names == ("0", "1", "2", "3")


class TestWithoutTrainingImages:
    """A folder with `test.npz` alone is for measuring: nothing but training images is missing."""

    def test_the_test_part_is_that_of_the_whole_folder(self, tmp_path):
        whole = Npz(path=numbered_npz(tmp_path, names=list("abcd")))()
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
        numbered_npz(tmp_path)
        (tmp_path / "train.npz").unlink()
        splits = Npz(path=tmp_path, **changes)()
        assert (len(splits.train), len(splits.val), len(splits.test)) == (0, 0, changes["n_test"])

    def test_asking_for_training_images_is_refused(self, tmp_path):
        numbered_npz(tmp_path)
        (tmp_path / "train.npz").unlink()
        with pytest.raises(UserError, match="no training images"):
            Npz(path=tmp_path)().part("train")
        with pytest.raises(UserError, match="no val images"):
            Npz(path=tmp_path)().part("val")
        for sizes, n in (({"n_train": 2}, 2), ({"n_val": 2}, 3), ({"n_train": 4, "n_val": 1}, 5)):
            with pytest.raises(UserError, match=rf"is {n}, but there are 0 training images"):
                Npz(path=tmp_path, **sizes)()

    def test_other_files_are_still_missed(self, tmp_path):
        numbered_npz(tmp_path)
        (tmp_path / "test.npz").unlink()
        with pytest.raises(UserError, match=r"test\.npz: there is no such file"):
            Npz(path=tmp_path)()
        (tmp_path / "train.npz").unlink()
        with pytest.raises(UserError, match=r"train\.npz: there is no such file"):
            Npz(path=tmp_path)()


def test_checksums_are_pinned(tmp_path):
    # a changed checksum locks every user out of the runs that were trained on files
    assert Digits()().checksum == "1344490ab8cca81f"
    assert (
        Npz(path=numbered_npz(tmp_path), n_train=9, n_val=3, balanced=False)().checksum == "9f3f85609eeeea47"
    )
    assert Npz(path=tmp_path, n_train=9, n_val=3)().checksum == "f92282e831736078"
    assert Npz(path=tmp_path, n_train=9, n_val=3, balanced=True)().checksum == "8e86e5ef0e92628b"


def test_a_proportional_draw_has_the_shares_of_the_set():
    """80 + 16 + 4 images: a quarter of each, and a class that would round to nothing gives one."""
    labels = torch.tensor([0] * 160 + [1] * 36 + [2] * 3 + [3])
    part = Split(torch.zeros(200, 1, 1, 1, dtype=torch.uint8), labels)
    for seed in range(5):
        got = counts(part.drawn(50, seed, proportional=True))
        assert abs(got[0] - 40) <= 1
        assert abs(got[1] - 9) <= 1
        assert got[2:] == [1, 1]
    assert counts(part.drawn(50, 0))[:2] == [23, 23]


def test_of_classes_of_one_size_both_draws_are_the_same():
    part = Split(torch.arange(80).view(80, 1, 1, 1).byte(), torch.arange(80) // 20)
    for n in (3, 10, 42):
        assert part.sample(n, 3).tolist() == part.sample(n, 3, proportional=True).tolist()
