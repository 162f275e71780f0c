"""CIFAR-10 and CIFAR-100: made ones come back exactly, and every fault is one sentence."""

import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossclass.data import CIFAR10, CIFAR100, cifar, download as archives
from crossclass.data.cifar import Cifar, read_cifar
from dataset_files import (
    PIXELS,
    batch,
    cifar10_files,
    cifar100_files,
    is_made_cifar,
    member,
    npz,
    put_cifar,
    refused,
    serve,
    sound,
    tar,
    trust,
)

FILES: dict[type[Cifar], Callable[[], dict[str, bytes]]] = {CIFAR10: cifar10_files, CIFAR100: cifar100_files}
both = pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.__name__)


def read(kind: type[Cifar] = CIFAR10) -> Callable[..., Any]:
    return partial(read_cifar, kind.layout)


def members(kind: type[Cifar] = CIFAR10, **replaced: Any) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The members of a sound archive, some of them replaced, or left out where None is given."""
    folder = kind.layout.archive.folder
    files = {**FILES[kind](), "readme.html": b"<html>"}
    inside = {n: member(f"{folder}/{n}", data) for n, data in files.items()}
    kept = [m for m in {**inside, **replaced}.values() if m is not None]
    return [member(folder, kind=tarfile.DIRTYPE), *kept]


@pytest.fixture
def kind() -> type[Cifar]:
    """CIFAR-10, where the test does not ask for both."""
    return CIFAR10


@pytest.fixture
def home(kind: type[Cifar], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made data set, unpacked, with its checksums in the table."""
    return put_cifar(monkeypatch, kind, tmp_path / "data", FILES[kind]())


