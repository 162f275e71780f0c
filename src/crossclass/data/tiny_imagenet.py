"""Tiny-ImageNet (CS231n, Stanford 2015): 200 classes of ImageNet, 110,000 JPEGs of 64 x 64 pixels.

    tiny-imagenet-200/wnids.txt                     the classes, in the order of their labels
                      words.txt                     what their names mean
                      train/<wnid>/images/*.JPEG    500 of each class
                      val/images/*.JPEG             50 of each, told apart by val/val_annotations.txt

The labels of the official test images are not published, so the official *validation* images are the test
part. Training images come by turns, the first of every class, then the second of every class ..., so that
a part cut off at the end holds equally many of each class.

Decoding takes a minute, so the pixels are kept in `decoded-<split>.npz` beside the folders. That file is
read only while names, sizes and times of all JPEGs are those that it was made from.
"""

import hashlib
import io
import re
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from crossclass.core.errors import UserError
from crossclass.core.files import replacing
from crossclass.data.base import ArraySplit, Part, Splits, demand, guarded
from crossclass.data.download import Archive, again, unpacking, verified
from crossclass.data.folders import is_image, stack, visible
from crossclass.data.subset import Downloadable

ARCHIVE = Archive(
    "tiny_imagenet",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
    "tiny-imagenet-200",
    248,
)
CLASSES = 200
PER_CLASS = {"train": 500, "test": 50}
SIDE = 64
WNID = r"n\d{8}"
MEMBERS = re.compile(  # the boxes and the unlabelled test images stay in the archive
    rf"{ARCHIVE.folder}/(wnids\.txt|words\.txt|val/val_annotations\.txt|(train/{WNID}|val)/images/\w+\.JPEG)"
)
MEMBER_BYTES = 8 * 2**20  # the largest true member, words.txt, has 2.5 MiB

ClassOrder = Literal["wnids", "sorted"]


def read_tiny_imagenet(
    folder: Path, split: Part, download: bool = False, class_order: ClassOrder = "wnids"
) -> ArraySplit:
    """`train` (100,000 images) or `test` (the 10,000 official validation images) as RGB, [n, 64, 64, 3].

    They are fetched into the folder if `download`. Labels follow wnids.txt, or the sorted wnids, as in models
    trained through an image folder. Raises UserError if the files are absent or damaged.
    """
    home = _home(folder, download)
    wnids = _wnids(home)
    files = _train(home, wnids) if split == "train" else _test(home, wnids)
    images = _decoded(home / f"decoded-{split}.npz", [path for path, _ in files])
    names, labels = _names(home, wnids), np.array([label for _, label in files], dtype=np.int64)
    if class_order == "sorted":
        order = np.argsort(wnids)
        names, labels = tuple(names[i] for i in order), np.argsort(order)[labels]
    return ArraySplit(images, labels, names)


def _home(folder: Path, download: bool) -> Path:
    for home in (folder / ARCHIVE.folder, folder):
        if (home / "wnids.txt").is_file() or (home.name == ARCHIVE.folder and home.is_dir()):
            return home
    path = ARCHIVE.fetched(folder, download)
    home, data = folder / ARCHIVE.folder, io.BytesIO(verified(path, ARCHIVE.md5, path))
    with unpacking(path, home) as scratch, zipfile.ZipFile(data) as bundle:
        for member in bundle.infolist():  # by name, so that nothing is written outside
            if MEMBERS.fullmatch(member.filename) and member.file_size <= MEMBER_BYTES:
                target = scratch.parent / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(bundle.read(member))
    return home


def _lines(home: Path, name: str) -> list[str]:
    path = home / name
    demand(path.is_file(), path, "there is no such file", again(home))
    with guarded(path, "cannot be read as text", again(home)):
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]


def _wnids(home: Path) -> list[str]:
    wnids = [line.strip() for line in _lines(home, "wnids.txt")]
    good = len({wnid for wnid in wnids if re.fullmatch(WNID, wnid)})
    what = f"holds {good} different WordNet ids in {len(wnids)} lines, not {CLASSES}"
    demand(good == len(wnids) == CLASSES, home / "wnids.txt", what, again(home))
    return wnids


def _names(home: Path, wnids: list[str]) -> tuple[str, ...]:
    """The first word of each class; where several classes share it, the wnid tells them apart."""
    words = {wnid: text for wnid, _, text in (line.partition("\t") for line in _lines(home, "words.txt"))}
    firsts = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    uses = Counter(firsts)
    pairs = zip(firsts, wnids, strict=True)
    return tuple(first if uses[first] == 1 else f"{first} ({wnid})" for first, wnid in pairs)


