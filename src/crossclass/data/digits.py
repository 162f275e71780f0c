"""The one set of real images inside an ordinary dependency: scikit-learn's scanned digits."""

from typing import Literal

import numpy as np
from pydantic import Field

from crossclass.data.base import ArraySplit, Splits
from crossclass.data.subset import Subset


def read_digits() -> ArraySplit:
    """scikit-learn's 1,797 scanned digits of 8 x 8 pixels in 17 grays, spread over 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    return ArraySplit(images, digits.target.astype(np.int64), tuple("0123456789"))


class Digits(Subset):
    """scikit-learn's 1,797 scanned digits, 8x8, gray: real images that need no download.

    The last 297 are the test part. Robust overfitting is only slight on them.
    """

    kind: Literal["digits"] = "digits"
    n_val: int = Field(default=300, ge=0)

    def __call__(self) -> Splits:
        """Read the digits."""
        whole = read_digits()
        tail = ArraySplit(whole.images[1500:], whole.labels[1500:], whole.class_names)
        return self.cut(whole.first(1500), tail, "digits")
