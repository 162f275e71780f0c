"""How far the numbers of one test set may be from those of other test sets of the same population and size.

Every score is linear in the samples up to noise of a higher order: T is close to T0 + sum over classes i of
the mean of v(x) over the x of class i, and its variance is that of a mean stratified by class,
sum_i var_i(v) / n_i. There are no draws and no seed. For two checkpoints on the same images v is the
difference: paired.

CAS is a function of class means, and v(x) are its derivatives with respect to the samples' weights (the
infinitesimal jackknife). I-CAS is no such function: a sample also counts as a neighbour of others, so v(x) is
what is lost when x is left out (the jackknife: `_icas`). I-CAS grows with n, and the truth that its interval
is to hold is the mean over fresh test sets of as many images of each class; CAS has a limit, and its
interval is to hold that.

CAS of a sample is biased twice, and its interval is centred on the estimate with both biases removed:

1. Noise lengthens A_i and so makes every cosine too small. Let A_i = L (u + r u + t), L and u length and
   direction of E A_i, r the noise along u and t that across it. To second order A_i / |A_i| is
   u + t - r t - u |t|^2 / 2: noise along u (images that differ in scale) changes no direction. So the
   tangential part alone, E |L t|^2 = (tr Cov_i - u . Cov_i u) / n_i, is subtracted from |A_i|^2 before
   normalising. Classes are independent, so E C_ij is the product of both expected directions and nothing else
   is of that order but -E[r t], which is at most the deviation of C_ij times that of r and zero where scale
   and direction of an image are independent. It is left in: its estimate does more harm from few images.
2. max(., 0) turns noise around 0 into sharing, for each pair of unrelated classes: `positive_part`. No
   estimate removes this everywhere. What is left has one sign in all pairs at worst, and with many classes
   it then exceeds the noise of their sum. So the interval is wide enough for any bias up to a bound of it:
   its half width is the 95 % quantile of |N(bound, noise)| (Armstrong and Kolesar 2018). The bound of a
   difference (`bias_left_of_difference`) is too large even at worst; there squares are added.

The percentile bootstrap repeats both biases instead, and misses the truth where they exceed the noise.
"""

from collections.abc import Iterator
from math import hypot, inf, isfinite, pi, sqrt
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import chndtrix, stdtrit
from torch import Tensor

from crossclass.analysis import attribution, instances
from crossclass.analysis.instances import Neighbours

METHOD = (
    "CAS: infinitesimal jackknife stratified by class, corrected for its bias (tangential noise), widened by "
    "a bound of the bias that is left; "
    "I-CAS: jackknife stratified by class, an image also as a neighbour of others; accuracy: Wilson, "
    "differences of accuracy: Bonett-Price; differences are paired by image"
)
"""How the intervals come about, for files that quote them."""

LEVEL = 0.95
"""The confidence level of every interval in a file."""

Checkpoint = tuple[Float[Tensor, "n _"], Float[Tensor, "k _"]]
"""Features g of the images and the head's weights W; two checkpoints may differ in width."""


TOO_NOISY = 0.2
"""From here on CAS as printed and CAS corrected differ so much that both are named."""


class Interval(NamedTuple):
    """A confidence interval at `LEVEL`, around `estimate - bias`; for CAS `estimate` may lie outside."""

    estimate: float
    """The plain value of the sample, as it is printed everywhere else."""
    low: float
    high: float
    bias: float = 0.0
    """How far the estimate is expected to be above the truth."""
    noise: float = 0.0
    """Of CAS: the share of the mean square of C_ij that is noise."""


def doubt(cas: Interval) -> str | None:
    """A warning if much of C is noise, so that even the interval of CAS says little."""
    if cas.noise <= TOO_NOISY:
        return None
    return (
        f"{cas.noise:.0%} of the mean square of C off its diagonal is noise of these images: CAS is "
        f"{cas.estimate:.2f}, corrected for it {cas.estimate - cas.bias:.2f}, and with many classes "
        "that correction is uncertain, so that its interval is wide; measure more images of each class"
    )


