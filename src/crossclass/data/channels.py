"""The number of channels follows the network: gray pictures that were read as RGB have three equal ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from crossclass.core.errors import UserError
from crossclass.data.base import Split, Splits

T = TypeVar("T")
ONE_OF_THREE = (
    "the network takes one channel, and all images are gray: one of their three equal channels is used"
)


def is_gray(splits: Splits) -> bool:
    """Whether every image of every part has equal channels."""
    return all(
        torch.equal(block[:, :1].expand_as(block), block)
        for part in (splits.train, splits.val, splits.test)
        for block in part.images.split(4096)
    )


def one_channel(splits: Splits) -> Splits:
    """The same with the first channel of every image alone."""
    parts = (Split(p.images[:, :1].contiguous(), p.labels) for p in (splits.train, splits.val, splits.test))
    train, val, test = parts
    return replace(splits, train=train, val=val, test=test)


def with_channels_of(make: Callable[[Splits], T], splits: Splits) -> tuple[T, Splits, str]:
    """What `make` makes of the images, or of one of their three channels if it takes no others.

    Args:
        make: Makes a network for images; raises UserError if it does not take such images.
        splits: The images.

    Returns:
        What was made, the images that it takes, and a note if these are others, else an empty text.

    Raises:
        UserError: As `make`; or the network takes one channel and the images are in colour.
    """
    try:
        return make(splits), splits, ""
    except UserError:
        if splits.test.images.shape[1] != 3:
            raise
        gray = one_channel(splits)
        try:
            made = make(gray)
        except UserError:
            made = None
        if made is None:
            raise
    require_gray(splits, "the network")
    return made, gray, ONE_OF_THREE


def require_gray(splits: Splits, what: str) -> None:
    """Raises UserError if some image is in colour, which `what` does not take."""
    if not is_gray(splits):
        raise UserError(
            f"{what} takes images of one channel, and these are in colour; convert them, as "
            "data.kind=folder data.channels=1 data.to_gray=true does"
        )
