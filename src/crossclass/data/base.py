"""What every data set is: settings that read its images, and its three parts in memory.

On disk and in memory images have 8 bits; a batch becomes float in [0, 1]. A reader refuses damaged files in
one sentence: which file, what is wrong with it, what to do (`demand`, `guarded`).
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Tensor

from crossclass.core.classes import Classes, class_labels
from crossclass.core.config import Settings
from crossclass.core.errors import UserError
from crossclass.core.logits import require_tensor
from crossclass.core.plugins import kind_of, members
from crossclass.core.printable import printable
from crossclass.data.draw import draw

D = TypeVar("D", bound="Data")
Part = Literal["train", "test"]
"""What the files of a data set hold; the validation images are cut from `train`."""
PerChannel = tuple[float, ...]
"""One value per channel, in [0, 1] units."""
MEASURED = 2
"""The stream of draws from a part in memory; those from files have 0 and 1."""
Statistics = tuple[PerChannel, PerChannel]
"""Mean and standard deviation."""


@dataclass(frozen=True, repr=False)
class Split:
    """Images uint8 [n, c, h, w] and labels int64 [n], on one device; labels [n, 1] are read as [n]."""

    images: UInt8[Tensor, "n c h w"]
    labels: Classes

    def __post_init__(self) -> None:
        require_tensor(self.images, "images", "give a tensor of bytes [n, c, h, w]")
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            kind = str(self.images.dtype).removeprefix("torch.")
            raise UserError(
                f"images have type {kind} and shape {list(self.images.shape)}; give bytes (uint8) "
                "[n, c, h, w], as (255 * x).round().byte() of x in [0, 1]"
            )
        labels = class_labels(self.labels, len(self.images))
        if labels.ndim != 1:
            raise UserError("labels are probabilities; a data set gives the class of each image, shape [n]")
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        channels, *size = self.images.shape[1:]
        return f"<{len(self)} images of {' x '.join(map(str, size))} pixels, {channels} channels>"

    @cached_property
    def image_digests(self) -> list[bytes]:
        """A hash of every image, computed once; equal images have equal ones."""
        pixels = self.images.cpu().contiguous().numpy()
        return [hashlib.blake2b(image.data, digest_size=16).digest() for image in pixels]

    def to(self, device: torch.device) -> "Split":
        """The same on a device."""
        return Split(self.images.to(device), self.labels.to(device))

    def first(self, n: int | None) -> "Split":
        """The first n images, or all."""
        return self if n is None else Split(self.images[:n], self.labels[:n])

    def take(self, index: Int[Tensor, " m"]) -> "Split":
        """The images with these indices."""
        index = index.to(self.labels.device)
        return Split(self.images[index], self.labels[index])

    def drawn(
        self, n: int | None, seed: int, balanced: bool = True, *, proportional: bool = False
    ) -> "Split":
        """n images, drawn over all classes by the seed, or the first n (not `balanced`); all, as they are, if
        there are no more. Classes give equally many, or (`proportional`) what their shares are."""
        if n is None or n >= len(self) or not balanced:
            return self.first(n)
        return self.take(self.sample(n, seed, proportional=proportional))

    def sample(
        self, n: int, seed: int, balanced: bool = True, *, proportional: bool = False
    ) -> Int[Tensor, " m"]:
        """Indices of the images that `drawn` returns, on the CPU."""
        if n >= len(self) or not balanced:
            return torch.arange(min(n, len(self)))
        return torch.from_numpy(draw(self.labels.cpu().numpy(), (n,), seed, MEASURED, proportional)[0])


@dataclass(frozen=True)
class Planted:
    """The parts that a generated data set is drawn from, as pictures."""

    parts: UInt8[Tensor, "p 3 s s"]
    shows: tuple[tuple[int, ...], ...]
    """The parts of each class, its own first."""
    strengths: Mapping[str, Float[Tensor, "n p"]] = field(default_factory=dict)
    """How strongly each image of train, val and test shows each part; 0 if it does not."""


@dataclass(frozen=True, repr=False)
class Splits:
    """A data set in memory: three parts, the class names, what is known about it."""

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    """With escapes for what cannot be printed."""
    checksum: str
    """Of the images and labels of all three parts, 16 hex digits."""
    sharing: Int[Tensor, "k k"] | None = None
    """The true sharing matrix, where it is known."""
    left_out: tuple[tuple[Part, str], ...] = ()
    """What the reader did not read, in words, by the part of the files (`train` or `test`)."""
    planted: Planted | None = None
    """Which parts the classes show, where the data are drawn from known ones."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(printable, self.class_names)))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, name))} {name}" for name in ("train", "val", "test"))
        _, channels, *size = self.test.images.shape
        of = f"{' x '.join(map(str, size))} pixels, {channels} channels"
        return f"<data of {len(self.class_names)} classes: {sizes} images of {of}>"

    def part(self, name: str) -> Split:
        """`train`, `val` or `test`; raises UserError if it is empty or unknown."""
        if name not in ("train", "val", "test"):
            raise UserError(f"unknown split '{name}'; known: train, val, test")
        part: Split = getattr(self, name)
        if name == "train" and len(part) == 0:
            raise UserError("there are no training images; give data that hold some, or choose another split")
        if len(part) == 0:
            raise UserError(f"there are no {name} images; set data.n_{name}, or choose another split")
        return part

    def to(self, device: torch.device) -> "Splits":
        """The same on a device."""
        train, val, test = (part.to(device) for part in (self.train, self.val, self.test))
        return replace(self, train=train, val=val, test=test)

    def left_out_of(self, part: str) -> list[str]:
        """What is missing in `train`, `val` or `test` because the reader left it out, in words."""
        return [words for file, words in self.left_out if file == ("test" if part == "test" else "train")]


