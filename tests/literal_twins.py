"""Literal twins: the paper's equations in float64 loops, slow on purpose, importing nothing of crossclass.

Vectors are lists or numpy arrays of one sample; gradients are derived by hand, not by autograd.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Vector = np.ndarray
Loss = Callable[[Vector], float]


# --- losses on the logits z of one sample, and their gradients with respect to z


def log_softmax(z: Sequence[float]) -> list[float]:
    top = max(z)
    total = math.log(sum(math.exp(v - top) for v in z))
    return [v - top - total for v in z]


def softmax(z: Sequence[float]) -> list[float]:
    return [math.exp(v) for v in log_softmax(z)]


def as_probabilities(y: int | Sequence[float], k: int) -> list[float]:
    if np.ndim(y) == 0:
        return [1.0 if j == y else 0.0 for j in range(k)]
    return [float(v) for v in y]  # type: ignore[union-attr]


def label(y: int | Sequence[float]) -> int:
    return int(y) if np.ndim(y) == 0 else int(np.argmax(y))


def cross_entropy(z: Sequence[float], y: int | Sequence[float]) -> float:
    log_p, target = log_softmax(z), as_probabilities(y, len(z))
    return -sum(t * lp for t, lp in zip(target, log_p, strict=True))


def cross_entropy_gradient(z: Sequence[float], y: int | Sequence[float]) -> list[float]:
    p, target = softmax(z), as_probabilities(y, len(z))
    mass = sum(target)
    return [mass * pj - tj for pj, tj in zip(p, target, strict=True)]


def margin(z: Sequence[float], y: int | Sequence[float]) -> float:
    true = label(y)
    return max(v for j, v in enumerate(z) if j != true) - z[true]


def margin_gradient(z: Sequence[float], y: int | Sequence[float]) -> list[float]:
    true, out = label(y), [0.0] * len(z)
    runner_up = max((j for j in range(len(z)) if j != true), key=lambda j: z[j])
    out[runner_up], out[true] = 1.0, -1.0
    return out


def kl(z: Sequence[float], reference: Sequence[float]) -> float:
    """KL(softmax(reference) || softmax(z)) = sum_k p_k (log p_k - log q_k)."""
    log_p, log_q = log_softmax(reference), log_softmax(z)
    return sum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))


def kl_gradient(z: Sequence[float], reference: Sequence[float]) -> list[float]:
    return [q - p for p, q in zip(softmax(reference), softmax(z), strict=True)]


# --- a network small enough to differentiate by hand: z = V tanh(U x + a) + b


@dataclass
class TwoLayers:
    U: Any
    a: Any
    V: Any
    b: Any

    def hidden(self, x: Vector) -> list[float]:
        return [
            math.tanh(sum(self.U[i][j] * x[j] for j in range(len(x))) + self.a[i]) for i in range(len(self.a))
        ]

    def logits(self, x: Vector) -> list[float]:
        h = self.hidden(x)
        return [sum(self.V[k][i] * h[i] for i in range(len(h))) + self.b[k] for k in range(len(self.b))]

    def pull_back(self, x: Vector, dz: Sequence[float]) -> list[float]:
        """Gradient with respect to x of a loss whose gradient with respect to the logits is dz."""
        h = self.hidden(x)
        dh = [(1 - h[i] ** 2) * sum(self.V[k][i] * dz[k] for k in range(len(dz))) for i in range(len(h))]
        return [sum(self.U[i][j] * dh[i] for i in range(len(h))) for j in range(len(x))]


# --- threats: one sample, flat


def norm(kind: str, v: Sequence[float]) -> float:
    return {"linf": max(abs(e) for e in v), "l2": math.sqrt(sum(e * e for e in v))}[kind]


def steepest(kind: str, g: Sequence[float], step: float) -> list[float]:
    if kind == "linf":
        return [step * ((e > 0) - (e < 0)) for e in g]
    length = norm("l2", g)
    return [step * e / length if length > 0 else 0.0 for e in g]


def project(kind: str, v: Sequence[float], eps: float) -> list[float]:
    if kind == "linf":
        return [min(max(e, -eps), eps) for e in v]
    length = norm("l2", v)
    return [e * eps / length for e in v] if length > eps else list(v)


# --- PGD (eq. 2) for one sample


@dataclass
class Search:
    """Everything PGD depends on, as numbers; `starts` holds one delta per restart."""

    net: TwoLayers
    kind: str
    eps: float
    alpha: float
    steps: int
    starts: Sequence[Vector]
    loss: str = "ce"
    targeted: bool = False
    return_iterate: str = "last"
    box: tuple[float, float] | None = (0.0, 1.0)

    def gain(self, x: Vector, clean: Sequence[float], y: int | Sequence[float]) -> float:
        z = self.net.logits(x)
        if self.loss == "kl":
            return kl(z, clean)
        value = cross_entropy(z, y) if self.loss == "ce" else margin(z, y)
        return -value if self.targeted else value

    def gradient(self, x: Vector, clean: Sequence[float], y: int | Sequence[float]) -> list[float]:
        z = self.net.logits(x)
        if self.loss == "kl":
            return self.net.pull_back(x, kl_gradient(z, clean))
        dz = cross_entropy_gradient(z, y) if self.loss == "ce" else margin_gradient(z, y)
        g = self.net.pull_back(x, dz)
        return [-e for e in g] if self.targeted else g

    def wrong(self, x: Vector, y: int | Sequence[float]) -> bool:
        hit = int(np.argmax(self.net.logits(x))) == label(y)
        return hit if self.targeted else not hit

    def feasible(self, x: Vector, delta: Sequence[float]) -> Vector:
        moved = [a + d for a, d in zip(x, project(self.kind, delta, self.eps), strict=True)]
        if self.box is not None:
            moved = [min(max(e, self.box[0]), self.box[1]) for e in moved]
        return np.array(moved)

    def iterates(self, x: Vector, y: int | Sequence[float], start: Vector) -> list[Vector]:
        clean, path = self.net.logits(x), [self.feasible(x, start)]
        for _ in range(self.steps):
            move = steepest(self.kind, self.gradient(path[-1], clean, y), self.alpha)
            path.append(self.feasible(x, [a - o + m for a, o, m in zip(path[-1], x, move, strict=True)]))
        return path

    def __call__(self, x: Vector, y: int | Sequence[float]) -> Vector:
        """The last iterate; with restarts or return_iterate=best the worst: wrong first, then by loss."""
        clean, candidates = self.net.logits(x), []
        for start in self.starts:
            path = self.iterates(x, y, start)
            candidates += path if self.return_iterate == "best" else path[-1:]
        if len(self.starts) == 1 and self.return_iterate == "last":
            return candidates[-1]
        return max(candidates, key=lambda c: (self.wrong(c, y), self.gain(c, clean, y)))


# --- attribution (eqs. 5-7, Algorithm 1)


def class_attributions(g: Any, W: Any, y: Any) -> list[list[float]]:
    k, d = len(W), len(W[0])
    A = [[0.0] * d for _ in range(k)]
    for c in range(k):
        members = [i for i in range(len(y)) if int(y[i]) == c]
        for i in members:
            for j in range(d):
                A[c][j] += float(g[i][j]) * float(W[c][j])
        for j in range(d):
            A[c][j] = A[c][j] / len(members) if members else 0.0
    return A


def correlation(A: Sequence[Sequence[float]]) -> list[list[float]]:
    k = len(A)
    lengths = [math.hypot(*row) for row in A]  # hypot scales: no underflow
    C = [[0.0] * k for _ in range(k)]
    for i in range(k):
        for j in range(k):
            if lengths[i] > 0 and lengths[j] > 0:
                C[i][j] = sum((a / lengths[i]) * (b / lengths[j]) for a, b in zip(A[i], A[j], strict=True))
    return C


def cas(C: Sequence[Sequence[float]]) -> float:
    return sum(max(C[i][j], 0.0) for i in range(len(C)) for j in range(len(C)) if i != j)


def negative_mass(C: Sequence[Sequence[float]]) -> float:
    return sum(max(-C[i][j], 0.0) for i in range(len(C)) for j in range(len(C)) if i != j)


def auc(C: Any, sharing: Any) -> float:
    """Over all (sharing pair, other pair): the share of those in which the sharing pair has the larger C."""
    k = len(C)
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    yes = [float(C[i][j]) for i, j in pairs if sharing[i][j]]
    no = [float(C[i][j]) for i, j in pairs if not sharing[i][j]]
    won = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in yes for b in no)
    return won / (len(yes) * len(no))
