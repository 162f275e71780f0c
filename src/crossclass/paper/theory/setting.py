"""The setting of the paper's section 4: its numbers, the conditions on them, and its K-class layouts.

Data (eqs. 8, 14, 15), for K = 3 classes: a sample of class i has the exclusive feature x_E,i ~ N(mu, sigma^2)
and the cross-class features x_C,j ~ N(mu, sigma^2) for j != i, all independent; all others are exactly 0.
Hypotheses (eq. 16): f_i(x) = w1 x_E,i + w2 sum_{j != i} x_C,j with w1, w2 >= 0.

Conditions: 0 < sigma < sqrt(pi) mu (section 4.1), 0 <= eps < mu/2 (theorems 1-3), 0 <= beta < 1/3 (eq. 13).
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from crossclass.core.errors import UserError, did_you_mean
from crossclass.paper.theory.integrals import expected_max

Number = float | int | np.ndarray
"""A number or an array of them; functions of several broadcast."""

READINGS = ("A", "B", "C", "D")
"""Which perturbation enters the second term of eq. (13): see `closed.penalty`. "A" is adopted."""
KINDS = ("complement", "pairwise")


@dataclass(frozen=True)
class Layout:
    """How classes share features: the paper's way (K = 3), two ways for K classes, and copies of features.

    `complement`: K cross-class features, x_C,j active for all classes but j (eq. 8, word for word).
    `pairwise`: one cross-class feature for each pair {a, b}, active for a and b.
    Both are the paper's own for K = 3. Copies of each exclusive and each cross-class feature are offered for
    K = 3. Raises UserError for K < 3, fewer than one copy, an unknown kind, or copies with K > 3.
    """

    classes: int = 3
    kind: str = "complement"
    """One of `KINDS`."""
    exclusive: int = 1
    """d_E, how many copies of each exclusive feature there are."""
    shared: int = 1
    """d_C, how many copies of each cross-class feature there are."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"there is no layout '{self.kind}'{did_you_mean(self.kind, KINDS)}")
        if self.classes < 3:
            raise UserError(
                f"the theory needs at least 3 classes, K >= 3 (eq. 8), but K = {self.classes} is given"
            )
        if min(self.exclusive, self.shared) < 1:
            raise UserError(
                "the theory needs each feature at least once (eq. 8), "
                f"but d_E = {self.exclusive} and d_C = {self.shared} are given"
            )
        if self.classes > 3 and max(self.exclusive, self.shared) > 1:
            raise UserError(
                f"copies of features are worked out for K = 3 only, but K = {self.classes} is given; "
                "use d_E = d_C = 1"
            )

    @property
    def distinguishing(self) -> int:
        """N: how many cross-class features tell a class from one fixed other class."""
        return self.shared * (self.classes - 2 if self.kind == "pairwise" else 1)

    @property
    def common(self) -> int:
        """M: how many cross-class features two classes have in common, copies counted.

        So E sum_{j != i} f_j / (K - 1) = M mu w2 on class i, what label smoothing rewards.
        """
        return self.shared * (1 if self.kind == "pairwise" else self.classes - 2)

    @property
    def max_normal(self) -> float:
        """m_{K-1}, the expected maximum of K - 1 standard normals; 1/sqrt(pi) for K = 3 (Lemma 1)."""
        return expected_max(self.classes - 1)

    @property
    def rival_factor(self) -> float:
        """s: the strongest of the K - 1 rivals costs s sigma w2 on average; 1/sqrt(pi) in the paper."""
        return sqrt(self.shared) * self.max_normal

    @property
    def sigma_limit(self) -> float:
        """sigma must be below this times mu, so that eps0 > 0; sqrt(pi) in the paper."""
        return self.distinguishing / self.rival_factor

    def __str__(self) -> str:
        if self == PAPER:
            return "the paper's layout (K = 3)"
        if max(self.exclusive, self.shared) > 1:
            return f"layout of d_E = {self.exclusive}, d_C = {self.shared} copies (K = 3)"
        return f"{self.kind} layout, K = {self.classes}"


PAPER = Layout()
"""The layout of eq. (8): three classes, three exclusive and three cross-class features."""


def admissible(
    mu: Number, sigma: Number, eps: Number = 0.0, beta: Number = 0.0, layout: Layout = PAPER
) -> np.ndarray:
    """Which settings meet the paper's conditions, as a bool array: the ones of `check`, weights apart."""
    mu, sigma, eps, beta = np.broadcast_arrays(mu, sigma, eps, beta)
    inside = (sigma > 0) & (sigma < layout.sigma_limit * mu) & (eps >= 0) & (eps < mu / 2)
    return inside & (beta >= 0) & (beta < 1 / 3) & np.isfinite(mu)


def check(
    mu: Number,
    sigma: Number,
    eps: Number = 0.0,
    beta: Number = 0.0,
    w1: Number = 0.0,
    w2: Number = 0.0,
    layout: Layout = PAPER,
    lam: Number = 1.0,
) -> None:
    """Raise UserError that names the first condition of the paper that a setting breaks, with its numbers."""
    below = "sqrt(pi) mu" if layout == PAPER else f"{layout.sigma_limit:.4g} mu in the {layout}"
    given = {"mu": mu, "sigma": sigma, "eps": eps, "beta": beta, "w1": w1, "w2": w2, "lambda": lam}
    for name, values in given.items():
        _demand(np.isfinite(values), f"{name} must be a finite number", {name: values})
    conditions: tuple[tuple[object, str, tuple[str, ...]], ...] = (
        (np.greater(mu, 0), "mu > 0 (eq. 8)", ("mu",)),
        (np.greater(sigma, 0), "sigma > 0 (eq. 8)", ("sigma",)),
        (
            np.less(sigma, np.multiply(layout.sigma_limit, mu)),
            f"sigma < {below} (section 4.1)",
            ("sigma", "mu"),
        ),
        (np.greater_equal(eps, 0), "eps >= 0 (eq. 10)", ("eps",)),
        (np.less(eps, np.divide(mu, 2)), "eps < mu/2 (theorems 1-3)", ("eps", "mu")),
        (np.greater_equal(beta, 0), "beta >= 0 (eq. 13)", ("beta",)),
        (np.less(beta, 1 / 3), "beta < 1/3 (eq. 13)", ("beta",)),
        (np.greater_equal(w1, 0), "w1 >= 0 (section 4.1)", ("w1",)),
        (np.greater_equal(w2, 0), "w2 >= 0 (section 4.1)", ("w2",)),
        (np.greater(lam, 0), "lambda > 0 (eq. 9)", ("lambda",)),
    )
    for holds, condition, names in conditions:
        _demand(holds, f"the theory needs {condition}", {name: given[name] for name in names})


def check_reading(reading: str) -> None:
    """Raise UserError unless `reading` is one of `READINGS`."""
    if reading not in READINGS:
        raise UserError(f"there is no reading '{reading}' of eq. (13); known: {', '.join(READINGS)}")


def _demand(holds: object, sentence: str, given: dict[str, Number]) -> None:
    fine = np.asarray(holds)
    if fine.all():
        return
    at = np.unravel_index(int(np.argmin(fine)), fine.shape)
    first = {name: float(np.broadcast_to(v, fine.shape)[at]) for name, v in given.items()}
    numbers = " and ".join(f"{name} = {value:.6g}" for name, value in first.items())
    raise UserError(f"{sentence}, but {numbers} {'is' if len(first) == 1 else 'are'} given")
