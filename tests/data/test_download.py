"""Readers: made CIFAR-10 comes back exactly, every fault is one sentence; digits, and checksums."""

import hashlib
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossclass.data import cifar
from crossclass.data.base import checksum
from crossclass.data.cifar import CIFAR10, CIFAR100, read_cifar10
from crossclass.data.digits import read_digits
from dataset_files import NAMES, Runs, batch, contents, is_made_cifar10, python2_batch, trust
from reader_contract import LABELS, RGB, npz, refused, sound

# digits


def test_digits() -> None:
    raw = sound(read_digits())
    assert raw.images.shape == (1797, 8, 8, 1)
    assert raw.class_names == tuple("0123456789")
    assert set(np.unique(raw.images)) == {round(v * 255 / 16) for v in range(17)}
    np.testing.assert_array_equal(raw.labels[:10], range(10))
    # The first scan, a zero, as scikit-learn's documentation prints it.
    np.testing.assert_array_equal(
        raw.images[0, 0, :, 0], [round(v * 255 / 16) for v in (0, 0, 5, 13, 9, 1, 0, 0)]
    )


# CIFAR-10


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made CIFAR-10, unpacked, with its checksums in the table."""
    home = tmp_path / "data" / "cifar-10-batches-py"
    home.mkdir(parents=True)
    for name, data in contents().items():
        (home / name).write_bytes(data)
        trust(monkeypatch, home / name)
    return home


def test_cifar_tables_are_whole() -> None:
    """Names, addresses and checksums as published (and as in torchvision/datasets/cifar.py)."""
    assert set(CIFAR10.layout.md5) == set(NAMES)
    assert set(CIFAR100.layout.md5) == {"train", "test", "meta"}
    assert CIFAR10.layout.archive.url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert CIFAR100.layout.archive.url == "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    assert (CIFAR10.layout.archive.name, CIFAR100.layout.archive.name) == (
        "cifar-10-python.tar.gz",
        "cifar-100-python.tar.gz",
    )
    digests = [
        *CIFAR10.layout.md5.values(),
        *CIFAR100.layout.md5.values(),
        CIFAR10.layout.archive.md5,
        CIFAR100.layout.archive.md5,
    ]
    assert {len(digest) for digest in digests} == {32}
    assert len(set(digests)) == len(digests)
    published = (
        "16019d7e3df5f24257cddd939b257f8d f0ef6b0ae62326f3e7ffdfab6717acfc 7973b15100ade9c7d40fb424638fde48"
    )
    assert " ".join(CIFAR100.layout.md5[name] for name in ("train", "test", "meta")) == published
    assert CIFAR100.layout.archive.md5 == "eb9058c3a382ffc7106e4002c42a8d85"
    assert CIFAR10.layout.archive.md5 == "c58f30108f718f92721af3b95e74349a"


def test_cifar10_unpacked(batches: Path) -> None:
    for folder in (batches, batches.parent):
        is_made_cifar10(read_cifar10(folder, "train"), read_cifar10(folder, "test"))


def test_cifar10_as_python_2_wrote_it(batches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (batches / "test_batch").write_bytes(python2_batch())
    trust(monkeypatch, batches / "test_batch")
    raw = sound(read_cifar10(batches, "test"))
    row = np.tile(np.arange(256, dtype=np.uint8), 12)
    np.testing.assert_array_equal(raw.images[0], row.reshape(3, 32, 32).transpose(1, 2, 0))
    np.testing.assert_array_equal(raw.labels, [7])


def test_cifar10_unknown_split(batches: Path) -> None:
    refused(read_cifar10, batches, "val", says=("'val'", "test, train"))


def test_cifar10_not_found(tmp_path: Path) -> None:
    says = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "data.download=true", "170 MB")
    for folder in (tmp_path, tmp_path / "absent"):
        message = refused(read_cifar10, folder, "train", says=(str(folder), *says))
        assert "data.kind" not in message
    path = npz(tmp_path)
    refused(read_cifar10, tmp_path, "train", says=(*says, "data.kind=npz"))
    refused(read_cifar10, path, "train", says=(str(path), *says))


def test_cifar10_with_a_missing_batch(batches: Path) -> None:
    (batches / "data_batch_3").unlink()
    says = (str(batches / "data_batch_3"), "No such file", "data.download=true")
    refused(read_cifar10, batches, "train", says=says)
    read_cifar10(batches, "test")


def test_cifar10_checksum_comes_before_unpickling(batches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = batches / "data_batch_5"
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    def unpickled(*_: Any, **__: Any) -> None:
        raise AssertionError("data_batch_5 was unpickled")

    monkeypatch.setitem(CIFAR10.layout.splits, "train", ("data_batch_5",))
    monkeypatch.setattr(cifar, "ArraysOnly", unpickled)
    says = (str(path), "wrong checksum", "data.download=true")
    refused(read_cifar10, batches, "train", says=says)


def test_cifar10_malicious_pickle_is_not_executed(
    batches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksum is right, so that only the unpickler stands between it and the machine."""
    path, touched = batches / "test_batch", tmp_path / "touched"
    attacks = {
        "system": Runs(os.system, f"touch {touched}"),
        "eval": Runs(eval, f"open({str(touched)!r}, 'w').close()"),
        "getattr": Runs(getattr, "x", "upper"),
        "load": Runs(np.load, str(touched)),
    }
    for name, attack in attacks.items():
        for protocol in (0, 2, 5):
            path.write_bytes(pickle.dumps({b"data": attack}, protocol=protocol))
            trust(monkeypatch, path)
            says = (str(path), f"{name} is refused", "data.download=true")
            refused(read_cifar10, batches, "test", says=says)
    assert not touched.exists()
    pickle.loads(pickle.dumps(attacks["system"]))
    assert touched.exists()  # so it would have been


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        batch(5)[:-100],
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps({b"data": b"x", b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.int32), b"labels": [1, 2]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 99), np.uint8), b"labels": [1, 2]}, protocol=2),
    ],
)
def test_cifar10_batch_of_other_contents(batches: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    path = batches / "test_batch"
    path.write_bytes(data)
    trust(monkeypatch, path)
    says = (str(path), "no CIFAR-10 batch", "data.download=true")
    refused(read_cifar10, batches, "test", says=says)


def test_cifar10_download_asks_nothing_of_the_network_if_all_is_here(
    batches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    monkeypatch.setattr(pooch, "retrieve", None)
    read_cifar10(batches.parent, "train", True)


# checksum


def test_checksum() -> None:
    known = hashlib.sha256(b"|u1(2,)\x01\x02" + b"<i8(1,)" + struct.pack("<q", 3)).hexdigest()[:16]
    assert checksum(np.array([1, 2], np.uint8), np.array([3])) == known
    rows = np.array([[1, 2], [3, 4]], np.uint8)
    assert checksum(rows) == hashlib.sha256(b"|u1(2, 2)\x01\x02\x03\x04").hexdigest()[:16]
    different = [
        (RGB,),
        (RGB[:4],),
        (RGB.reshape(5, 6, 4, 3),),
        (RGB.view(np.int8),),
        (RGB, LABELS),
        (LABELS, RGB),
        (RGB ^ np.eye(4, 6, dtype=np.uint8)[..., None],),
        (RGB[:0],),
        (),
    ]
    assert len({checksum(*arrays) for arrays in different}) == len(different)
    assert all(len(checksum(*a)) == 16 and int(checksum(*a), 16) >= 0 for a in different)
    # What counts is the values, not how they lie in memory.
    assert checksum(np.asfortranarray(RGB)) == checksum(RGB)
    assert checksum(RGB[:, ::-1][:, ::-1]) == checksum(RGB)
