"""Numbers of the theory for any number of classes that take an integral over one normal variable.

By the trapezoidal rule, which is exact to rounding for an analytic integrand that decays at both ends.
"""

from functools import cache

import numpy as np
from scipy.special import log_ndtr, ndtr

Scalar = float | int


@cache
def expected_max(n: int) -> float:
    """m_n = E max(Z_1, ..., Z_n) = int z n phi(z) Phi(z)^(n-1) dz; m_2 = 1/sqrt(pi) is Lemma 1 (eqs. 18-19).

    Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"a maximum is taken over at least one number, not {n}")
    step = 2.0**-7
    z = step * np.arange(-1536, 1537)
    density = n * np.exp((n - 1) * log_ndtr(z) - z * z / 2) / np.sqrt(2 * np.pi)
    return float(np.sum(z * density) * step)


def p_all(w1: Scalar, w2: Scalar, mu: Scalar, sigma: Scalar, eps: Scalar, classes: int = 3) -> float:
    """Top-1 robust accuracy in the complement layout: given x_E, all K - 1 margins are independent.

    int phi(z) Phi((w1 (mu + sigma z - 2 eps) + w2 (mu - 2 eps)) / (sigma w2))^(K-1) dz, w1 and w2 > 0.
    """
    reach = 9.0  # standard deviations; 1e-19 of the mass lies beyond
    step = min(2.0**-8, w2 / (16 * w1))  # the inner factor turns within w2 / w1
    z = step * np.arange(-int(reach / step), int(reach / step) + 1)
    gap = mu - 2 * eps
    inner = ndtr((w1 * (gap + sigma * z) + w2 * gap) / (sigma * w2))
    return float(np.sum(np.exp(-z * z / 2) * inner ** (classes - 1)) * step / np.sqrt(2 * np.pi))
