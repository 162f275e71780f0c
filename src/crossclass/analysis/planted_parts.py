"""Which planted part each feature finds, on data that are drawn from known parts (`Shapes`).

Within a class the strengths of its parts are drawn independently, so a feature that changes with the
strength of a part, from image to image of the same class, responds to this part:

    response_kp = slope of g_k on the strength of part p, both centred by class, over the classes that show
                  p, times the standard deviation of the strength.

A part is *found* by a feature if the slope differs from 0 at 1 % after Bonferroni's correction for all
features and parts. The share of a part in a feature is its squared response among those of all parts that it
finds. A feature is *pure* if one part has at least 80 %, *mixed* if it finds several and none has so much,
*dead* if it is the same on all images; else it finds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit
from torch import Tensor

PURE = 0.8
"""Share from which a feature is one part's."""
ERROR = 0.01
"""The chance that any part is found by a feature that does not respond to it."""


@dataclass(frozen=True)
class FoundParts:
    """What d features have to do with p planted parts."""

    response: Float[Tensor, "d p"]
    """By how much a feature changes with one standard deviation of a part's strength."""
    share: Float[Tensor, "d p"]
    """Of each part in a feature; rows add up to 1, or are 0 where the feature finds nothing."""
    dead: Bool[Tensor, " d"]
    """The same on all images."""

    @property
    def pure(self) -> Bool[Tensor, " d"]:
        """One part's."""
        return self.share.amax(dim=1) >= PURE

    @property
    def mixed(self) -> Bool[Tensor, " d"]:
        """Of several parts."""
        return (self.share > 0).any(dim=1) & ~self.pure

    @property
    def found(self) -> Int[Tensor, " p"]:
        """How many pure features each part has."""
        return torch.bincount(self.share.argmax(dim=1)[self.pure], minlength=self.share.shape[1])


def found_parts(
    g: Float[Tensor, "n d"],
    strengths: Float[Tensor, "n p"],
    y: Int[Tensor, " n"],
    shows: Sequence[Sequence[int]],
) -> FoundParts:
    """Hold features of images against the strengths of the parts that the images show.

    Args:
        g: Features.
        strengths: Of each part in each image; 0 where the image does not show it.
        y: The classes of the images.
        shows: The parts that each class shows.
    """
    g, y, d, parts = g.double(), y.long(), g.shape[1], strengths.shape[1]
    response, found = torch.zeros(2, d, parts, dtype=torch.float64)
    for p in range(parts):
        classes = torch.tensor([i for i, own in enumerate(shows) if p in own], dtype=torch.long)
        rows = torch.isin(y, classes)
        x, s = _centred(g[rows], y[rows]), _centred(strengths[rows].double()[:, [p]], y[rows])[:, 0]
        freedom = len(s) - len(y[rows].unique()) - 1
        if freedom < 1 or not bool(s.any()):
            continue
        slope = s @ x / s.square().sum()
        rest = (x - s[:, None] * slope).square().sum(dim=0) / freedom
        error = (rest / s.square().sum()).sqrt()
        limit = float(stdtrit(freedom, 1 - ERROR / (2 * d * parts)))
        response[:, p] = slope * (s.square().sum() / freedom).sqrt()
        found[:, p] = (slope.abs() > limit * error).double()
    squares = found * response.square()
    total = squares.sum(dim=1, keepdim=True)
    dead = (g == g[:1]).all(dim=0)
    return FoundParts(response, torch.where(total > 0, squares / total.clamp(min=1e-300), 0.0), dead)


def _centred(v: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Minus the mean of each class."""
    out = v.clone()
    for i in y.unique():
        out[y == i] -= v[y == i].mean(dim=0)
    return out