def _train(home: Path, wnids: list[str]) -> list[tuple[Path, int]]:
    """The training images with their labels: the first of every class, then the second of every class, ..."""
    classes = [_jpegs(home / "train" / wnid / "images") for wnid in wnids]
    for wnid, paths in zip(wnids, classes, strict=True):
        what = f"holds {len(paths)} images, not {PER_CLASS['train']}"
        demand(len(paths) == PER_CLASS["train"], home / "train" / wnid / "images", what, again(home))
    return [(path, label) for turn in zip(*classes, strict=True) for label, path in enumerate(turn)]


def _test(home: Path, wnids: list[str]) -> list[tuple[Path, int]]:
    """The official validation images with their labels, in the order of val_annotations.txt."""
    where, folder = home / "val" / "val_annotations.txt", home / "val" / "images"
    rows = [line.split("\t") for line in _lines(home, "val/val_annotations.txt")]
    index = {wnid: label for label, wnid in enumerate(wnids)}
    for i, row in enumerate(rows, start=1):
        what = f"line {i} gives no image and class, but '{' '.join(row)[:60]}'"
        demand(len(row) > 1, where, what, again(home))
        what = f"line {i} gives {row[0][:60]} the class '{row[1][:60]}', which is not in wnids.txt"
        demand(row[1] in index, where, what, again(home))
    annotated, there = [row[0] for row in rows], {path.name for path in _jpegs(folder)}
    both = len(there.intersection(annotated))
    what = f"annotates {len(rows)} images, {both} of which are among the {len(there)} in {folder}"
    demand(both == len(rows) == len(there), where, what, again(home))
    files = [(folder / row[0], index[row[1]]) for row in rows]
    sizes = Counter(row[1] for row in rows)
    uneven = [wnid for wnid in wnids if sizes[wnid] != PER_CLASS["test"]]
    what = f"does not give every class {PER_CLASS['test']} images (see {', '.join(uneven[:3])})"
    demand(not uneven, where, what, again(home))
    return files


def _jpegs(folder: Path) -> list[Path]:
    """The images of a folder, in the order of their numbers; none if there is no such folder."""
    paths = [path for path in visible(folder) if is_image(path)] if folder.is_dir() else []
    return sorted(paths, key=lambda path: (len(path.name), path.name))


def _decoded(cache: Path, paths: list[Path]) -> np.ndarray:
    """The pixels of the images, from the cache where it is of these files; else decoded, and kept there."""
    key = _fingerprint(cache.parent, paths)
    images = _read_cache(cache, key, len(paths))
    if images is None:
        images = stack(paths, (SIDE, SIDE), again(cache.parent))
        _write_cache(cache, key, images)
    return images


def _fingerprint(home: Path, paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with guarded(path, "cannot be read", again(home)):
            now = path.stat()
        digest.update(f"{path.relative_to(home).as_posix()} {now.st_size} {now.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read_cache(cache: Path, key: str, n: int) -> np.ndarray | None:
    with suppress(Exception), cache.open("rb") as file:  # absent or damaged: the JPEGs are still there
        archive = np.lib.npyio.NpzFile(file, allow_pickle=False)
        if str(archive["key"]) == key:
            images = np.asarray(archive["images"])
            if images.dtype == np.uint8 and images.shape == (n, SIDE, SIDE, 3):
                return images
    return None


def _write_cache(cache: Path, key: str, images: np.ndarray) -> None:
    with (
        suppress(UserError),
        replacing(cache) as file,
    ):  # a read-only folder, a full disk: decode again next time
        np.savez(file, key=np.array(key), images=images)


class TinyImageNet(Downloadable):
    """Tiny-ImageNet: 200 classes, 64x64; the official validation images are the test part (50 per class).

    Training images come by turns, one of each class, so `n_val=10000` holds out the last 50 of each
    class. The decoded pixels are kept beside the images, where the folder can be written to.
    """

    kind: Literal["tiny_imagenet"] = "tiny_imagenet"
    class_order: ClassOrder = "wnids"
    """Labels as in wnids.txt, or in `sorted` order, as in other people's models trained on image folders."""

    # the usual constants: std is a mean of per-image values (the pixels of 20 classes have .276 .272 .289)
    statistics: ClassVar[Any] = ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))
    shape: ClassVar[Any] = (200, 64)
    mini: ClassVar[Any] = {"n_train": 1000, "n_val": 1000, "n_test": 1000, "balanced": True}
    patterns: ClassVar[tuple[str, ...]] = ("tiny-imagenet-200*", "wnids.txt")

    def __call__(self) -> Splits:
        """Read both parts; the first time decodes 110,000 JPEGs."""
        folder = self.folder("tiny-imagenet-200 or tiny-imagenet-200.zip")
        train = read_tiny_imagenet(folder, "train", self.download, self.class_order)
        test = read_tiny_imagenet(folder, "test", False, self.class_order)
        return self.cut(train, test, str(folder))
