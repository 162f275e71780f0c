"""The data set is a tensor on the device: uint8 [n, c, h, w]; a batch becomes float in [0, 1].

A data set is a frozen object that is called for its splits. The validation part follows the training
part in the same order and is never trained on. Where the files lie (`path`) is never part of what a run
is; their checksum is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from crossclass import readers, shapes
from crossclass.errors import UserError
from crossclass.settings import Settings
from crossclass.streams import generator


@dataclass(frozen=True)
class Split:
    """Images uint8 [n, c, h, w] and labels int64 [n], on one device."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """The same on a device."""
        return Split(self.images.to(device), self.labels.to(device))

    def first(self, n: int | None) -> "Split":
        """The first n images, or all."""
        return self if n is None else Split(self.images[:n], self.labels[:n])


@dataclass(frozen=True)
class Splits:
    """A data set in memory: three parts, the class names, what is known about it."""

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    checksum: str
    """Of the images and labels of all three parts, 16 hex digits."""
    sharing: Int[Tensor, "k k"] | None = None
    """The true sharing matrix, where it is known."""

    def part(self, name: str) -> Split:
        """`train`, `val` or `test`; raises UserError if it is empty or unknown."""
        if name not in ("train", "val", "test"):
            raise UserError(f"unknown split '{name}'; known: train, val, test")
        part: Split = getattr(self, name)
        if len(part) == 0:
            raise UserError(f"there are no {name} images; set data.n_{name}, or choose another split")
        return part

    def to(self, device: torch.device) -> "Splits":
        """The same on a device."""
        parts = (self.train.to(device), self.val.to(device), self.test.to(device))
        return Splits(*parts, self.class_names, self.checksum, self.sharing)


class Subset(Settings):
    """Which images of a data set are used; the sizes and the order are part of a run."""

    n_train: int | None = Field(None, ge=1)
    """Images to train on; unset is all that are not held out."""
    n_val: int = Field(0, ge=0)
    """Images held out of the training file, right after the training part, never trained on."""
    n_test: int | None = Field(None, ge=1)
    balanced: bool = False
    """Draw the parts class-balanced and seeded instead of in file order."""
    subset_seed: int = Field(0, ge=0)

    def cut(self, train: readers.Raw, test: readers.Raw, where: str) -> Splits:
        """The three parts out of a training and a test array, in file or balanced order."""
        if train.images.shape[1:] != test.images.shape[1:]:
            a, b = train.images.shape[1:], test.images.shape[1:]
            raise UserError(f"{where}: training images are {a} and test images {b}; make them equal")
        names = max(train.class_names, test.class_names, key=len)
        for raw in (train, test):  # files without names count classes up to their largest label
            if raw.class_names != names[: len(raw.class_names)]:
                raise UserError(f"{where}: training and test parts name different classes; make them equal")
        n_train = len(train.labels) - self.n_val if self.n_train is None else self.n_train
        n_test = len(test.labels) if self.n_test is None else self.n_test
        wanted = {"n_train + n_val": (n_train + self.n_val, len(train.labels), "training")}
        wanted["n_test"] = (n_test, len(test.labels), "test")
        for name, (n, there, kind) in wanted.items():
            if n > there or n_train < 1:
                raise UserError(f"{where}: data.{name} is {n}, but there are {there} {kind} images")
        first, second = self._order(train.labels, 0), self._order(test.labels, 1)
        parts = [
            (train, first[:n_train]),
            (train, first[n_train : n_train + self.n_val]),
            (test, second[:n_test]),
        ]
        arrays = [(np.ascontiguousarray(r.images[i]), r.labels[i]) for r, i in parts]
        checksum = readers.checksum(*(a for pair in arrays for a in pair))
        three = [_split(images, labels) for images, labels in arrays]
        return Splits(three[0], three[1], three[2], names, checksum)

    def _order(self, labels: np.ndarray, stream: int) -> np.ndarray:
        if not self.balanced:
            return np.arange(len(labels))
        noise = torch.rand(len(labels), generator=generator(self.subset_seed, stream, 0, "subset"))
        shuffled = noise.argsort().numpy()
        turn = np.empty(len(labels), dtype=np.int64)  # the how-many-th of its class a sample is
        for label in np.unique(labels):
            turn[shuffled[labels[shuffled] == label]] = np.arange((labels == label).sum())
        return np.lexsort((labels, turn))


class Stored(Subset):
    """A data set in files: the place is not part of a run, the content is."""

    path: Path | None = Field(None, exclude=True)
    """Folder of the files; never written into a run's settings."""

    def place(self, needs: str) -> Path:
        """The folder; raises UserError with the remedy if none was given."""
        if self.path is None:
            raise UserError(f"data.path is not set; give data.path=DIR where DIR holds {needs}")
        return self.path.expanduser()


class Sealed(Stored):
    """Files that only their owner knows: the checksum stands for them in the run."""

    checksum: str | None = None
    """Filled in when the files are read; given, it is checked."""

    def seal(self, splits: Splits, where: Path) -> Splits:
        """The splits, once their content is the one that this run was made with."""
        if self.checksum is not None and self.checksum != splits.checksum:
            raise UserError(
                f"the images under {where} are not those of this run (checksum {splits.checksum}, "
                f"expected {self.checksum}); give the original files with data.path=DIR"
            )
        return splits


