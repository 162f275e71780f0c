"""The head of anyone's network: the product W g(x) + b that equals its logits, on images.

Position says nothing: auxiliary heads run last, gates have as many units as there are classes. So every
product with a row per class is computed anew, from what it multiplied, and compared with the logits. Where
none equals them, they may be one up to a constant factor, up to constants of the classes (batch norm, a
calibration) or of the image (log-softmax), the softmax or sigmoid of one, or a fixed sum of several (two
heads of a distilled network, an ensemble, two views): then W, b and g(x) are those of the whole, and
`sentence` and `note` say so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from crossclass.models.products import Key, Product

Relation = Literal["logits", "log-softmax", "softmax", "sigmoid", "none"]
"""What the network returns of W g(x) + b; log-softmax: any constant of the image is added."""

_MOST = 12
"""Of so many products, the last ones, a sum is tried."""
_SAME = 1e-4
"""Share of the largest logit by which the same product differs when it is computed anew."""


@dataclass(frozen=True)
class Term:
    """One product in a sum."""

    key: Key
    factor: float = 1.0


@dataclass(frozen=True)
class LinearHead:
    """Which products give the logits, and how.

    With z the sum of the products times their factors, W g(x) + b is `scale` * z + `shift`.
    """

    terms: tuple[Term, ...]
    relation: Relation = "logits"
    scale: Float[Tensor, " k"] | None = None
    """Of each class; unset is 1."""
    shift: Float[Tensor, " k"] | None = None
    """Of each class; unset is 0."""
    candidates: tuple[tuple[str, float], ...] = ()
    """Where nothing gives the logits: layers, and how far each is from them as a share of the largest logit,
    the closest first."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """The products that it needs."""
        return tuple(term.key for term in self.terms)

    @property
    def name(self) -> str:
        """The layers, such as `fc` or `head + head_dist`."""
        return " + ".join(dict.fromkeys(key.layer or "the network itself" for key in self.keys))

    @property
    def plain(self) -> bool:
        """Whether it is one layer with its own weight and bias and its own input."""
        (term, *more) = self.terms
        alone = not more and term.factor == 1 and self.scale is None and self.shift is None
        key = term.key
        return alone and key.own and not (key.pooling or key.views or key.rows)

    def features(self, products: Sequence[Product]) -> Float[Tensor, "n d"]:
        """g(x): side by side what the products multiply; of two with equal weights the weighted mean."""
        parts = []
        for group in self._groups(products):
            whole = _total(group)
            weighted = [p.g if f == whole else p.g * (f / whole) for p, f in group]
            parts.append(torch.stack(weighted).sum(dim=0) if len(weighted) > 1 else weighted[0])
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def weight(self, products: Sequence[Product]) -> Float[Tensor, "k d"]:
        """W."""
        parts = [group[0][0].W * _total(group) for group in self._groups(products)]
        W = torch.cat(parts, dim=1)
        return W if self.scale is None else W * self.scale.to(W)[:, None]

    def bias(self, products: Sequence[Product]) -> Float[Tensor, " k"]:
        """b."""
        b = products[0].W.new_zeros(len(products[0].W))
        for product, factor in self._ordered(products):
            b = b if product.b is None else b + factor * product.b
        b = b if self.scale is None else b * self.scale.to(b)
        return b if self.shift is None else b + self.shift.to(b)

    def sentence(self, what: str, kind: str) -> str | None:
        """What a reader of C and CAS must know; none if the logits are W g(x) + b.

        Args:
            what: The network, in words.
            kind: The class of the layer.
        """
        layer = f"'{self.name}'"
        if self.relation == "log-softmax":
            return (
                f"what {what} returns is W g(x) + b of {layer} up to a constant of each image "
                "(log-softmax?), which C and CAS, being of W g(x), leave out"
            )
        if self.relation in ("softmax", "sigmoid"):
            return (
                f"what {what} returns is not W g(x) + b of {layer} but its {self.relation}: C and CAS are "
                "those of W g(x); gradients of probabilities vanish, so robust accuracy may be overstated "
                "(gradient masking): let it return the logits"
            )
        if not all(key.own or key.direct for key in self.keys):
            return (
                f"what {what} returns is not W g(x) + b of the input and the weight of {layer} ({kind}): C "
                "and CAS are of what is multiplied there, such as normalised features and weights"
            )
        return None

    def note(self, what: str) -> str | None:
        """How the logits follow from the layers, where that is more than W g(x) + b of one."""
        if self.relation == "none" or self.plain:
            return None
        how = []
        if len(self.terms) > 1:
            how.append("the sum of " + ", ".join(f"{t.factor:.3g} '{t.key.layer}'" for t in self.terms))
        elif self.terms[0].factor != 1:
            how.append(f"{self.terms[0].factor:.4g} times W g(x) + b")
        if self.scale is not None:
            how.append("a factor for each class")
        if self.shift is not None:
            how.append("constants of the classes")
        if any(key.pooling for key in self.keys):
            how.append("pooled features, since it runs at every position")
        if any(key.views for key in self.keys):
            how.append("the mean of several views of each image")
        if any(key.rows for key in self.keys):
            first = ", ".join(str(row) for row in self.keys[0].rows[:4])
            how.append(f"the rows {first}, ... of its weight for the classes 0, 1, ...")
        return f"the head of {what} is '{self.name}', with {', '.join(how)}" if how else None

    def _ordered(self, products: Sequence[Product]) -> list[tuple[Product, float]]:
        there = {p.key: p for p in products}
        return [(there[t.key], t.factor) for t in self.terms]

    def _groups(self, products: Sequence[Product]) -> list[list[tuple[Product, float]]]:
        groups: list[list[tuple[Product, float]]] = []
        for product, factor in self._ordered(products):
            for group in groups:
                W = group[0][0].W
                if W.shape == product.W.shape and torch.equal(W, product.W):
                    group.append((product, factor))
                    break
            else:
                groups.append([(product, factor)])
        return groups


def _total(group: Sequence[tuple[Product, float]]) -> float:
    total = sum(factor for _, factor in group)
    return total if abs(total) > 1e-6 else 1.0  # the difference of two views


def find_head(products: Sequence[Product], logits: Float[Tensor, "n k"]) -> list[LinearHead]:
    """What gives these logits: several only if products of other features equal them; empty if nothing does.

    Args:
        products: Those of one forward pass.
        logits: What the network returned for the same images.
    """
    y, distinct = logits.double(), _distinct(products)
    rounding = max(_SAME, 4 * torch.finfo(logits.dtype).eps)
    if not distinct:
        return []
    if not bool(y.isfinite().all()):  # perhaps since the features or the weight are not
        equal = [p.key for p in distinct if torch.allclose(p.z, y, rtol=rounding, equal_nan=True)]
        own = [key for key in equal if key.own] or equal
        return [LinearHead((Term(key),)) for key in own[-1:]]
    targets = list(_targets(y))
    changes = float((y - y.mean(dim=0)).abs().max()) > 1e-12 * float(y.abs().max())
    for relation, target, centred in targets:
        same = [p for p in distinct if _equal(_centred(p.z, centred), target, rounding)]
        if same:
            return [LinearHead((Term(p.key),), relation) for p in same]
        if not changes:  # constants are a multiple of anything
            continue
        for p in distinct:
            factor, _ = _affine(_centred(p.z, centred).flatten()[:, None], target.flatten())
            if _equal(float(factor[0]) * _centred(p.z, centred), target, rounding):
                return [LinearHead((Term(p.key, _simple(float(factor[0]))),), relation)]
    if not changes:
        return []
    if _is_softmax(y):
        for p in distinct:
            sharp = _sharpness(p.z, y)
            if sharp is not None and _equal((sharp * p.z).softmax(dim=1), y, rounding):
                return [LinearHead((Term(p.key, _simple(sharp)),), "softmax")]
    for relation, target, centred in targets:
        if head := _fitted(distinct, target, relation, centred, rounding):
            return [head]
    return []


def find_rows(products: Sequence[Product], logits: Float[Tensor, "n k"]) -> list[LinearHead]:
    """Heads of which the logits are some rows, or all in another order, as without a background class.

    Args:
        products: Those with as many rows or more.
        logits: What the network returned for the same images.
    """
    y, rounding, out = logits.double(), max(_SAME, 4 * torch.finfo(logits.dtype).eps), []
    if not bool(y.isfinite().all()) or not bool((y - y.mean(dim=0)).any()):
        return []
    for p in _distinct(products):
        z = p.z
        rows = torch.cdist(y.T, z.T, p=inf).argmin(dim=1)
        if len(rows.unique()) == len(rows) and _equal(z[:, rows], y, rounding):
            out.append(LinearHead((Term(p.key._replace(rows=tuple(rows.tolist()))),)))
    return out


def distances(products: Sequence[Product], logits: Float[Tensor, "n k"]) -> list[tuple[Key, float]]:
    """How far each product is from the logits, as a share of the largest, the closest first."""
    y = logits.double()
    far = [(p.key, float((p.z - y).abs().max() / y.abs().max().clamp(min=1e-12))) for p in products]
    return sorted(((key, d if d == d else inf) for key, d in far), key=lambda item: item[1])


def _targets(y: Tensor) -> Iterator[tuple[Relation, Tensor, bool]]:
    """What may be W g(x) + b, and whether up to a constant of each image."""
    yield "logits", y, False
    yield "log-softmax", _centred(y, True), True
    inside = bool(((y > 0) & (y < 1)).all())
    if _is_softmax(y) and inside and float(y.min()) > 1e-9:
        yield "softmax", _centred(y.log(), True), True
    elif inside and float((1 - y).min()) > 1e-5:
        yield "sigmoid", y.logit(), False


def _is_softmax(y: Tensor) -> bool:
    return bool((y >= 0).all()) and bool(((y.sum(dim=1) - 1).abs() < 1e-3).all())


def _sharpness(z: Tensor, y: Tensor) -> float | None:
    """The factor with which the softmax of z may be y, from the classes that are not rounded to 0 or 1."""
    top = y.argmax(dim=1, keepdim=True)
    apart = (z - z.gather(1, top), y.clamp(min=1e-30).log() - y.gather(1, top).log())
    inside = (y > 1e-5) & (apart[0].abs() > 1e-6)
    if not bool(inside.any()):  # all are 0 or 1: any factor that is large enough
        return 1e3 / max(1e-12, float(z.abs().max())) if torch.equal(z.argmax(dim=1), top[:, 0]) else None
    dz, dy = apart[0][inside], apart[1][inside]
    return float((dz * dy).sum() / dz.square().sum())


def _centred(z: Tensor, centred: bool) -> Tensor:
    return z - z.mean(dim=1, keepdim=True) if centred else z


def _equal(z: Tensor, y: Tensor, rounding: float) -> bool:
    """Whether they are the same up to rounding, which is also small beside what images change in y."""
    error, size = float((z - y).abs().max()), float(y.abs().max())
    changes = float((y - y.mean(dim=0)).abs().max())
    return error <= rounding * size and error <= max(100 * rounding * changes, rounding / 50 * size)


def _distinct(products: Sequence[Product]) -> list[Product]:
    """One of each that multiplies the same features to the same result; a layer's own product is kept."""
    out: list[Product] = []
    for p in sorted(products, key=lambda p: not p.key.own):
        alike = (q for q in out if q.g.shape == p.g.shape and q.W.dtype == p.W.dtype)
        if not any(torch.equal(q.g, p.g) and torch.equal(q.W, p.W) and _close(q.z, p.z) for q in alike):
            out.append(p)
    return out


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-6, atol=1e-9))


