"""The first check of the closed forms: numeric integration of the loss, and of P_all for K classes.

The adversary comes from signs (`samples`); nothing here uses Lemma 1 or a closed form. For K = 3 a
sample has three active features; its loss has a kink where the two cross-class ones are equal, so these are
turned by 45 degrees and integrated on either side.
"""

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import ndtr

from crossclass.paper.theory.samples import Scalar, worst_case

_REACH = 9.0
"""Standard deviations after which a normal variable is cut off; 1e-19 of the mass is lost."""


def _normal(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for polynomials of degree 2n - 1; between kinks a sample's loss is linear."""
    z, w = np.polynomial.hermite_e.hermegauss(n)
    return z, w / w.sum()


def _two_sided(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for a standard normal whose integrand has a kink at 0."""
    t, w = np.polynomial.legendre.leggauss(n)
    z, w = _REACH * (t + 1) / 2, w * _REACH / 2
    w = w * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    return np.concatenate([-z, z]), np.concatenate([w, w])


def nodes(mu: Scalar, sigma: Scalar) -> tuple[Float[np.ndarray, "n 6"], Float[np.ndarray, " n"]]:
    """Samples of class 1 (eq. 8) and weights that sum to 1: weighted means are expectations."""
    (e, we), (s, ws), (d, wd) = _normal(2), _normal(2), _two_sided(40)
    E, S, D = (a.ravel() for a in np.meshgrid(e, s, d, indexing="ij"))
    weight = (we[:, None, None] * ws[:, None] * wd).ravel()
    x = np.zeros((len(E), 6))
    x[:, 0] = mu + sigma * E
    x[:, 4], x[:, 5] = mu + sigma * (S + D) / np.sqrt(2), mu + sigma * (S - D) / np.sqrt(2)
    return x, weight


def loss(
    w1: Scalar,
    w2: Scalar,
    mu: Scalar,
    sigma: Scalar,
    eps: Scalar,
    lam: Scalar = 1.0,
    beta: Scalar = 0.0,
    reading: str = "A",
) -> float:
    """The loss of `closed.loss` for K = 3."""
    x, weight = nodes(mu, sigma)
    values = worst_case(x, np.zeros(len(x), dtype=int), w1, w2, eps, beta, reading)
    return float(weight @ values) + lam / 2 * (w1 * w1 + w2 * w2)


def optimum(
    mu: Scalar, sigma: Scalar, eps: Scalar, lam: Scalar = 1.0, beta: Scalar = 0.0, reading: str = "A"
) -> tuple[float, float]:
    """The minimiser of `closed.optimum` for K = 3, by a search that uses values of the expected loss only."""
    x, weight = nodes(mu, sigma)
    y = np.zeros(len(x), dtype=int)

    def value(w: np.ndarray) -> float:
        w1, w2 = float(w[0]), float(w[1])
        values = worst_case(x, y, w1, w2, eps, beta, reading)
        return float(weight @ values) + lam / 2 * (w1 * w1 + w2 * w2)

    far = 2 * (mu + 2 * sigma) / lam
    start = np.array([mu / lam, mu / lam]) / 2
    options = {"xatol": 1e-9 * far, "fatol": 0.0, "maxiter": 400}
    minimum = minimize(value, start, method="Nelder-Mead", bounds=[(0, far), (0, far)], options=options)
    return float(minimum.x[0]), float(minimum.x[1])


def p_all(w1: Scalar, w2: Scalar, mu: Scalar, sigma: Scalar, eps: Scalar, classes: int = 3) -> float:
    """Top-1 robust accuracy in the complement layout: given x_E, all K - 1 margins are independent.

    int phi(z) Phi((w1 (mu + sigma z - 2 eps) + w2 (mu - 2 eps)) / (sigma w2))^(K-1) dz, w1 and w2 > 0.
    """
    step = min(2.0**-8, w2 / (16 * w1))  # the inner factor turns within w2 / w1
    z = step * np.arange(-int(_REACH / step), int(_REACH / step) + 1)
    gap = mu - 2 * eps
    inner = ndtr((w1 * (gap + sigma * z) + w2 * gap) / (sigma * w2))
    return float(np.sum(np.exp(-z * z / 2) * inner ** (classes - 1)) * step / np.sqrt(2 * np.pi))