class Shapes(Settings):
    """The paper's data model (eq. 8) as pictures, generated: the cross-class features are known."""

    kind: Literal["shapes"] = "shapes"
    n_train: int = Field(300, ge=1)
    n_val: int = Field(300, ge=0)
    n_test: int = Field(600, ge=1)
    classes: int = Field(6, ge=2)
    edges: tuple[tuple[int, int], ...] | None = None
    """Pairs of classes that share a part; unset is 0-1, 2-3, 4-5, ... and 1-2."""
    size: int = Field(32, ge=8)
    mu: float = Field(0.35, gt=0)
    """Mean strength of a part (contrast, [0, 1] units)."""
    sigma: float = Field(0.35, ge=0)
    noise: float = Field(0.3, ge=0)
    """Standard deviation of the background's texture."""
    seed: int = Field(0, ge=0)

    channels: ClassVar[int] = 3

    @model_validator(mode="after")
    def _drawable(self) -> "Shapes":
        for i, j in self.graph:
            if not (0 <= i < self.classes and 0 <= j < self.classes and i != j):
                raise ValueError(f"edge ({i}, {j}) does not join two of the {self.classes} classes")
        if len({frozenset(e) for e in self.graph}) < len(self.graph):
            raise ValueError("an edge of the sharing graph is given twice")
        parts = self.classes + len(self.graph)
        if parts > shapes.MAX_PARTS:
            raise ValueError(
                f"{parts} dissimilar parts are needed, and there are {shapes.MAX_PARTS}; take fewer "
                "classes or edges"
            )
        return self

    @property
    def graph(self) -> shapes.Edges:
        """The planted sharing graph."""
        return shapes.default_edges(self.classes) if self.edges is None else self.edges

    def __call__(self) -> Splits:
        """Draw the three parts; each has a stream of its own."""
        parts = [self._draw(n, i) for i, n in enumerate((self.n_train, self.n_val, self.n_test))]
        checksum = readers.checksum(*(a.numpy() for s in parts for a in (s.images, s.labels)))
        sharing = shapes.sharing_matrix(self.classes, self.graph)
        return Splits(parts[0], parts[1], parts[2], self._names(), checksum, sharing)

    def _draw(self, n: int, stream: int) -> Split:
        g = generator(self.seed, stream, 0, "shapes")
        appearance = (self.size, self.mu, self.sigma, self.noise)
        return Split(*shapes.draw(n, self.classes, self.graph, *appearance, g))

    def _names(self) -> tuple[str, ...]:
        known = shapes.SILHOUETTES
        return tuple(
            known[i % len(known)] + ("" if i < len(known) else f" {i // len(known) + 1}")
            for i in range(self.classes)
        )


class Digits(Subset):
    """scikit-learn's 1,797 scanned digits, 8x8, gray: real images that need no download.

    The last 297 are the test part. Robust overfitting is only slight on them.
    """

    kind: Literal["digits"] = "digits"
    n_val: int = Field(300, ge=0)

    def __call__(self) -> Splits:
        """Read the digits."""
        raw = readers.read_digits()
        head = readers.Raw(raw.images[:1500], raw.labels[:1500], raw.class_names)
        tail = readers.Raw(raw.images[1500:], raw.labels[1500:], raw.class_names)
        return self.cut(head, tail, "digits")


class CIFAR10(Stored):
    """CIFAR-10 (Krizhevsky 2009) from an existing download, or downloaded; checksums verified."""

    kind: Literal["cifar10"] = "cifar10"
    download: bool = Field(False, exclude=True)
    """Fetch the 170 MB archive into `path` if it is not there."""

    def __call__(self) -> Splits:
        """Read both parts."""
        place = self.place("cifar-10-batches-py or cifar-10-python.tar.gz")
        train = readers.read_cifar10(place, "train", self.download)
        return self.cut(train, readers.read_cifar10(place, "test"), str(place))


class Npz(Sealed):
    """`train.npz` and `test.npz` in a folder: arrays `images`, `labels`, and maybe `class_names`."""

    kind: Literal["npz"] = "npz"

    def __call__(self) -> Splits:
        """Read both files."""
        place = self.place("train.npz and test.npz")
        train, test = readers.read_npz(place, "train"), readers.read_npz(place, "test")
        return self.seal(self.cut(train, test, str(place)), place)


class Folder(Sealed):
    """`train/<class>/*.png` and `test/<class>/*.png`: class sub-folders of images of equal size."""

    kind: Literal["folder"] = "folder"

    def __call__(self) -> Splits:
        """Read all images."""
        place = self.place("train/<class>/ and test/<class>/")
        train, test = readers.read_folder(place, "train"), readers.read_folder(place, "test")
        return self.seal(self.cut(train, test, str(place)), place)


def as_float(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """[0, 255] to [0, 1]."""
    return images.float().div_(255)


def batches(n: int, size: int, g: torch.Generator | None) -> list[Int[Tensor, " b"]]:
    """Index batches of one epoch: shuffled by g, or in order; the last may be smaller, none is dropped."""
    order = torch.arange(n) if g is None else torch.randperm(n, generator=g)
    return list(order.split(size))


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return Split(nchw, torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64)))


AnyData = Annotated[Shapes | Digits | CIFAR10 | Npz | Folder, Field(discriminator="kind")]
