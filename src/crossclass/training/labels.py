"""What is done to labels and batches before the loss: smoothing, mixup and cutmix, temporal ensembling.

It is independent of the recipe: every recipe takes classes or probabilities.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from crossclass.attacks.losses import Labels, Logits, soft
from crossclass.core.config import Settings


def smoothed(y: Labels, smoothing: float, classes: int) -> Float[Tensor, "n k"]:
    """1 - s on the true class and s/(K - 1) on each other (Pang et al. 2021, and the paper's beta)."""
    p = soft(y, classes)
    return (1 - smoothing) * p + smoothing * (1 - p) / (classes - 1)


class Mix(Settings):
    """Mixup and cutmix of a batch with itself reversed (timm's batch mode), giving soft labels."""

    mixup: float = Field(default=0.8, ge=0, le=4)
    """alpha of the Beta distribution; 0 leaves mixup out."""
    cutmix: float = Field(default=1.0, ge=0, le=4)
    """alpha of the Beta distribution of the area that stays; 0 leaves cutmix out."""
    prob: float = Field(default=0.3, ge=0, le=1)
    """Share of the batches that are mixed (mo666666/When-Adversarial-Training-Meets-Vision-Transformers)."""

    def __call__(
        self, x: Float[Tensor, "n c h w"], y: Labels, classes: int, g: torch.Generator
    ) -> tuple[Float[Tensor, "n c h w"], Labels]:
        """Mixed images and soft labels [n, k], or (with probability 1 - prob) both unchanged."""
        chance, which, *center = torch.rand(4, generator=g).tolist()
        ways = [(a, cut) for a, cut in ((self.mixup, False), (self.cutmix, True)) if a > 0]
        if chance >= self.prob or not ways:
            return x, y
        alpha, cut = ways[int(which * len(ways))]
        share = _beta(alpha, g)
        if cut:
            rows, columns, share = _rectangle(x.shape[-2], x.shape[-1], share, center)
            mixed = x.clone()
            mixed[:, :, rows, columns] = x.flip(0)[:, :, rows, columns]
        else:
            mixed = share * x + (1 - share) * x.flip(0)
        p = soft(y, classes)
        return mixed, share * p + (1 - share) * p.flip(0)


def _beta(alpha: float, g: torch.Generator) -> float:
    """One draw of Beta(alpha, alpha), by Johnk's rejection in logarithms: small alphas must not underflow."""
    while True:
        u, v = (torch.rand(2, generator=g, dtype=torch.float64).clamp(min=1e-300).log() / alpha).tolist()
        top = max(u, v)
        total = top + math.log(math.exp(u - top) + math.exp(v - top))
        if total <= 0:
            return math.exp(u - total)


def _rectangle(h: int, w: int, share: float, center: list[float]) -> tuple[slice, slice, float]:
    """The rectangle that is replaced (area about 1 - share, clipped), and the exact share that stays."""
    side = math.sqrt(1 - share)
    height, width = int(h * side), int(w * side)
    top, left = int(center[0] * h) - height // 2, int(center[1] * w) - width // 2
    rows = slice(max(0, top), min(h, top + height))
    columns = slice(max(0, left), min(w, left + width))
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return rows, columns, 1 - area / (h * w)


class TemporalEnsembling(Settings):
    """Self-distillation from the network's own past predictions (Laine & Aila 2017; for AT: Dong 2022).

    z_i <- momentum z_i + (1 - momentum) p(x_adv_i) after each visit; the loss gets
    weight ramp(epoch) mean_k (p_k(x_adv_i) - z_i,k / (1 - momentum^visits))^2.
    """

    kind: Literal["temporal_ensembling"] = "temporal_ensembling"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight: float = Field(default=30.0, ge=0)
    start: int = Field(default=1, ge=1)
    """First epoch with the term; predictions are remembered from the epoch before it on."""
    ramp: int = Field(default=0, ge=0)
    """Epochs over which the weight rises as exp(-5 (1 - t)^2)."""

    def memory(self, n: int, classes: int) -> dict[str, Tensor]:
        """The memory of n training images: averaged predictions z [n, k] and visits [n]."""
        return {"z": torch.zeros(n, classes), "visits": torch.zeros(n, dtype=torch.int64)}

    def weight_at(self, epoch: int) -> float:
        """The weight of the term in an epoch, counted from 1; 0 before `start`."""
        if epoch < self.start:
            return 0.0
        t = 1.0 if self.ramp == 0 else min(1.0, (epoch - self.start + 1) / self.ramp)
        return self.weight * math.exp(-5 * (1 - t) ** 2)

    def penalty(
        self, logits: Logits, memory: dict[str, Tensor], index: Int[Tensor, " n"], epoch: int
    ) -> Float[Tensor, ""]:
        """The term for a batch, the images at `index`; images that were never visited add nothing."""
        visits = memory["visits"][index]
        visited = (visits > 0).to(logits.dtype)
        corrected = memory["z"][index] / (1 - self.momentum ** visits.clamp(min=1))[:, None]
        distance = (logits.softmax(dim=1) - corrected).square().mean(dim=1)
        return self.weight_at(epoch) * (visited * distance).mean()

    def remember(
        self, logits: Logits, memory: dict[str, Tensor], index: Int[Tensor, " n"], epoch: int
    ) -> None:
        """Update the memory, in place, with the predictions for a batch."""
        if epoch >= self.start - 1:
            p = logits.detach().float().softmax(dim=1)
            memory["z"][index] = self.momentum * memory["z"][index] + (1 - self.momentum) * p
            memory["visits"][index] += 1

    def join(
        self,
        memory: dict[str, Tensor],
        before: Int[Tensor, " n"],
        add: Callable[[Sequence[Tensor]], None],
    ) -> None:
        """Merge, in place, the memories of several processes, each of which visited its own images.

        `before` are the visits when the epoch began; `add` sums tensors over the processes.
        """
        visitors = (memory["visits"] != before).float()
        z = memory["z"] * visitors[:, None]
        add([z, visitors])
        visited = visitors > 0
        memory["z"] = torch.where(visited[:, None], z / visitors.clamp(min=1)[:, None], memory["z"])
        memory["visits"] = before + visited
