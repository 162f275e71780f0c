"""Lemma 1, for any number of classes: the expected maximum m_n of n independent standard normals."""

from functools import cache

import numpy as np
from scipy.special import log_ndtr


@cache
def expected_max(n: int) -> float:
    """m_n = E max(Z_1, ..., Z_n) = int z n phi(z) Phi(z)^(n-1) dz; m_2 = 1/sqrt(pi) is Lemma 1 (eqs. 18-19).

    By the trapezoidal rule, which is exact to rounding for an analytic integrand that decays at both ends.
    Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"a maximum is taken over at least one number, not {n}")
    step = 2.0**-7
    z = step * np.arange(-1536, 1537)
    density = n * np.exp((n - 1) * log_ndtr(z) - z * z / 2) / np.sqrt(2 * np.pi)
    return float(np.sum(z * density) * step)