@pytest.fixture
def archive(kind: type[Cifar], home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as an archive."""
    for path in home.iterdir():
        path.unlink()
    home.rmdir()
    path = tar(home.parent / kind.layout.archive.name, members(kind))
    trust(monkeypatch, path, kind)
    return path


def test_names_addresses_and_checksums_are_those_of_torchvision() -> None:
    """As in torchvision/datasets/cifar.py."""
    ten, hundred = CIFAR10.layout, CIFAR100.layout
    assert set(ten.md5) == set(cifar10_files())
    assert ten.archive.url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert hundred.archive.url == "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    assert ten.archive.md5 == "c58f30108f718f92721af3b95e74349a"
    assert hundred.archive.md5 == "eb9058c3a382ffc7106e4002c42a8d85"
    assert hundred.md5 == {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    }
    assert all(len(digest) == 32 for digest in ten.md5.values())
    assert len(set(ten.md5.values())) == 7


# Folders


@both
def test_unpacked(kind: type[Cifar], home: Path) -> None:
    for folder in (home, home.parent):
        is_made_cifar(kind, folder)


def test_a_batch_as_python_2_wrote_it(kind: type[Cifar], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image, opcode by opcode as Python 2 and the numpy of 2009 wrote it: `str`, align=0."""

    def text(b: bytes) -> bytes:
        return b"U" + bytes([len(b)]) + b

    row = bytes(range(256)) * 12
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNN"
    dtype += (b"J" + struct.pack("<i", -1)) * 2 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    array += b"(K\x01(K\x01M\x00\x0ct" + dtype + b"\x89T" + struct.pack("<i", len(row)) + row + b"tb"
    items = text(b"data") + array + text(b"labels") + b"](K\x07e" + text(b"batch_label")
    (home / "test_batch").write_bytes(b"\x80\x02}(" + items + text(b"testing batch 1 of 1") + b"u.")
    trust(monkeypatch, home / "test_batch", kind)
    raw = sound(read()(home, "test"))
    pixels = np.tile(np.arange(256, dtype=np.uint8), 12)
    np.testing.assert_array_equal(raw.images[0], pixels.reshape(3, 32, 32).transpose(1, 2, 0))
    np.testing.assert_array_equal(raw.labels, [7])


@both
def test_missing_files_name_the_download(kind: type[Cifar], tmp_path: Path) -> None:
    archive = kind.layout.archive
    says = (archive.folder, archive.name, "data.download=true", f"{archive.megabytes} MB")
    for folder in (tmp_path, tmp_path / "absent"):
        assert "data.kind" not in refused(read(kind), folder, "train", says=(str(folder), *says))
    path = npz(tmp_path)
    refused(read(kind), tmp_path, "train", says=(*says, "data.kind=npz"))
    refused(read(kind), path, "train", says=(str(path), *says))


@both
def test_the_two_are_not_taken_for_each_other(kind: type[Cifar], home: Path) -> None:
    other = CIFAR100 if kind is CIFAR10 else CIFAR10
    says = (other.layout.archive.folder, f"data.kind={kind.layout.archive.kind},")
    refused(read(other), home.parent, "train", says=says)


def test_a_missing_batch(home: Path) -> None:
    (home / "data_batch_3").unlink()
    says = (str(home / "data_batch_3"), "No such file", "data.download=true")
    refused(read(), home, "train", says=says)
    read()(home, "test")


def test_checksums_are_compared_before_unpickling(
    kind: type[Cifar], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "test_batch"
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    def unpickled(*_: Any, **__: Any) -> None:
        raise AssertionError("test_batch was unpickled")

    monkeypatch.setattr(cifar, "ArraysOnly", unpickled)
    says = (str(path), "wrong checksum", f"delete {home} and use data.download=true")
    refused(read(), home, "test", says=says)


class Runs:
    """Unpickling this calls `command(argument)`."""

    def __init__(self, command: Callable[..., Any], *arguments: Any) -> None:
        self.call = (command, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_a_malicious_pickle_is_not_executed(
    kind: type[Cifar], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksum is right, so that only the unpickler stands between it and the machine."""
    path, touched = home / "test_batch", tmp_path / "touched"
    attacks = {
        "system": Runs(os.system, f"touch {touched}"),
        "eval": Runs(eval, f"open({str(touched)!r}, 'w').close()"),
        "getattr": Runs(getattr, "x", "upper"),
        "load": Runs(np.load, str(touched)),
    }
    for name, attack in attacks.items():
        for protocol in (0, 2, 5):
            path.write_bytes(pickle.dumps({b"data": attack}, protocol=protocol))
            trust(monkeypatch, path, kind)
            says = (str(path), f"{name} is refused", "data.download=true")
            refused(read(), home, "test", says=says)
    assert not touched.exists()
    pickle.loads(pickle.dumps(attacks["system"]))
    assert touched.exists()  # so it would have been


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        batch(PIXELS[5], {b"labels": [0] * 6})[:-100],
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps({b"data": b"x", b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.int32), b"labels": [1, 2]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 99), np.uint8), b"labels": [1, 2]}, protocol=2),
    ],
)
def test_a_batch_of_other_contents(
    kind: type[Cifar], home: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    path = home / "test_batch"
    path.write_bytes(data)
    trust(monkeypatch, path, kind)
    refused(read(), home, "test", says=(str(path), "no CIFAR-10 batch", "data.download=true"))


@pytest.mark.parametrize("kind", [CIFAR100])
def test_faults_of_fine_labels_and_names(
    kind: type[Cifar], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = tmp_path / "touched"
    (home / "meta").write_bytes(pickle.dumps({b"fine_label_names": Runs(os.system, f"touch {touched}")}))
    trust(monkeypatch, home / "meta", kind)
    says = (str(home / "meta"), "names no CIFAR-100 classes", "is refused", f"delete {home}")
    refused(read(kind), home, "train", says=says)
    assert not touched.exists()
    (home / "test").write_bytes(batch(PIXELS[0], {b"labels": [1] * 6}))
    trust(monkeypatch, home / "test", kind)
    refused(read(kind), home, "test", says=(str(home / "test"), "no CIFAR-100 batch", "fine_labels"))


# Archives


@both
def test_an_archive_is_unpacked_once(kind: type[Cifar], archive: Path) -> None:
    is_made_cifar(kind, archive.parent)
    archive.unlink()
    is_made_cifar(kind, archive.parent)
    assert [p.name for p in archive.parent.iterdir()] == [kind.layout.archive.folder]
    assert {p.name for p in archive.parent.glob("*/*")} == set(FILES[kind]())


def test_an_archive_unpacked_by_another_process_meanwhile(
    kind: type[Cifar], archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        target.mkdir()
        for name, data in cifar10_files().items():
            (target / name).write_bytes(data)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    is_made_cifar(kind, archive.parent)
    assert len(list(archive.parent.iterdir())) == 2


def test_an_archive_with_a_wrong_checksum(archive: Path) -> None:
    with archive.open("ab") as file:
        file.write(b"!")
    says = (str(archive), "wrong checksum", f"delete {archive}", "data.download=true")
    refused(read(), archive.parent, "train", says=says)
    assert list(archive.parent.iterdir()) == [archive]


def test_an_archive_with_strange_members_writes_nothing_outside(
    kind: type[Cifar], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else it holds is left in it, so that what it lacks can only be refused or ignored."""
    evil = tmp_path / "evil"
    strange = {
        "up": member("../evil", b"x"),
        "deep": member("cifar-10-batches-py/../../evil", b"x"),
        "root": member(str(evil), b"x"),
        "link": member("cifar-10-batches-py/link", kind=tarfile.SYMTYPE, link=str(tmp_path)),
        "through": member("cifar-10-batches-py/link/evil", b"x"),
        "folder": member("cifar-10-batches-py/folder", kind=tarfile.DIRTYPE),
        "other": member("cifar-10-batches-py/other", b"x"),
        "device": member("cifar-10-batches-py/device", kind=tarfile.CHRTYPE),
    }
    trust(monkeypatch, tar(archive, members(**strange)), kind)
    is_made_cifar(kind, archive.parent)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
    home = archive.parent / "cifar-10-batches-py"
    assert sorted(archive.parent.iterdir()) == sorted([home, archive])
    assert {p.name for p in home.iterdir()} == set(cifar10_files())


@pytest.mark.parametrize(
    "replaced",
    [
        None,
        member("cifar-10-batches-py/test_batch", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("cifar-10-batches-py/test_batch", kind=tarfile.LNKTYPE, link="/etc/passwd"),
        member("cifar-10-batches-py/test_batch", kind=tarfile.DIRTYPE),
        member("cifar-10-batches-py/test_batch", bytes(50_001)),
        member("test_batch", b"x"),
    ],
    ids=["absent", "symlink", "hard link", "folder", "too big", "elsewhere"],
)
def test_an_archive_without_a_plain_member(
    kind: type[Cifar], archive: Path, monkeypatch: pytest.MonkeyPatch, replaced: Any
) -> None:
    monkeypatch.setattr(cifar, "MEMBER_BYTES", 50_000)
    trust(monkeypatch, tar(archive, members(test_batch=replaced)), kind)
    refused(read(), archive.parent, "train", says=(str(archive), "lacks test_batch", "data.download=true"))
    assert list(archive.parent.iterdir()) == [archive]  # nothing half-written


def test_an_archive_that_cannot_be_unpacked(
    kind: type[Cifar], archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = (str(archive), "cannot be unpacked", "writable")
    for damaged in (archive.read_bytes()[:-300], b"no archive"):
        archive.write_bytes(damaged)
        trust(monkeypatch, archive, kind)
        refused(read(), archive.parent, "train", says=says)

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(archives, "TemporaryDirectory", denied)
    refused(read(), archive.parent, "train", says=(*says, "Permission denied"))
    assert list(archive.parent.iterdir()) == [archive]


# The network


@both
def test_download(kind: type[Cifar], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, folder = archive.rename(tmp_path / "served"), tmp_path / "new" / "data"
    asked = serve(monkeypatch, served)
    for _ in range(2):  # the second time all is here
        read(kind)(folder, "train", True)
    is_made_cifar(kind, folder)
    assert asked == [kind.layout.archive.url]

    served.write_bytes(b"the page of a hotel's network")
    path = tmp_path / kind.layout.archive.name
    says = (str(path), "cannot be downloaded", "hash", "retry")
    refused(read(kind), tmp_path, "train", True, says=says)
    assert not path.exists()


def test_download_replaces_a_damaged_archive(
    kind: type[Cifar], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = archive.read_bytes()
    (tmp_path / "served").write_bytes(whole)
    archive.write_bytes(whole[:100])
    serve(monkeypatch, tmp_path / "served")
    read()(archive.parent, "train", True)
    is_made_cifar(kind, archive.parent)


def test_download_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch
    import requests

    def offline(*_: Any) -> None:
        raise requests.ConnectionError("HTTPSConnectionPool(host='...'): Max\nretries exceeded.")

    monkeypatch.setattr(pooch, "retrieve", offline)
    says = (
        str(tmp_path / "cifar-10-python.tar.gz"),
        "cannot be downloaded (ConnectionError",
        "retry, or put https://www.cs.toronto.edu",
    )
    refused(read(), tmp_path, "train", True, says=says)
