"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 images of 32 x 32 pixels, 10 or 100 classes.

The files are those of torchvision, unpacked or as the archives. Each has a published checksum, which is
compared before it is unpickled, by an unpickler that knows only arrays.
"""

import codecs
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from crossclass.data.base import ArraySplit, Part, Splits, demand, guarded
from crossclass.data.download import Archive, again, unpacking, verified
from crossclass.data.subset import Downloadable

MEMBER_BYTES = 160 * 2**20  # the largest true member, CIFAR-100's `train`, has 148 MiB
SITE = "https://www.cs.toronto.edu/~kriz/"


class Layout(NamedTuple):
    """Where one of the two sets comes from, and what its files are called."""

    title: str
    archive: Archive
    splits: dict[Part, tuple[str, ...]]
    md5: dict[str, str]  # of the files inside
    labels: bytes  # their key in a batch
    class_names: tuple[str, ...]  # empty: in the file `meta`


def read_cifar(layout: Layout, folder: Path, split: Part, download: bool = False) -> ArraySplit:
    """One part of CIFAR-10 or CIFAR-100; fetched into the folder if `download`. Raises UserError."""
    home = _home(layout, folder, download)
    batches = [_batch(layout, home / name) for name in layout.splits[split]]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    names = layout.class_names or _fine_names(layout, home / "meta")
    return ArraySplit(np.ascontiguousarray(images), labels, names)


def _home(layout: Layout, folder: Path, download: bool) -> Path:
    for home in (folder, folder / layout.archive.folder):
        if any((home / names[0]).is_file() for names in layout.splits.values()):
            return home
    path = layout.archive.fetched(folder, download)
    home, data = folder / layout.archive.folder, io.BytesIO(verified(path, layout.archive.md5, path))
    with unpacking(path, home) as scratch, tarfile.open(fileobj=data, mode="r:gz") as tar:
        # By name, and plain files only: links, other folders and anything else stay inside.
        for member in tar:
            parent, _, name = member.name.rpartition("/")
            plain = member.isreg() and member.size <= MEMBER_BYTES
            expected = parent == layout.archive.folder and name in layout.md5
            if expected and plain and (source := tar.extractfile(member)):
                (scratch / name).write_bytes(source.read())
        absent = ", ".join(sorted(name for name in layout.md5 if not (scratch / name).is_file()))
        demand(not absent, path, f"lacks {absent}", again(path))
    return home


def _unpickled(layout: Layout, path: Path) -> dict[bytes, Any]:
    data = io.BytesIO(verified(path, layout.md5[path.name], path.parent))
    content: dict[bytes, Any] = ArraysOnly(data, encoding="bytes").load()
    return content


def _batch(layout: Layout, path: Path) -> tuple[np.ndarray, np.ndarray]:
    with guarded(path, f"is no {layout.title} batch", again(path.parent)):
        batch = _unpickled(layout, path)
        images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.array(batch[layout.labels], dtype=np.int64)
        if images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(f"images {images.dtype}{images.shape}, labels {labels.shape}")
    return images, labels


def _fine_names(layout: Layout, path: Path) -> tuple[str, ...]:
    with guarded(path, f"names no {layout.title} classes", again(path.parent)):
        return tuple(name.decode() for name in _unpickled(layout, path)[b"fine_label_names"])


_reconstruct = np.empty(0).__reduce__()[0]  # under whatever name this numpy keeps it
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    # The files say 0 and 1 for False and True, about which numpy 2.4.0 to 2.4.4 warn.
    ("numpy", "dtype"): lambda code, align, copy: np.dtype(code, bool(align), bool(copy)),
    ("_codecs", "encode"): codecs.encode,
}


class ArraysOnly(pickle.Unpickler):
    """Knows arrays, numbers, text and containers, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """One of `ADMITTED`; raises UnpicklingError for anything else."""
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is refused")
        return ADMITTED[module, name]


class Cifar(Downloadable):
    """What CIFAR-10 and CIFAR-100 have in common."""

    layout: ClassVar[Layout]

    def __call__(self) -> Splits:
        """Read both parts."""
        archive = self.layout.archive
        folder = self.folder(f"{archive.folder} or {archive.name}")
        train = read_cifar(self.layout, folder, "train", self.download)
        return self.cut(train, read_cifar(self.layout, folder, "test", False), str(folder))


class CIFAR10(Cifar):
    """CIFAR-10 (Krizhevsky 2009) from an existing download, or downloaded; checksums verified."""

    kind: Literal["cifar10"] = "cifar10"

    layout: ClassVar[Layout] = Layout(
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
    statistics: ClassVar[Any] = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
    shape: ClassVar[Any] = (10, 32)
    mini: ClassVar[Any] = {"n_train": 1000, "n_val": 1000, "n_test": 1000, "balanced": False}
    patterns: ClassVar[tuple[str, ...]] = ("cifar-10-*",)


class CIFAR100(Cifar):
    """CIFAR-100 (Krizhevsky 2009), the 100 fine labels; checksums verified."""

    kind: Literal["cifar100"] = "cifar100"

    layout: ClassVar[Layout] = Layout(
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
    statistics: ClassVar[Any] = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    shape: ClassVar[Any] = (100, 32)
    mini: ClassVar[Any] = {"n_train": 2000, "n_val": 1000, "n_test": 2000, "balanced": False}
    patterns: ClassVar[tuple[str, ...]] = ("cifar-100-*",)