def as_float(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """[0, 255] to [0, 1]."""
    return images.float().div_(255)


def batches(n: int, size: int, g: torch.Generator | None) -> list[Int[Tensor, " b"]]:
    """Index batches of one epoch: shuffled by g, or in order; the last may be smaller, none is dropped."""
    order = torch.arange(n) if g is None else torch.randperm(n, generator=g)
    return list(order.split(size))


class Data(Settings):
    """Base of the data sets: settings that are called for the images; one class, in one file, for each.

    A new data set defines `__call__`, says what is known of it in the attributes below, and is registered by
    `register(AnyData, MyData)`.
    """

    kind: str
    label_noise: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training images that get a wrong label, each other class being as likely; the labels of
    validation and test images stay."""

    statistics: ClassVar[Statistics | None] = None
    """For `model.normalise=` (the kind without `_`)."""
    shape: ClassVar[tuple[int, int] | None] = None
    """Number of classes and pixels along a side, which tell that a file of weights is for this data set."""
    mini: ClassVar[Mapping[str, Any] | None] = None
    """Settings at size mini, such as `n_train`; None for a data set that is small as it is."""
    patterns: ClassVar[tuple[str, ...]] = ()
    """Names (glob patterns) by which a folder is known to hold this data set."""

    def __call__(self) -> Splits:
        """The three parts, on the CPU. Raises UserError if the files are absent or damaged."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    @property
    def draw_seed(self) -> int:
        """The seed of what is drawn of these data, such as which labels are wrong."""
        return 0

    def for_seed(self: D, seed: int) -> D:
        """The data of a repetition of a run: itself, but for generated data, which are drawn anew."""
        return self

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """Whether a folder seems to hold this data set."""
        return any(True for pattern in cls.patterns for _ in folder.glob(pattern))


class ArraySplit(NamedTuple):
    """One split as it is on disk, in file order."""

    images: np.ndarray  # uint8 [n, h, w, c], c in {1, 3}
    labels: np.ndarray  # int64 [n]
    class_names: tuple[str, ...]
    left_out: str = ""
    """What lies among the files and was not read, in words."""

    def first(self, n: int) -> "ArraySplit":
        """The first n images."""
        return self._replace(images=self.images[:n], labels=self.labels[:n])


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
    from crossclass.data import AnyData  # the family, whose members import this file

    if wanted.exists():
        return ""
    for other in members(AnyData):
        if kind_of(other) != kind and other.lies_in(wanted.parent):
            return f", or use data.kind={kind_of(other)}, as this seems to be"
    return ""
