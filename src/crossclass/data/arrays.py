"""Arrays in an npz file become images: any usual axis order, 8 bits or floats in [0, 1], labels checked."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from crossclass.data.base import ArraySplit, Part, Splits, demand, guarded, hint
from crossclass.data.subset import Checksummed

MAX_CLASSES = 100_000  # without class names a stray label of 10^12 would ask for as many names


def read_npz(folder: Path, split: Part) -> ArraySplit:
    """`<folder>/<split>.npz`; images: gray, channels first or last, 8 bits or floats in [0, 1]."""
    path = folder / f"{split}.npz"
    demand(folder.is_dir(), folder, "there is no such folder", "correct data.path")
    todo = "write plain arrays, not Python objects, with np.savez(path, images=..., labels=...)"
    demand(path.is_file(), path, "there is no such file", todo + hint(path, "npz"))
    with guarded(path, "is no npz archive, or is damaged", todo), path.open("rb") as file:
        # Not np.load, which guesses the format, and leaves the file open where the zip is damaged.
        archive = np.lib.npyio.NpzFile(file, allow_pickle=False)
        for name in ("images", "labels"):
            listed = ", ".join(archive.files[:8]) or "none"
            demand(name in archive.files, path, f"has no array '{name}' (found: {listed})", todo)
        images, labels = np.asarray(archive["images"]), np.asarray(archive["labels"])
        names = np.asarray(archive["class_names"]) if "class_names" in archive.files else None
        others = [name for name in archive.files if name not in ("images", "labels", "class_names")]
    images = _eight_bits(path, _channels_last(path, images))
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # MedMNIST, Keras
    class_names = _names(path, labels, names)
    what = f"'images' holds {len(images)} entries but 'labels' {len(labels)}"
    demand(len(images) == len(labels), path, what, "give one label per image")
    shifted = split == "train" and names is None and labels.size > 0 and labels.min() == 1
    what = f"'labels' count from 1 to {int(labels.max()) if labels.size else 0}, and no image is of class 0"
    demand(not shifted, path, what, "subtract 1, or name all classes in 'class_names'")
    unread = (
        f"of {path.name} only images, labels and class_names were read, not {', '.join(map(repr, others))}"
    )
    return ArraySplit(images, labels.astype(np.int64), class_names, unread if others else "")


def _channels_last(path: Path, images: np.ndarray) -> np.ndarray:
    """[n, h, w, c] from [n, h, w], [n, h, w, c] or [n, c, h, w], tried in this order."""
    what, shape = f"'images' has shape {list(images.shape)}", images.shape
    if images.ndim == 3:
        images = images[..., None]
    elif images.ndim == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    todo = "save a non-empty [n, h, w], [n, h, w, c] or [n, c, h, w] with c = 1 or 3"
    demand(images.ndim == 4 and images.shape[3] in (1, 3) and images.size > 0, path, what, todo)
    return images


def _eight_bits(path: Path, images: np.ndarray) -> np.ndarray:
    """uint8: integers must be 0..255; floats in [0, 1] go to the nearest of the 256 levels."""
    kind, todo = images.dtype.kind, "save uint8 in 0..255 or floats in [0, 1]"
    demand(kind in "iuf", path, f"'images' are of type {images.dtype}", todo)
    low, high, top, slack = images.min().item(), images.max().item(), 255, 0.0
    if kind == "f":
        top, slack, todo = 1, 1e-6, "divide by 255, or undo a normalisation"
    what = f"'images' ({images.dtype}) range from {low:.9g} to {high:.9g}, not within [0, {top}]"
    demand(low >= -slack and high <= top + slack, path, what, todo)  # false for NaN as well
    images = np.rint(images * 255) if kind == "f" else images
    return np.ascontiguousarray(images.astype(np.uint8, copy=False))


def _names(path: Path, labels: np.ndarray, names: np.ndarray | None) -> tuple[str, ...]:
    """`class_names`, or else "0", "1", ... up to the largest label; the labels must agree."""
    what = f"'labels' have type {labels.dtype} and shape {list(labels.shape)}"
    integers, todo = labels.dtype.kind in "iu", "save integers, a class index per image: shape [n]"
    todo += " (one-hot labels: labels.argmax(axis=1))" if labels.ndim == 2 else ""
    if labels.dtype.kind in "US":
        todo += " (of names: class_names, labels = np.unique(labels, return_inverse=True))"
    demand(integers and labels.ndim == 1, path, what, todo)
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, -1)
    count = MAX_CLASSES if names is None else names.size
    what = f"'labels' range from {low} to {high}, but there are at most {count} classes"
    demand(low >= 0 and high < count, path, what, "number them 0, 1, ... as in 'class_names'")
    if names is None:
        return tuple(str(i) for i in range(high + 1))
    what = f"'class_names' have type {names.dtype} and shape {list(names.shape)}"
    text, todo = names.ndim == 1 and names.dtype.kind == "U", "save np.array(names, dtype=str)"
    demand(text, path, what, todo)
    return tuple(str(name) for name in names)


class Npz(Checksummed):
    """`train.npz` and `test.npz` in a folder: arrays `images`, `labels`, and maybe `class_names`.

    `test.npz` alone is enough for measuring; there are no training images then.
    """

    kind: Literal["npz"] = "npz"

    patterns: ClassVar[tuple[str, ...]] = ("*.npz",)

    def __call__(self) -> Splits:
        """Read both files."""
        return self.read("{}.npz", read_npz, "train.npz and test.npz")
