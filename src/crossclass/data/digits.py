"""The one set of real images inside an ordinary dependency: scikit-learn's scanned digits."""

import numpy as np

from crossclass.data.raw import ArraySplit


def read_digits() -> ArraySplit:
    """scikit-learn's 1,797 scanned digits of 8 x 8 pixels in 17 grays, spread over 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    return ArraySplit(images, digits.target.astype(np.int64), tuple("0123456789"))
