"""CAS of the theory's linear model in closed form, and back: from CAS to w2/w1.

The model is f = W g(x) with g(x) = x; W_i is w1 on E_i and w2 on the cross-class features of class i, which
are just those that are active on class i. So the mean attribution of class i (eq. 5) is

    A_i = w1 e  on the d_E copies of E_i,    w2 c  on its (K-1) d_C cross-class features,    0 elsewhere,

where e and c are the means of an active exclusive and an active cross-class feature. Two classes have no
exclusive feature in common and n d_C cross-class ones (`Layout.common`: in the complement layout
n = K-2, C_k for k != i, j; pairwise n = 1, that of {i, j}). Hence for i != j (eqs. 6, 7), with
q = w2 c / (w1 e),

    C_ij = n d_C (w2 c)^2 / (d_E (w1 e)^2 + (K-1) d_C (w2 c)^2) = n d_C q^2 / (d_E + (K-1) d_C q^2),
    CAS  = K (K-1) C_ij <= K n.

On clean samples e = c = mu, and q = w2/w1. What an l_inf attack of radius eps moves (w1, w2 > 0):

margin         towards the best rival j only: E_i and those features of i that j lacks fall by eps, the others
               of i stay (they do not tell i from j). Each j is the rival equally often, so e = mu - eps,
               and c = mu - eps/(K-1) (complement: only C_j falls) or mu - eps (K-2)/(K-1) (pairwise: all
               but one).
cross-entropy  the gradient sum_l p_l W_l - W_i is negative on every feature of i: -p_k w2 on C_k, and
               (p_i + p_b - 1) w2 on {i, b}. So e = c = mu - eps: C and CAS are those of clean samples.

C sees nothing but the ratio of the weights, and CAS is 0 exactly if w2 is: with AT's weights, from eps0 on.
"""

import numpy as np

from crossclass.core.errors import UserError, did_you_mean
from crossclass.paper.theory import closed
from crossclass.paper.theory.samples import design, weights
from crossclass.paper.theory.setting import PAPER, Layout, Number

CRAFTS = ("none", "margin", "ce")
"""Losses whose attack CAS is known under; `none` is clean samples."""


def active_means(
    mu: Number, eps: Number = 0.0, craft: str = "none", layout: Layout = PAPER
) -> tuple[Number, Number]:
    """(e, c): means of an active exclusive and an active cross-class feature after the attack on `craft`.

    Needs w1, w2 > 0 (a feature of weight zero is not moved, and does not count). Raises UserError for an
    attack that is not one of `CRAFTS`.
    """
    if craft not in CRAFTS:
        raise UserError(f"no closed form of CAS for the attack '{craft}'{did_you_mean(craft, CRAFTS)}")
    if craft == "none":
        return mu + 0 * eps, mu + 0 * eps
    if craft == "ce":
        return mu - eps, mu - eps
    k = layout.classes
    return mu - eps, mu - eps * ((k - 2) if layout.kind == "pairwise" else 1) / (k - 1)


def correlation(
    w1: Number, w2: Number, mu: Number = 1.0, eps: Number = 0.0, craft: str = "none", layout: Layout = PAPER
) -> Number:
    """C_ij for i != j, the same for every pair; 0 for w = 0, as `attribution.correlation` has it."""
    e, c = active_means(mu, eps, craft, layout)
    own, shared = layout.exclusive * np.square(w1 * e), layout.shared * np.square(w2 * c)
    length = own + (layout.classes - 1) * shared
    some = length > 0
    return np.where(some, layout.common / layout.shared * shared / np.where(some, length, 1.0), 0.0)[()]


def cas(
    w1: Number, w2: Number, mu: Number = 1.0, eps: Number = 0.0, craft: str = "none", layout: Layout = PAPER
) -> Number:
    """CAS = K (K-1) C_ij (eq. 7): 6 r^2 / (1 + 2 r^2) with r = w2/w1 in the paper's layout, clean samples."""
    k = layout.classes
    return k * (k - 1) * correlation(w1, w2, mu, eps, craft, layout)


def ratio(
    value: Number, mu: Number = 1.0, eps: Number = 0.0, craft: str = "none", layout: Layout = PAPER
) -> Number:
    """w2/w1 of the model that has this CAS: the inverse of `cas`; infinite at the largest CAS, K n.

    Raises UserError for a CAS that no tied linear model has.
    """
    k, n = layout.classes, layout.common / layout.shared
    if not (np.all(np.greater_equal(value, 0)) and np.all(np.less_equal(value, k * n))):
        raise UserError(
            f"CAS of the tied linear model lies between 0 and {k * n:g} ({layout}); give such a one"
        )
    e, c = active_means(mu, eps, craft, layout)
    C = np.asarray(value) / (k * (k - 1))
    with np.errstate(divide="ignore"):  # at the largest CAS w1 is 0
        q = np.sqrt(layout.exclusive * C / (layout.shared * np.maximum(n - (k - 1) * C, 0.0)))
    return (q * e / c)[()]


def cas_trained(
    mu: Number,
    sigma: Number,
    eps: Number,
    beta: Number = 0.0,
    craft: str = "none",
    layout: Layout = PAPER,
    reading: str = "A",
) -> Number:
    """CAS of the model that AT at eps ends in (theorem 1; with beta > 0 theorem 3): 0 from eps0 (eps1) on."""
    w1, w2 = closed.optimum(mu, sigma, eps, 1.0, beta, reading, layout)
    return cas(w1, w2, mu, eps, craft, layout)


def centred(w1: Number, w2: Number, layout: Layout = PAPER) -> tuple[Number, Number]:
    """The weights on E_i and on the features of class i once the mean row is taken off W, as decay does.

    The same vector added to every row of W changes no difference of logits, so no prediction and no loss, but
    it changes A_i: CAS belongs to W, not to the classifier. Untied rows under a penalty sum to 0. Then W_i is
    w1 (K-1)/K on E_i and w2/K on C_k (complement: K-1 rows hold it) or w2 (K-2)/K on {i, b} (pairwise), and
    clean CAS is `cas` of these two.
    """
    k = layout.classes
    return w1 * (k - 1) / k, w2 * (1 if layout.kind == "complement" else k - 2) / k


def cas_centred(w1: float, w2: float, mu: float = 1.0, eps: float = 0.0, layout: Layout = PAPER) -> float:
    """CAS of the same classifier with rows that sum to 0: clean, or (eps > 0) attacked on cross-entropy.

    That attack lowers every active feature by eps and raises every other one to eps. Rows that sum to 0 have
    negative weights there, so two classes then disagree about each other's features: CAS under attack can be
    0 although w2 = w1 (K = 3: from eps = 0.113 mu on).
    """
    W, active = weights(w1, w2, layout), design(layout).sum(axis=1)
    A = (active * (mu - eps) + (1 - active) * eps) * (W - W.mean(axis=0))
    length = np.linalg.norm(A, axis=1)
    if not length.all():
        return 0.0
    C = A @ A.T / np.outer(length, length)
    return float(np.maximum(C, 0.0).sum() - np.maximum(C.diagonal(), 0.0).sum())
