"""What the images of a data set show by themselves: a wrong scale, no content, copies of each other."""

from collections import Counter
from collections.abc import Iterator

from crossclass.data.base import Split, Splits

DARK = 128
"""Of 255; a whole set whose largest pixel is smaller was hardly meant to use 8 bits."""
COPIES = 0.01
"""Share of copies from which a line is given; a few lie in published sets."""


def image_warnings(splits: Splits, measured: str) -> list[str]:
    """One sentence for each thing that makes numbers on these images mean something else.

    Args:
        splits: The whole set.
        measured: The part that numbers are measured on: `train`, `val` or `test`.
    """
    return [*_scale(splits), *_copies(splits, measured)]


def _scale(splits: Splits) -> Iterator[str]:
    parts = [part.images for part in (splits.train, splits.val, splits.test) if len(part)]
    top, low = (extreme(int(getattr(p, extreme.__name__)()) for p in parts) for extreme in (max, min))
    if low == top:
        yield f"all pixels of all images are {top} of 255: no number on these images means anything"
    elif top < DARK:
        yield (
            f"the largest pixel of all images is {top} of 255: eps is a share of 255, so a ball of "
            f"8/255 is {8 / top:.0%} of their range here; spread them over 0..255 if {top} is white"
        )
    flat = sum(int((p.flatten(1).amax(1) == p.flatten(1).amin(1)).sum()) for p in parts)
    n = sum(len(p) for p in parts)
    if low < top and flat >= max(1.0, COPIES * n):
        yield f"{flat} of {n} images have one value in all pixels of all channels: they show nothing"


def _copies(splits: Splits, measured: str) -> Iterator[str]:
    part: Split = getattr(splits, measured)
    n, own = len(part), part.image_digests
    if measured != "train" and len(splits.train):
        trained = set(splits.train.image_digests)
        if (seen := sum(h in trained for h in own)) >= max(1.0, COPIES * n):
            yield (
                f"{seen} of {n} {measured} images are training images too: accuracy on them says nothing "
                "about new images; take them out of one of the parts"
            )
    if (more := n - len(Counter(own))) >= max(1.0, COPIES * n):
        yield (
            f"{more} of {n} {measured} images are copies of others: the intervals are too narrow, as they "
            "count each as a new image"
        )