def _affine(columns: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of y [m] by columns [m, q]; and the fit."""
    size = columns.abs().amax(dim=0).clamp(min=1e-30)
    solution = torch.linalg.lstsq((columns / size).cpu(), y.cpu()[:, None], driver="gelsd").solution[:, 0]
    factors = solution.to(y) / size
    return factors, columns @ factors


def _fitted(
    products: Sequence[Product], y: Tensor, relation: Relation, centred: bool, rounding: float
) -> LinearHead | None:
    """A sum of products with constant factors; or one product, scaled and shifted for each class."""
    few = list(products)[-_MOST:]
    z = [_centred(p.z, centred) for p in few]
    every = list(range(len(few)))
    for constants, chosen in ((False, every), *((True, [i]) for i in every), (True, every)):
        parts, columns = [few[i] for i in chosen], [z[i] for i in chosen]
        if (head := _summed(parts, columns, y, relation, constants, rounding)) is not None:
            return head
    if centred:
        return None
    for terms, zs in _means(few, z):
        moves, wanted = zs - zs.mean(dim=0), y - y.mean(dim=0)
        scale = (moves * wanted).sum(dim=0) / moves.square().sum(dim=0).clamp(min=1e-30)
        shift = (y - zs * scale).mean(dim=0)
        if len(y) >= 8 and _equal(zs * scale + shift, y, rounding):
            return LinearHead(terms, relation, scale.float(), shift.float())
    return None


def _means(products: Sequence[Product], z: Sequence[Tensor]) -> Iterator[tuple[tuple[Term, ...], Tensor]]:
    """Each product, and the mean of those with one weight, as of several views."""
    for p, zs in zip(products, z, strict=True):
        yield (Term(p.key),), zs
    for i, p in enumerate(products):
        alike = [j for j, q in enumerate(products) if q.W.shape == p.W.shape and torch.equal(q.W, p.W)]
        if len(alike) > 1 and alike[0] == i:
            terms = tuple(Term(products[j].key, 1 / len(alike)) for j in alike)
            yield terms, torch.stack([z[j] for j in alike]).mean(dim=0)


def _summed(
    products: Sequence[Product],
    z: Sequence[Tensor],
    y: Tensor,
    relation: Relation,
    constants: bool,
    rounding: float,
) -> LinearHead | None:
    """The products that take part with their factors and constants of the classes, if they give y."""
    chosen, factors = list(range(len(products))), torch.ones(0)
    while chosen:
        if y.numel() < 2 * (len(chosen) + constants * y.shape[1]):  # fits anything
            return None
        columns = torch.stack([z[i] for i in chosen], dim=-1)  # [n, k, q]
        about = (columns.mean(dim=0), y.mean(dim=0)) if constants else (0.0, 0.0)
        factors, _ = _affine((columns - about[0]).flatten(0, 1), (y - about[1]).flatten())
        share = [abs(float(f)) * float(z[i].abs().max()) for f, i in zip(factors, chosen, strict=True)]
        kept = [i for i, s in zip(chosen, share, strict=True) if s > 1e-4 * max(share)]
        if kept == chosen:
            break
        chosen = kept
    if not chosen:
        return None
    weights = [products[i].W for i in chosen]
    free = sum(not any(torch.equal(W, V) for V in weights[:i]) for i, W in enumerate(weights))
    if free > 1 and 4 * free > min(
        W.numel() for W in weights
    ):  # so many layers of few features give any other
        return None
    fit = torch.stack([z[i] for i in chosen], dim=-1) @ factors
    shift = (y - fit).mean(dim=0) if constants else None
    if not _equal(fit if shift is None else fit + shift, y, rounding):
        return None
    terms = tuple(Term(products[i].key, _simple(float(f))) for i, f in zip(chosen, factors, strict=True))
    return LinearHead(terms, relation, shift=None if shift is None else shift.float())


def _simple(factor: float) -> float:
    """1 and simple fractions without the rounding of a fit."""
    for divisor in range(1, 33):
        whole = round(factor * divisor)
        if whole and abs(factor * divisor - whole) < 1e-5:
            return whole / divisor
    return factor
