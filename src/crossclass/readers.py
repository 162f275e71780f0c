"""Bytes to arrays: every kind of data set on disk becomes images, labels and class names.

What is read is judged before it is believed: a checksum before a pickle, names and sizes before an
archive is unpacked, shapes and ranges before an array. What is wrong is said in one sentence: where
it is, what it is, what to do. Images stay at 8 bits; whoever draws a batch scales it to [0, 1].
"""

import codecs
import hashlib
import io
import pickle
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from crossclass.errors import UserError, did_you_mean

MAX_CLASSES = 100_000  # without class names a stray label of 10^12 would ask for as many names
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"})
CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())  # noqa: SIM905
CIFAR10_SPLITS = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_URL = f"https://www.cs.toronto.edu/~kriz/{CIFAR10_ARCHIVE}"
CIFAR10_MD5: dict[str, str] = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
CIFAR10_MEMBERS = {f"{CIFAR10_FOLDER}/{n}" for n in ("readme.html", *CIFAR10_MD5) if ".gz" not in n}
CIFAR10_MEMBER_BYTES = 40 * 2**20  # the largest true member has 31 MB
CIFAR10_AGAIN = "delete this copy and use data.download=true"


class Raw(NamedTuple):
    """One split as it is on disk, in file order."""

    images: np.ndarray  # uint8 [n, h, w, c], c in {1, 3}
    labels: np.ndarray  # int64 [n]
    class_names: tuple[str, ...]


def checksum(*arrays: np.ndarray) -> str:
    """16 hex digits of SHA-256 over shapes, dtypes and bytes: the fingerprint of a data set."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:16]


def _demand(ok: bool, where: Path, what: str, todo: str) -> None:
    if not ok:  # names of arrays and files may hold line breaks, or what a terminal would obey
        raise UserError("".join(c if c.isprintable() else " " for c in f"{where}: {what}; {todo}"))


@contextmanager
def _guarded(where: Path, what: str, todo: str) -> Iterator[None]:
    """Damage surfaces from zipfile, zlib, pickle, numpy, Pillow ... as dozens of exceptions."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        reason = f"{type(e).__name__}: {e}"[:200].rstrip(". ")
        _demand(False, where, f"{what} ({reason})", todo)


def _hint(wanted: Path, kind: str) -> str:
    """` or use data.kind=...` if `wanted` is absent, and its folder seems to hold another kind."""
    folder = wanted.parent
    # A bounded look, because this may be any folder, such as a home folder.
    images = (path for path in islice(folder.glob("*/**/*"), 1000) if _is_image(path))
    seen = {"cifar10": folder.glob("cifar-10-*"), "npz": folder.glob("*.npz"), "folder": images}
    other = [k for k, paths in seen.items() if k != kind and not wanted.exists() and any(paths)]
    return f", or use data.kind={other[0]}, as this seems to be" if other else ""


def read_npz(folder: Path, split: str) -> Raw:
    """`<folder>/<split>.npz`; images: gray, channels first or last, 8 bits or floats in [0, 1]."""
    path = folder / f"{split}.npz"
    _demand(folder.is_dir(), folder, "there is no such folder", "correct data.path")
    todo = "write plain arrays, not Python objects, with np.savez(path, images=..., labels=...)"
    _demand(path.is_file(), path, "there is no such file", todo + _hint(path, "npz"))
    with _guarded(path, "is no npz archive, or is damaged", todo), path.open("rb") as file:
        # Not np.load, which guesses the format, and leaves the file open where the zip is damaged.
        archive = np.lib.npyio.NpzFile(file, allow_pickle=False)
        for name in ("images", "labels"):
            listed = ", ".join(archive.files[:8]) or "none"
            _demand(name in archive.files, path, f"has no array '{name}' (found: {listed})", todo)
        images, labels = np.asarray(archive["images"]), np.asarray(archive["labels"])
        names = np.asarray(archive["class_names"]) if "class_names" in archive.files else None
    images = _eight_bits(path, _channels_last(path, images))
    class_names = _names(path, labels, names)
    what = f"'images' holds {len(images)} entries but 'labels' {len(labels)}"
    _demand(len(images) == len(labels), path, what, "give one label per image")
    return Raw(images, labels.astype(np.int64), class_names)