def finite_ends(interval: Interval) -> tuple[float | None, float | None]:
    """The ends for JSON, with None for an end that is not finite."""
    low, high = (v if isfinite(v) else None for v in (interval.low, interval.high))
    return low, high


def accuracy(right: Bool[Tensor, " n"], y: Int[Tensor, " n"]) -> Interval:
    """Of the fraction classified rightly: Wilson's score interval, for a sample with fixed class sizes.

    Wilson's n is replaced by the one at which a plain sample would vary as much as the stratified one
    does; class rates are drawn towards 1/2 by one success and one failure, so that 0 and 1 stay sane.
    """
    n, k, z = len(y), int(y.max()) + 1, _quantile()
    count = torch.bincount(y, minlength=k).to(torch.float64)
    hits = torch.bincount(y[right], minlength=k).to(torch.float64)
    share, rate = count / n, (hits + 1) / (count + 2)
    p = float((share * rate).sum())
    n_effective = n * p * (1 - p) / float((share * rate * (1 - rate)).sum())
    estimate, w = int(right.sum()) / n, z * z / n_effective
    centre = (estimate + w / 2) / (1 + w)
    half = sqrt(w * estimate * (1 - estimate) + w * w / 4) / (1 + w)
    return Interval(estimate, max(0.0, centre - half), min(1.0, centre + half))


def accuracy_difference(a: Bool[Tensor, " n"], b: Bool[Tensor, " n"]) -> Interval:
    """Of accuracy a minus accuracy b on the same images (Bonett and Price 2012).

    Only images on which they differ say anything; one is added on either side, which keeps the coverage
    at small counts. Classes play no part: their differences vary too little to be worth it.
    """
    n, z = len(a), _quantile()
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    up, down = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = z * sqrt((up + down - (up - down) ** 2) / (n + 2))
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    return Interval((only_a - only_b) / n, low, high)


