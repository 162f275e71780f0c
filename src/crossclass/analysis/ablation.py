"""Which features to remove, so that sets of different kinds cost the same; and what each set costs.

A path is an order of the features; its sets are the first 1, 2, 3, ... of it. Sets of different paths are
matched by attribution mass (up to one feature), or by the clean accuracy that is lost: there the robust
accuracy lost is interpolated between two sets of a path, around the clean loss that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossclass.analysis.ablation_records import Sort
from crossclass.analysis.feature_shares import FeatureShares
from crossclass.analysis.intervals import LEVEL, Interval
from crossclass.core.errors import UserError

SORTS: tuple[Sort, ...] = ("shared", "specific", "random")
RESAMPLES = 2000
"""Of the bootstrap over images, and over draws of random sets."""


def path(shares: FeatureShares, sort: Sort, generator: torch.Generator | None = None) -> Int[Tensor, " m"]:
    """Features in the order in which they are removed; those that add nothing to any class are left out.

    Args:
        shares: Mass and effective number of classes of each feature.
        sort: `shared` begins with the largest effective number of classes, `specific` with the smallest,
            `random` has no order.
        generator: Draws the random order.

    Raises:
        UserError: if fewer than two features add to the logit of a class.
    """
    (live,) = torch.where(shares.mass > 0)
    if len(live) < 2:
        raise UserError(
            f"{len(live)} of {len(shares.mass)} features add to the logit of a class; to compare sets of "
            "features two or more are needed"
        )
    if sort == "random":
        return live[torch.randperm(len(live), generator=generator).to(live.device)]
    few_first = live[shares.effective_classes[live].argsort(stable=True)]
    return few_first if sort == "specific" else few_first.flip(0)


def count_of_mass(mass: Float[Tensor, " d"], order: Int[Tensor, " m"], fraction: float) -> int:
    """How many features of a path hold this part of the whole mass, as nearly as whole features can.

    Raises UserError for a fraction that is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise UserError(f"fractions holds {fraction:g}; give parts of the mass between 0 and 1, such as 0.1")
    held = mass[order].cumsum(0) / mass.sum()
    return int((held - fraction).abs().argmin()) + 1


def clean_path(
    g: Float[Tensor, "n d"],
    W: Float[Tensor, "k d"],
    b: Float[Tensor, " k"],
    at: Float[Tensor, " d"],
    y: Int[Tensor, " n"],
    order: Int[Tensor, " m"],
) -> Float[Tensor, " p"]:
    """Clean accuracy without the first 0, 1, ..., m features of a path; no network runs.

    Args:
        g: Features of the clean images.
        W: Weights of the head.
        b: Its bias.
        at: The constants that removed features are held at.
        y: Classes.
        order: The path.
    """
    logits = g.double() @ W.double().T + b.double()
    right = [(logits.argmax(dim=1) == y).double().mean()]
    for k in order.tolist():
        logits -= (g[:, k].double() - at[k].double())[:, None] * W[:, k].double()
        right.append((logits.argmax(dim=1) == y).double().mean())
    return torch.stack(right)


def count_of_clean_loss(clean: Float[Tensor, " p"], loss: float) -> int | None:
    """How many features of a path are removed when it has lost this much clean accuracy; None if never."""
    (there,) = torch.where(clean[0] - clean >= loss - 1e-9)
    return int(there[0]) if len(there) else None


@dataclass(frozen=True)
class Outcome:
    """What became of every image without some features."""

    count: int
    """How many features were removed."""
    mass: float
    """Their part of the mass."""
    clean: Bool[Tensor, " n"]
    """Whether the image is classified rightly."""
    robust: Bool[Tensor, " n"]
    """Whether the adversarial image is."""


def at_clean_loss(
    clean: Float[Tensor, "p b"], robust: Float[Tensor, "p b"], loss: float
) -> Float[Tensor, " b"]:
    """Robust accuracy lost where a path has lost `loss` of the clean accuracy, for b resamples at once.

    Linear between the last set before and the first set that loses as much; a path that never does gives its
    last set.

    Args:
        clean: Clean accuracy lost by each set of a path, fewest features first.
        robust: Robust accuracy lost.
        loss: The clean accuracy lost that is asked for.
    """
    clean, robust = (torch.cat([torch.zeros_like(v[:1]), v]) for v in (clean, robust))  # nothing is removed
    reached = clean >= loss - 1e-9
    first = torch.where(reached.any(dim=0), reached.int().argmax(dim=0), len(clean) - 1).clamp(min=1)
    (c1, c0), (r1, r0) = (
        (v.gather(0, first[None])[0], v.gather(0, first[None] - 1)[0]) for v in (clean, robust)
    )
    part = ((loss - c0) / (c1 - c0).clamp(min=1e-12)).clamp(0, 1)
    return torch.where(reached.any(dim=0), r0 + part * (r1 - r0), robust[-1])