def _channels_last(path: Path, images: np.ndarray) -> np.ndarray:
    """[n, h, w, c] from [n, h, w], [n, h, w, c] or [n, c, h, w], tried in this order."""
    what, shape = f"'images' has shape {list(images.shape)}", images.shape
    if images.ndim == 3:
        images = images[..., None]
    elif images.ndim == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    todo = "save a non-empty [n, h, w], [n, h, w, c] or [n, c, h, w] with c = 1 or 3"
    _demand(images.ndim == 4 and images.shape[3] in (1, 3) and images.size > 0, path, what, todo)
    return images


def _eight_bits(path: Path, images: np.ndarray) -> np.ndarray:
    """uint8: integers must be 0..255; floats in [0, 1] go to the nearest of the 256 levels."""
    kind, todo = images.dtype.kind, "save uint8 in 0..255 or floats in [0, 1]"
    _demand(kind in "iuf", path, f"'images' are of type {images.dtype}", todo)
    low, high, top, slack = images.min().item(), images.max().item(), 255, 0.0
    if kind == "f":
        top, slack, todo = 1, 1e-6, "divide by 255, or undo a normalisation"
    what = f"'images' ({images.dtype}) range from {low:.9g} to {high:.9g}, not within [0, {top}]"
    _demand(low >= -slack and high <= top + slack, path, what, todo)  # false for NaN as well
    images = np.rint(images * 255) if kind == "f" else images
    return np.ascontiguousarray(images.astype(np.uint8, copy=False))


def _names(path: Path, labels: np.ndarray, names: np.ndarray | None) -> tuple[str, ...]:
    """`class_names`, or else "0", "1", ... up to the largest label; the labels must agree."""
    what = f"'labels' have type {labels.dtype} and shape {list(labels.shape)}"
    integers, todo = labels.dtype.kind in "iu", "save integers, a class index per image: shape [n]"
    _demand(integers and labels.ndim == 1, path, what, todo)
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, -1)
    count = MAX_CLASSES if names is None else names.size
    what = f"'labels' range from {low} to {high}, but there are at most {count} classes"
    _demand(low >= 0 and high < count, path, what, "number them 0, 1, ... as in 'class_names'")
    if names is None:
        return tuple(str(i) for i in range(high + 1))
    what = f"'class_names' have type {names.dtype} and shape {list(names.shape)}"
    text, todo = names.ndim == 1 and names.dtype.kind == "U", "save np.array(names, dtype=str)"
    _demand(text, path, what, todo)
    return tuple(str(name) for name in names)


def read_folder(folder: Path, split: str) -> Raw:
    """`<folder>/<split>/<class>/<image>` as RGB, sorted by name; `train` says what classes exist."""
    _demand(folder.is_dir(), folder, "there is no such folder", "correct data.path")
    part, put = folder / split, f"put images into {split}/<class>"
    _demand(part.is_dir(), part, "there is no such folder", put + _hint(part, "folder"))
    home = folder / "train" if (folder / "train").is_dir() else part
    # From `home`, so that a class without test images keeps its index.
    names = tuple(path.name for path in _visible(home) if path.is_dir())
    files: list[tuple[Path, int]] = []
    for place in (path for path in _visible(part) if path.is_dir()):
        near = "" if place.name in names else did_you_mean(place.name, names)
        _demand(place.name in names, place, f"is no class of {home}", f"rename it or add it{near}")
        images = [path for path in _visible(place) if _is_image(path)]
        _demand(len(images) > 0 or home != part, place, "holds no images", "add some or remove it")
        files += [(path, names.index(place.name)) for path in images]
    _demand(len(files) > 0, part, "has no class folders with images", put)
    labels = np.array([label for _, label in files], dtype=np.int64)
    return Raw(_stack([path for path, _ in files]), labels, names)


def _visible(folder: Path) -> list[Path]:
    with _guarded(folder, "cannot be listed", "check its permissions"):
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _stack(paths: list[Path]) -> np.ndarray:
    h, w, _ = shape = _rgb(paths[0]).shape
    with _guarded(paths[0].parent, f"{len(paths)} images of {w} x {h} do not fit", "use fewer"):
        images = np.empty((len(paths), h, w, 3), dtype=np.uint8)
    for i, path in enumerate(paths):
        image = _rgb(path)
        what = f"is {image.shape[1]} x {image.shape[0]} pixels, but {paths[0]} is {w} x {h}"
        _demand(image.shape == shape, path, what, "bring all images to one size")
        images[i] = image
    return images


