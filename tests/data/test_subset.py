"""Which images a run uses: parts that do not overlap, in file or balanced order, and their checksum."""

import numpy as np
import pytest
import torch

from crossclass.core.errors import UserError
from crossclass.data import Digits, Npz, Split
from dataset_files import numbered_npz


def serial(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_parts_follow_each_other_in_file_order(tmp_path):
    splits = Npz(path=numbered_npz(tmp_path), n_train=10, n_val=4, n_test=3)()
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
    assert Npz(path=numbered_npz(tmp_path), n_train=9, n_val=3)().checksum == "9f3f85609eeeea47"
    assert Npz(path=tmp_path, n_train=9, n_val=3, balanced=True)().checksum == "8e86e5ef0e92628b"
