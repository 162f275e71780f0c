"""What every reader returns, the fingerprint of it, and the one sentence with which a reader refuses."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crossclass.core.errors import UserError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"})


class ArraySplit(NamedTuple):
    """One split as it is on disk, in file order."""

    images: np.ndarray  # uint8 [n, h, w, c], c in {1, 3}
    labels: np.ndarray  # int64 [n]
    class_names: tuple[str, ...]

    def first(self, n: int) -> "ArraySplit":
        """The first n images."""
        return ArraySplit(self.images[:n], self.labels[:n], self.class_names)


def checksum(*arrays: np.ndarray) -> str:
    """16 hex digits of SHA-256 over shapes, dtypes and bytes: the fingerprint of a data set."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)  # no copy: a data set may fill half of the memory
    return digest.hexdigest()[:16]


def demand(ok: bool, where: Path, what: str, todo: str) -> None:
    """Unless ok, raise the UserError `where: what; todo`."""
    if not ok:
        raise UserError(f"{where}: {what}; {todo}")


@contextmanager
def guarded(where: Path, what: str, todo: str) -> Iterator[None]:
    """Damage surfaces from zipfile, zlib, pickle, numpy, Pillow ... as dozens of exceptions."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        reason = f"{type(e).__name__}: {e}"[:200].rstrip(". ")
        demand(False, where, f"{what} ({reason})", todo)


def hint(wanted: Path, kind: str) -> str:
    """` or use data.kind=...` if `wanted` is absent, and its folder seems to hold another kind."""
    folder = wanted.parent
    # A bounded look, because this may be any folder, such as a home folder.
    images = (path for path in islice(folder.glob("*/**/*"), 1000) if is_image(path))
    seen = {
        "cifar10": folder.glob("cifar-10-*"),
        "cifar100": folder.glob("cifar-100-*"),
        "tiny_imagenet": (p for name in ("tiny-imagenet-200*", "wnids.txt") for p in folder.glob(name)),
        "npz": folder.glob("*.npz"),
        "folder": images,
    }
    other = [k for k, paths in seen.items() if k != kind and not wanted.exists() and any(paths)]
    return f", or use data.kind={other[0]}, as this seems to be" if other else ""


def is_image(path: Path) -> bool:
    """Whether a path is a file with a name as images have."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