def _rgb(path: Path) -> np.ndarray:
    """The pixels as they are stored: EXIF does not turn them, and an alpha channel is dropped."""
    todo = "save it again or remove it"
    with _guarded(path, "is no readable image", todo), warnings.catch_warnings():
        # Pillow only warns up to twice its limit; 90 million pixels are no training image.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            whole = image.mode[0] not in "IF"  # `convert` would clip more bits at 255 without a word
            _demand(whole, path, f"has mode {image.mode}", "save it with 8 bits per channel")
            image.load()
            image.info.pop("transparency", None)  # of a palette; Pillow warns that it will be lost
            return np.asarray(image.convert("RGB"))


def read_digits() -> Raw:
    """scikit-learn's 1,797 scanned digits of 8 x 8 pixels in 17 grays, spread over 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    return Raw(images, digits.target.astype(np.int64), tuple("0123456789"))


def read_cifar10(folder: Path, split: str, download: bool = False) -> Raw:
    """CIFAR-10 in torchvision's layout, unpacked or as the archive; fetched if `download`."""
    if split not in CIFAR10_SPLITS:
        raise UserError(f"CIFAR-10 has no split '{split}'{did_you_mean(split, CIFAR10_SPLITS)}")
    home = _cifar10_home(folder, download)
    batches = [_cifar10_batch(home / name) for name in CIFAR10_SPLITS[split]]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Raw(np.ascontiguousarray(images), labels, CIFAR10_CLASSES)


def _cifar10_home(folder: Path, download: bool) -> Path:
    for home in (folder, folder / CIFAR10_FOLDER):
        if any((home / name).is_file() for name in ("data_batch_1", "test_batch")):
            return home
    archive = folder / CIFAR10_ARCHIVE
    if download:
        import pooch

        with _guarded(archive, "cannot be downloaded", f"retry, or put {CIFAR10_URL} there"):
            pooch.retrieve(CIFAR10_URL, f"md5:{CIFAR10_MD5[archive.name]}", archive.name, folder)
    what = f"holds neither a folder {CIFAR10_FOLDER} nor {CIFAR10_ARCHIVE}"
    todo = f"correct data.path, or fetch 170 MB by data.download=true{_hint(archive, 'cifar10')}"
    _demand(archive.is_file(), folder, what, todo)
    return _unpack(archive)


def _verified(path: Path) -> bytes:
    with _guarded(path, "cannot be read", CIFAR10_AGAIN):
        data = path.read_bytes()
    right = hashlib.md5(data, usedforsecurity=False).hexdigest() == CIFAR10_MD5[path.name]
    _demand(right, path, "has a wrong checksum", CIFAR10_AGAIN)
    return data


def _unpack(archive: Path) -> Path:
    """Unpack into a scratch folder beside and rename it at the end: half of it is never seen."""
    home, todo = archive.parent / CIFAR10_FOLDER, "make its folder writable, or unpack it elsewhere"
    data = io.BytesIO(_verified(archive))
    with _guarded(archive, "cannot be unpacked", todo):
        scratch = TemporaryDirectory(prefix=".cifar-10-", dir=archive.parent)
        with scratch as place, tarfile.open(fileobj=data, mode="r:gz") as tar:
            Path(place, CIFAR10_FOLDER).mkdir()
            # By name, and plain files only: links, other folders and anything else stay inside.
            for member in tar:
                plain = member.isreg() and member.size <= CIFAR10_MEMBER_BYTES
                if member.name in CIFAR10_MEMBERS and plain and (source := tar.extractfile(member)):
                    Path(place, member.name).write_bytes(source.read())
            absent = sorted(name for name in CIFAR10_MEMBERS if not Path(place, name).is_file())
            _demand(not absent, archive, f"lacks {', '.join(absent)}", CIFAR10_AGAIN)
            with suppress(OSError):  # another process was faster, and its copy is as good
                Path(place, CIFAR10_FOLDER).rename(home)
    return home


def _cifar10_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data = io.BytesIO(_verified(path))
    with _guarded(path, "is no CIFAR-10 batch", CIFAR10_AGAIN):
        batch = _ArraysOnly(data, encoding="bytes").load()
        images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.array(batch[b"labels"], dtype=np.int64)
        if images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(f"images {images.dtype}{images.shape}, labels {labels.shape}")
    return images, labels


_reconstruct = np.empty(0).__reduce__()[0]  # under whatever name this numpy keeps it
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    # The files say 0 and 1 for False and True, about which numpy 2.4.0 to 2.4.4 warn.
    ("numpy", "dtype"): lambda code, align, copy: np.dtype(code, bool(align), bool(copy)),
    ("_codecs", "encode"): codecs.encode,
}


class _ArraysOnly(pickle.Unpickler):
    """Knows arrays, numbers, text and containers, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is refused")
        return ADMITTED[module, name]
