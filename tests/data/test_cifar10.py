"""The archive of CIFAR-10: unpacked once, nothing outside; downloaded where that is wanted."""

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import pytest

from crossclass.data import cifar, download as archives
from crossclass.data.cifar import CIFAR10, read_cifar10
from dataset_files import NAMES, contents, is_made_cifar10, member, members, serve, tar, trust
from reader_contract import refused


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made CIFAR-10 as an archive, with all checksums in the table."""
    for name, data in contents().items():
        monkeypatch.setitem(CIFAR10.layout.md5, name, hashlib.md5(data).hexdigest())
    (tmp_path / "data").mkdir()
    path = tar(tmp_path / "data" / "cifar-10-python.tar.gz", members())
    trust(monkeypatch, path)
    return path


def test_cifar10_archive_is_unpacked_once(archive: Path) -> None:
    train = read_cifar10(archive.parent, "train")
    archive.unlink()
    is_made_cifar10(train, read_cifar10(archive.parent, "test"))
    assert [p.name for p in archive.parent.iterdir()] == ["cifar-10-batches-py"]
    assert {p.name for p in (archive.parent / "cifar-10-batches-py").iterdir()} == set(NAMES)


def test_cifar10_unpacked_by_another_process_meanwhile(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        target.mkdir()
        for name, data in contents().items():
            (target / name).write_bytes(data)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    train = read_cifar10(archive.parent, "train")
    is_made_cifar10(train, read_cifar10(archive.parent, "test"))
    assert len(list(archive.parent.iterdir())) == 2


def test_cifar10_archive_with_a_wrong_checksum(archive: Path) -> None:
    with archive.open("ab") as file:
        file.write(b"!")
    says = (str(archive), "wrong checksum", f"delete {archive}", "data.download=true")
    refused(read_cifar10, archive.parent, "train", says=says)
    assert list(archive.parent.iterdir()) == [archive]


def test_cifar10_archive_with_strange_members_writes_nothing_outside(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    trust(monkeypatch, tar(archive, members(**strange)))
    is_made_cifar10(read_cifar10(archive.parent, "train"), read_cifar10(archive.parent, "test"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
    home = archive.parent / "cifar-10-batches-py"
    assert sorted(archive.parent.iterdir()) == sorted([home, archive])
    assert {p.name for p in home.iterdir()} == set(NAMES)


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
def test_cifar10_archive_without_a_plain_member(
    archive: Path, monkeypatch: pytest.MonkeyPatch, replaced: Any
) -> None:
    monkeypatch.setattr(cifar, "MEMBER_BYTES", 50_000)
    trust(monkeypatch, tar(archive, members(test_batch=replaced)))
    says = (str(archive), "lacks test_batch", "data.download=true")
    refused(read_cifar10, archive.parent, "train", says=says)
    assert list(archive.parent.iterdir()) == [archive]  # nothing half-written


def test_cifar10_archive_that_cannot_be_unpacked(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = (str(archive), "cannot be unpacked", "writable")
    archive.write_bytes(archive.read_bytes()[:-300])
    trust(monkeypatch, archive)
    refused(read_cifar10, archive.parent, "train", says=says)
    archive.write_bytes(b"no archive")
    trust(monkeypatch, archive)
    refused(read_cifar10, archive.parent, "train", says=says)

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(archives, "TemporaryDirectory", denied)
    refused(read_cifar10, archive.parent, "train", says=(*says, "Permission denied"))
    assert list(archive.parent.iterdir()) == [archive]


def test_cifar10_download(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, folder = archive.rename(tmp_path / "served"), tmp_path / "new" / "data"
    asked = serve(monkeypatch, served)
    train = read_cifar10(folder, "train", True)
    is_made_cifar10(train, read_cifar10(folder, "test", True))
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]

    served.write_bytes(b"the page of a hotel's network")
    says = (str(tmp_path / "cifar-10-python.tar.gz"), "cannot be downloaded", "hash", "retry")
    refused(read_cifar10, tmp_path, "train", True, says=says)
    assert not (tmp_path / "cifar-10-python.tar.gz").exists()


def test_cifar10_download_replaces_a_damaged_archive(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    whole = archive.read_bytes()
    archive.write_bytes(whole[:100])

    def copy(_: str, output_file: str, __: Any) -> None:
        Path(output_file).write_bytes(whole)

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar=False: copy)
    folder = archive.parent
    is_made_cifar10(read_cifar10(folder, "train", True), read_cifar10(folder, "test"))


def test_cifar10_download_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    refused(read_cifar10, tmp_path, "train", True, says=says)
