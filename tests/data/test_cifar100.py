"""CIFAR-100: a made one comes back exactly, and is not taken for CIFAR-10."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from crossclass.data.cifar import read_cifar10, read_cifar100
from dataset_files import Runs, contents100, is_made_cifar100, member, serve, tar, trust
from reader_contract import refused


@pytest.fixture
def fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made CIFAR-100, unpacked, with its checksums in the table."""
    home = tmp_path / "data" / "cifar-100-python"
    home.mkdir(parents=True)
    for name, data in contents100().items():
        (home / name).write_bytes(data)
        trust(monkeypatch, home / name, "CIFAR100")
    return home


@pytest.fixture
def fine_archive(fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as an archive, with members beside that must stay in it."""
    inside = [member(f"cifar-100-python/{name}", data) for name, data in contents100().items()]
    strange = [member("../evil", b"x"), member("cifar-100-python/file.txt~", b"x"), member("train", b"x")]
    path = tar(tmp_path / "data" / "cifar-100-python.tar.gz", [*strange, *inside])
    trust(monkeypatch, path, "CIFAR100")
    for name in contents100():
        (fine / name).unlink()
    fine.rmdir()
    return path


def test_cifar100_unpacked(fine: Path) -> None:
    is_made_cifar100(fine)
    is_made_cifar100(fine.parent)


def test_cifar100_archive_is_unpacked_once(fine_archive: Path, tmp_path: Path) -> None:
    is_made_cifar100(fine_archive.parent)
    fine_archive.unlink()
    is_made_cifar100(fine_archive.parent)
    assert {path.name for path in tmp_path.rglob("*")} == {
        "data",
        "cifar-100-python",
        "train",
        "test",
        "meta",
    }


def test_cifar100_download(fine_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = fine_archive.rename(tmp_path / "served")
    asked = serve(monkeypatch, served)
    read_cifar100(tmp_path / "new", "train", True)
    is_made_cifar100(tmp_path / "new")
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"]


def test_cifar100_faults(fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(read_cifar100, fine, "val", says=("CIFAR-100", "'val'", "test, train"))
    says = ("cifar-100-python", "cifar-100-python.tar.gz", "data.download=true", "169 MB")
    refused(read_cifar100, tmp_path, "train", says=says)
    touched = tmp_path / "touched"
    (fine / "meta").write_bytes(pickle.dumps({b"fine_label_names": Runs(os.system, f"touch {touched}")}))
    says = (str(fine / "meta"), "wrong checksum", f"delete {fine} and use data.download=true")
    refused(read_cifar100, fine, "train", says=says)
    trust(monkeypatch, fine / "meta", "CIFAR100")
    says = (str(fine / "meta"), "names no CIFAR-100 classes", "is refused", f"delete {fine}")
    refused(read_cifar100, fine, "train", says=says)
    assert not touched.exists()
    (fine / "test").write_bytes(pickle.dumps({b"labels": [1, 2], b"data": np.zeros((2, 3072), np.uint8)}))
    trust(monkeypatch, fine / "test", "CIFAR100")
    refused(read_cifar100, fine, "test", says=(str(fine / "test"), "no CIFAR-100 batch", "fine_labels"))
    (fine / "train").unlink()
    refused(read_cifar100, fine, "train", says=(str(fine / "train"), "No such file", f"delete {fine}"))


def test_the_two_cifars_are_told_apart(fine: Path, tmp_path: Path) -> None:
    refused(read_cifar10, fine.parent, "train", says=("cifar-10-batches-py", "data.kind=cifar100"))
    (tmp_path / "ten" / "cifar-10-batches-py").mkdir(parents=True)
    refused(read_cifar100, tmp_path / "ten", "train", says=("cifar-100-python", "data.kind=cifar10,"))