def mean_difference(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Interval:
    """Of the mean of x minus the mean of y, paired (Student's t); infinite for fewer than two pairs."""
    difference, n = x.to(torch.float64) - y.to(torch.float64), len(x)
    mean = float(difference.mean())
    if n < 2:
        return Interval(mean, -inf, inf)
    half = _quantile(float(n - 1)) * float(difference.std()) / sqrt(n)
    return Interval(mean, mean - half, mean + half)


def cas(g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Int[Tensor, " n"]) -> Interval:
    """Of CAS, between 0 and k(k-1).

    Not to be relied on where a class mean is no longer than its noise, or where CAS is almost 0 because
    all but a few C_ij are negative. Classes without samples share nothing; with a single sample in a class
    its spread is unknown, and the interval is the whole range.
    """
    most = float(len(W) * (len(W) - 1))
    return _interval(_cas(g, W, y), y, 0.0, most)


def cas_difference(a: Checkpoint, b: Checkpoint, y: Int[Tensor, " n"]) -> Interval:
    """Of CAS of a minus CAS of b, two checkpoints on (adversarial versions of) the same images."""
    most = float(len(a[1]) * (len(a[1]) - 1))
    return _interval(_minus(_cas(*a, y), _cas(*b, y)), y, -most, most)


def icas(near: Neighbours, y: Int[Tensor, " n"]) -> Interval:
    """Of the mean I-CAS of fresh test sets with as many images of each class (I-CAS grows with them).

    Each sample takes part twice, as one whose neighbours are looked up and as a neighbour of others. With a
    single sample in a class its weight is unknown, and the interval is the whole range.

    Args:
        near: `instances.neighbours` of the samples.
        y: their classes.
    """
    k = near.best.shape[1]
    return _interval(_icas(near, y), y, 0.0, float(k * (k - 1)))


def icas_difference(a: Neighbours, b: Neighbours, y: Int[Tensor, " n"]) -> Interval:
    """Of I-CAS of a minus I-CAS of b; both are `instances.neighbours` of the same images."""
    most = float(a.best.shape[1] * (a.best.shape[1] - 1))
    return _interval(_minus(_icas(a, y), _icas(b, y)), y, -most, most)


def of_influences(
    plain: float, corrected: float, v: Float[Tensor, " n"], y: Int[Tensor, " n"], most: float
) -> Interval:
    """Of a score between 0 and `most` that is linear in the images up to noise of a higher order.

    Args:
        plain: the score of the sample.
        corrected: the same with its bias removed.
        v: the influence of each image: what the score moves by, as its class mean of v does.
        y: classes of the images.
        most: the largest possible score.
    """
    return _interval(_Score(plain, corrected, v), y, 0.0, most)


def positive_part(
    c: Float[Tensor, "*shape"], s: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """An estimate of max(E c, 0) for normal c of deviation s, and its derivative by c.

    No estimate is unbiased everywhere. With z = c / s, max(c, 0) is high by s h(E z), h(z) = phi(z) -
    |z| Phi(-|z|), at most 0.40 s. Subtracting s h(z), what one bootstrap of the bias gives, leaves 0.23 s of
    it at E z = 0, where classes are unrelated. Subtracting s 4(sqrt 2 - 1)(1 - z^2) phi(z) as well is exactly
    unbiased there and on average over E z spread evenly, and within 0.16 s everywhere. A function of normal
    noise varies at most as much as its linearisation does on average (Poincare): intervals are rather wide.
    """
    z = (c / s.clamp(min=1e-12)).clamp(-30.0, 30.0)
    phi = torch.exp(-z * z / 2) / sqrt(2 * pi)
    spike = 4 * (sqrt(2) - 1) * phi
    value = c.clamp(min=0) - s * (phi - z.abs() * torch.special.ndtr(-z.abs()) + spike * (1 - z * z))
    slope = 2.0 * (z > 0) - torch.special.ndtr(z) - spike * (z**3 - 3 * z)
    return value, slope


def bias_left(c: Float[Tensor, "*shape"], s: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A bound of the bias that `positive_part` leaves: its expectation is nowhere less than |bias|."""
    z = (c / s.clamp(min=1e-12)).clamp(-30.0, 30.0)
    return 0.171 * s * torch.exp(-z * z / 12)


def bias_left_of_difference(
    c: tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]],
    s: tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]],
) -> Float[Tensor, "*shape"]:
    """The same of a difference of two.

    The bias that is left is Lipschitz in E c (0.48) and in s (0.34), and E |c - c'| is at least
    |E c - E c'|. So it nearly cancels where two checkpoints agree.
    """
    alike = 0.48 * (c[0] - c[1]).abs() + 0.34 * (s[0] - s[1]).abs()
    return torch.minimum(bias_left(c[0], s[0]) + bias_left(c[1], s[1]), alike)


_LEAST = 0.1
"""The share of |A_i|^2 that is left at least when its noise is subtracted."""
_FEW = 30
"""Up to so many images a class, on average, the variance of C_ij is taken to second order."""
_BLOCK = 1024
"""Samples at a time."""


class _Score(NamedTuple):
    """A score of one sample: as printed, with its bias removed, and what each sample adds to it."""

    plain: float
    corrected: float
    v: Float[Tensor, " n"]
    noise: float = 0.0
    C: Float[Tensor, "k k"] = torch.zeros(0, 0)
    """Of CAS: the corrected cosines, and their deviations."""
    deviation: Float[Tensor, "k k"] = torch.zeros(0, 0)
    left: float = 0.0
    """A bound of the bias that `corrected` still has."""
    paired: bool = False
    """Whether it is a difference."""


def _minus(a: _Score, b: _Score) -> _Score:
    left = bias_left_of_difference((a.C, b.C), (a.deviation, b.deviation))
    return _Score(
        a.plain - b.plain,
        a.corrected - b.corrected,
        a.v - b.v,
        max(a.noise, b.noise),
        left=float(attribution.off_diagonal(left).sum()),
        paired=True,
    )


def _interval(score: _Score, y: Tensor, least: float, most: float) -> Interval:
    n = torch.bincount(y).to(torch.float64)
    if len(y) == 0 or bool((n == 1).any()):
        return Interval(score.plain, least, most, noise=score.noise)
    n, y = n.clamp(min=2), y.long()  # absent classes have no v
    mean = torch.zeros_like(n).index_add_(0, y, score.v) / n
    part = torch.zeros_like(n).index_add_(0, y, (score.v - mean[y]) ** 2) / (n * (n - 1))
    variance = float(part.sum())
    share = part / variance if variance else torch.zeros_like(part)  # of squares only: they may underflow
    freedom = 1 / float((share**2 / (n - 1)).sum()) if variance else 1.0  # Welch
    half = _half(_quantile(freedom) * sqrt(variance), score)
    low, high = (min(max(score.corrected + side, least), most) for side in (-half, half))
    return Interval(score.plain, low, high, score.plain - score.corrected, score.noise)


def _half(half: float, score: _Score) -> float:
    """Half the width, from that without bias."""
    if score.paired or not score.left:
        return hypot(half, score.left)
    half = max(half, score.left / 1000)  # keeps the quotient finite
    return half / _quantile() * sqrt(chndtrix(LEVEL, 1, (_quantile() * score.left / half) ** 2))


def _quantile(freedom: float = inf) -> float:
    """Student's two-sided quantile; the normal one for infinite degrees of freedom."""
    return float(stdtrit(freedom, 0.5 + LEVEL / 2))


def _icas(near: Neighbours, y: Tensor) -> _Score:
    """v(x) is (n_i - 1) times what I-CAS loses when x of class i is left out: a jackknife's pseudo-value.

    Without x its own row of `best` leaves the means I[i], and every sample of which x is the nearest of
    class i falls back on its second nearest. So (n_i - 1) / n_i sum (loss - its mean)^2, the jackknife's
    variance of class i, is that of the mean of v, and it is too wide rather than too narrow on average
    (Efron and Stein 1981, for any function of independent samples; n - 1 samples vary more than n).
    """
    I, y = instances.instance_correlation(near.best, y), y.long()  # noqa: E741 - the paper's matrix
    I.fill_diagonal_(0.0)
    n = torch.bincount(y, minlength=len(I)).to(torch.float64)
    shared = I.clamp(min=0)
    place = torch.empty_like(y)  # of a sample within its class
    v = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    for i in torch.nonzero(n > 1).flatten().tolist():
        rows, others = torch.nonzero(y == i).flatten(), torch.nonzero(y != i).flatten()
        place[rows] = torch.arange(len(rows), device=y.device)
        outer = (n[i] * I[i] - near.best[rows]) / (n[i] - 1)
        outer[:, i] = 0.0
        fall = (near.best[others, i].to(torch.float64) - near.second[others, i]) / n[y[others]]
        column = torch.zeros(len(rows) * len(I), dtype=torch.float64, device=y.device)
        column.index_add_(0, place[near.which[others, i].long()] * len(I) + y[others], fall)
        inner = I[:, i] - column.view(len(rows), len(I))
        lost = shared[i] - outer.clamp(min=0) + shared[:, i] - inner.clamp(min=0)
        v[rows] = (n[i] - 1) * lost.sum(dim=1)
    plain = attribution.cas(I)
    return _Score(plain, plain, v)


def _products(t: Tensor, y: Tensor, k: int, block: int = _BLOCK) -> Tensor:
    """Of each pair of classes, the sum over both their rows of t of the squared dot product.

    t_i . t_j adds E (t_i . t_j)^2 to the variance of C_ij. The squares (t_i . u_j)^2 and (t_j . u_i)^2 of
    noisy u contain it once each, so that their sum has it twice; it is O(1 / n^2), but from five images of
    each of 100 classes it is most of the variance.
    """
    within, across = torch.zeros(2, k, k, dtype=torch.float64, device=t.device)
    for top in range(0, len(t), block):
        squares = (t[top : top + block] @ t[top:].T).square().to(torch.float64)
        for total, part, first in (
            (within, squares[:, :block], top),
            (across, squares[:, block:], top + block),
        ):
            columns = torch.zeros(len(part), k, dtype=torch.float64, device=t.device)
            columns.index_add_(1, y[first : first + part.shape[1]], part)
            total.index_add_(0, y[top : top + block], columns)
    return within + across + across.T


def _cas(g: Tensor, W: Tensor, y: Tensor) -> _Score:
    k, W, y = len(W), W.to(torch.float64), y.long()
    A = attribution.class_means(g, W, y)
    plain = attribution.cas(attribution.correlation(A).nan_to_num(0.0))  # as in `EvaluationPass.C`
    scale = A.abs().amax(dim=1)
    usable = (scale > 0) & scale.isfinite()
    # the length of a class's attributions drops out of every cosine, so long and tiny ones are alike here
    scale = torch.where(usable, scale, 1.0)[:, None]
    A, W = torch.where(usable[:, None], A / scale, 0.0), W / scale
    rows = torch.nonzero(usable[y]).flatten()
    n = torch.bincount(y, minlength=k).to(torch.float64)
    squared = (n * (n - 1)).clamp(min=1)

    def deviations() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for part in rows.split(_BLOCK):
            yield part, y[part], g[part].to(torch.float64) * W[y[part]] - A[y[part]]

    def along(i: Tensor, a: Tensor) -> Tensor:
        return (a * A[i]).sum(dim=1) / square[i]

    square, noise = (
        A.square().sum(dim=1).clamp(min=1e-12),
        torch.zeros(k, dtype=torch.float64, device=g.device),
    )
    for _, i, a in deviations():
        noise.index_add_(0, i, a.square().sum(dim=1) - along(i, a) ** 2 * square[i])
    # a class that cannot be told from its noise would get any cosine
    length = torch.maximum(square - noise / squared, _LEAST * square).sqrt()[:, None]
    u = A / length
    C = u @ u.T
    s2, few = torch.zeros_like(C), len(y) <= _FEW * k
    across = torch.zeros(g.shape if few else 0, dtype=torch.float32, device=g.device)
    for part, i, a in deviations():
        moves = a @ u.T / length[i]
        moves -= C[i] * moves.gather(1, i[:, None])
        s2.index_add_(0, i, moves.square() / squared[i, None])
        if few:
            across[part] = ((a - along(i, a)[:, None] * A[i]) / (length * squared[:, None].sqrt())[i]).float()
    s2 += s2.T.clone()
    if few:
        s2 = torch.maximum(s2 - _products(across, y, k), s2 / 2)
    deviation = s2.sqrt()
    value, slope = positive_part(C, deviation)
    slope.fill_diagonal_(0.0)
    # C_ij moves by (u_j - C_ij u_i) . (a(x) - A_i) / |A_i|; twice, because C_ji moves with it
    by = 2 * (slope @ u - (slope * C).sum(dim=1, keepdim=True) * u) / length
    v = torch.zeros(len(y), dtype=torch.float64, device=g.device)
    for part, i, a in deviations():
        v[part] = (a * by[i]).sum(dim=1)
    corrected, entries, errors, left = (
        float(attribution.off_diagonal(m).sum()) for m in (value, C.square(), s2, bias_left(C, deviation))
    )
    noise_share = min(1.0, errors / entries) if entries else 0.0
    return _Score(plain, corrected, v, noise_share, C, deviation, left)