class Losses:
    """Accuracy lost by sets of every sort, in the sample and in resamples of its images and random draws.

    Resamples are the same for all sets: paired by image. The first column is the sample itself.
    """

    def __init__(
        self,
        clean: Bool[Tensor, " n"],
        robust: Bool[Tensor, " n"],
        paths: Sequence[tuple[Sort, Sequence[Outcome]]],
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> None:
        """Draw the resamples.

        Args:
            clean: Of the whole network, whether each image is classified rightly.
            robust: The same of adversarial images.
            paths: Each path with its sets, fewest features first; several are `random`.
            seed: Of the resamples.
            resamples: How many.
        """
        n, g = len(clean), torch.Generator().manual_seed(seed)
        drawn = torch.randint(n, (resamples, n), generator=g)
        weight = torch.zeros(resamples, n, dtype=torch.float64)
        weight.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        self.weight = torch.cat([torch.ones(1, n, dtype=torch.float64), weight]).T / n
        self.whole = clean, robust
        self.paths = {s: [p for sort, p in paths if sort == s] for s in SORTS}
        draws = len(self.paths["random"])
        many = torch.randint(max(1, draws), (resamples, draws), generator=g)
        self.draws = torch.cat([torch.arange(draws)[None], many]).T  # [draws, resamples + 1]

    def _lost(self, outcomes: Sequence[Outcome], kind: Literal["clean", "robust"]) -> Float[Tensor, "p b"]:
        before = self.whole[kind == "robust"]
        right = torch.stack([o.clean if kind == "clean" else o.robust for o in outcomes])
        return (before.double() - right.double()) @ self.weight

    def _over_draws(self, sort: Sort, each: Sequence[Tensor]) -> Float[Tensor, " b"]:
        """One path's values; of random paths the mean over (resampled) draws."""
        values = torch.stack(list(each))
        return values[0] if sort != "random" else values.gather(0, self.draws).mean(dim=0)

    def reach(self, loss: float) -> bool:
        """Whether every path loses as much of the clean accuracy."""
        paths = [p for many in self.paths.values() for p in many]
        return all(float(self._lost(p, "clean")[:, 0].max()) >= loss - 1e-9 for p in paths)

    def range_of_mass(self, counts: Sequence[int]) -> tuple[float, float]:
        """The smallest and the largest robust accuracy lost by random sets of so many features."""
        each = [
            float(self._lost([next(o for o in p if o.count == c)], "robust")[0, 0])
            for p, c in zip(self.paths["random"], counts, strict=True)
        ]
        return min(each), max(each)

    def range_of_clean_loss(self, loss: float) -> tuple[float, float]:
        """The same where `loss` of the clean accuracy is lost."""
        each = [
            float(at_clean_loss(self._lost(p, "clean"), self._lost(p, "robust"), loss)[0])
            for p in self.paths["random"]
        ]
        return min(each), max(each)

    def of_mass(
        self, sort: Sort, counts: Sequence[int], kind: Literal["clean", "robust"]
    ) -> Float[Tensor, " b"]:
        """Accuracy lost by the sets of so many features, one count for each path of the sort."""
        sets = [
            next(o for o in outcomes if o.count == count)
            for outcomes, count in zip(self.paths[sort], counts, strict=True)
        ]
        return self._over_draws(sort, [self._lost([one], kind)[0] for one in sets])

    def of_clean_loss(self, sort: Sort, loss: float) -> Float[Tensor, " b"]:
        """Robust accuracy lost where `loss` of the clean accuracy is."""
        each = [
            at_clean_loss(self._lost(p, "clean"), self._lost(p, "robust"), loss) for p in self.paths[sort]
        ]
        return self._over_draws(sort, each)


def estimate(values: Float[Tensor, " b"]) -> Interval:
    """The sample's value, which is the first, and the percentiles of its resamples."""
    low, high = torch.quantile(values[1:], torch.tensor([0.5 - LEVEL / 2, 0.5 + LEVEL / 2]).double()).tolist()
    return Interval(float(values[0]), low, high)
