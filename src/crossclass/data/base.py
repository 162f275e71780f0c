"""A data set in memory: uint8 [n, c, h, w] and int64 [n] on a device; a batch becomes float in [0, 1]."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from crossclass.core.errors import UserError


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
        if name == "train" and len(part) == 0:
            raise UserError("there are no training images; give data that hold some, or choose another split")
        if len(part) == 0:
            raise UserError(f"there are no {name} images; set data.n_{name}, or choose another split")
        return part

    def to(self, device: torch.device) -> "Splits":
        """The same on a device."""
        parts = (self.train.to(device), self.val.to(device), self.test.to(device))
        return Splits(*parts, self.class_names, self.checksum, self.sharing)


def as_float(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """[0, 255] to [0, 1]."""
    return images.float().div_(255)


def batches(n: int, size: int, g: torch.Generator | None) -> list[Int[Tensor, " b"]]:
    """Index batches of one epoch: shuffled by g, or in order; the last may be smaller, none is dropped."""
    order = torch.arange(n) if g is None else torch.randperm(n, generator=g)
    return list(order.split(size))
