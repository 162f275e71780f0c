"""scikit-learn's scanned digits: real images that come with a dependency."""

from typing import Literal

import numpy as np
from pydantic import Field

from crossclass.data.base import ArraySplit, Splits
from crossclass.data.subset import Subset


class Digits(Subset):
    """scikit-learn's 1,797 scanned digits, 8x8, gray: real images that need no download.

    The last 297 are the test part. Robust overfitting is only slight on them.
    """

    kind: Literal["digits"] = "digits"
    n_val: int = Field(default=300, ge=0)
    balanced: bool | None = False
    """Whether parts are drawn class-balanced; in the file's order, which is mixed, they are nearly so."""

    def __call__(self) -> Splits:
        """Read the digits: 17 grays, spread over 0..255."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
        whole = ArraySplit(images, digits.target.astype(np.int64), tuple("0123456789"))
        tail = ArraySplit(whole.images[1500:], whole.labels[1500:], whole.class_names)
        return self.cut(whole.first(1500), tail, "digits")
