"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in torchvision's layout, unpacked or as the archives.

Each file has a published checksum, judged before it is unpickled, by an unpickler that knows only arrays.
"""

import io
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crossclass.core.errors import UserError, did_you_mean
from crossclass.data.array_pickles import ArraysOnly
from crossclass.data.download import Archive, again, unpacking, verified
from crossclass.data.raw import ArraySplit, demand, guarded

MEMBER_BYTES = 160 * 2**20  # the largest true member, CIFAR-100's `train`, has 148 MiB
SITE = "https://www.cs.toronto.edu/~kriz/"


class Cifar(NamedTuple):
    """One of the two sets: where it comes from, and what its files are called."""

    title: str
    archive: Archive
    splits: dict[str, tuple[str, ...]]
    md5: dict[str, str]  # of the files inside
    labels: bytes  # their key in a batch
    class_names: tuple[str, ...]  # empty: said by the file `meta`


CIFAR10 = Cifar(
    "CIFAR-10",
    Archive(
        "cifar10",
        f"{SITE}cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "cifar-10-batches-py",
        170,
    ),
    {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    b"labels",
    tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),  # noqa: SIM905
)
CIFAR100 = Cifar(
    "CIFAR-100",
    Archive(
        "cifar100",
        f"{SITE}cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
        169,
    ),
    {"train": ("train",), "test": ("test",)},
    {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
    b"fine_labels",
    (),
)


def read_cifar10(folder: Path, split: str, download: bool = False) -> ArraySplit:
    """CIFAR-10 from a folder; fetched into it if `download`; raises UserError."""
    return _read(CIFAR10, folder, split, download)


def read_cifar100(folder: Path, split: str, download: bool = False) -> ArraySplit:
    """CIFAR-100 with its 100 fine labels from a folder; fetched into it if `download`; raises UserError."""
    return _read(CIFAR100, folder, split, download)


def _read(cifar: Cifar, folder: Path, split: str, download: bool) -> ArraySplit:
    if split not in cifar.splits:
        raise UserError(f"{cifar.title} has no split '{split}'{did_you_mean(split, cifar.splits)}")
    home = _home(cifar, folder, download)
    batches = [_batch(cifar, home / name) for name in cifar.splits[split]]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return ArraySplit(
        np.ascontiguousarray(images), labels, cifar.class_names or _fine_names(cifar, home / "meta")
    )


def _home(cifar: Cifar, folder: Path, download: bool) -> Path:
    for home in (folder, folder / cifar.archive.folder):
        if any((home / names[0]).is_file() for names in cifar.splits.values()):
            return home
    path = cifar.archive.fetched(folder, download)
    home, data = folder / cifar.archive.folder, io.BytesIO(verified(path, cifar.archive.md5, path))
    with unpacking(path, home) as scratch, tarfile.open(fileobj=data, mode="r:gz") as tar:
        # By name, and plain files only: links, other folders and anything else stay inside.
        for member in tar:
            place, _, name = member.name.rpartition("/")
            plain = member.isreg() and member.size <= MEMBER_BYTES
            expected = place == cifar.archive.folder and name in cifar.md5
            if expected and plain and (source := tar.extractfile(member)):
                (scratch / name).write_bytes(source.read())
        absent = ", ".join(sorted(name for name in cifar.md5 if not (scratch / name).is_file()))
        demand(not absent, path, f"lacks {absent}", again(path))
    return home


def _unpickled(cifar: Cifar, path: Path) -> dict[bytes, Any]:
    data = io.BytesIO(verified(path, cifar.md5[path.name], path.parent))
    content: dict[bytes, Any] = ArraysOnly(data, encoding="bytes").load()
    return content


def _batch(cifar: Cifar, path: Path) -> tuple[np.ndarray, np.ndarray]:
    with guarded(path, f"is no {cifar.title} batch", again(path.parent)):
        batch = _unpickled(cifar, path)
        images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.array(batch[cifar.labels], dtype=np.int64)
        if images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(f"images {images.dtype}{images.shape}, labels {labels.shape}")
    return images, labels


def _fine_names(cifar: Cifar, path: Path) -> tuple[str, ...]:
    with guarded(path, f"names no {cifar.title} classes", again(path.parent)):
        return tuple(name.decode() for name in _unpickled(cifar, path)[b"fine_label_names"])
