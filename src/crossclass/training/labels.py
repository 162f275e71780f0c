"""What is done to labels and batches before the loss: smoothing, mixup and cutmix, temporal ensembling.

It is independent of the recipe: every recipe takes classes or probabilities.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from crossclass.attacks.losses import Labels, Logits, soft
from crossclass.core.config import Settings
from crossclass.models.model_state import evaluating


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
    """Temporal ensembling of adversarial training (Dong et al. 2022, dongyp13/memorization-AT).

    Each time that image i comes, first z_i <- momentum z_i + (1 - momentum) p(x_i), where p is the prediction
    of the network in eval mode for the clean, augmented image. The loss then gets, and the attack ascends,

        weight exp(-5 (1 - t)^2) mean_k (p_k(x_adv_i) - z_i,k / sum_j z_i,j)^2,    t = (epoch - start) / ramp,

    with t = 1 from epoch start + ramp on. The defaults are theirs, for 200 epochs. (With TRADES, their code
    has the term on the clean images; here it is on the images that the attack found, whatever the recipe.)
    """

    kind: Literal["temporal_ensembling"] = "temporal_ensembling"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the old predictions that an epoch keeps."""
    weight: float = Field(default=300.0, ge=0)
    """Weight of the mean over the classes, after the ramp."""
    start: int = Field(default=90, ge=1)
    """First epoch in which predictions are remembered and the term counts."""
    ramp: int = Field(default=60, ge=0)
    """Epochs from `start` until the term has its full weight."""

    def memory(self, n: int, classes: int) -> dict[str, Tensor]:
        """The memory of n training images: the averaged predictions z [n, k], zero before the first."""
        return {"z": torch.zeros(n, classes)}

    def weight_at(self, epoch: int) -> float:
        """The weight of the term in an epoch, counted from 1; 0 before `start`."""
        if epoch < self.start:
            return 0.0
        t = 1.0 if self.ramp == 0 else min(1.0, (epoch - self.start) / self.ramp)
        return self.weight * math.exp(-5 * (1 - t) ** 2)

    def updated(
        self, z: Float[Tensor, "n k"], model: nn.Module, x: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n k"]:
        """The memory of a batch after its images x came once more; the model is left as it was."""
        with torch.no_grad(), evaluating(model):
            p = model(x).float().softmax(dim=1)
        return self.momentum * z + (1 - self.momentum) * p

    def term(
        self, z: Float[Tensor, "m k"], epoch: int, logits: Logits, rows: Tensor | slice = slice(None)
    ) -> Float[Tensor, " n"]:
        """The term of each image, for the logits of some rows of a batch whose memory is z."""
        past = (z / z.sum(dim=1, keepdim=True))[rows]
        return self.weight_at(epoch) * (logits.float().softmax(dim=1) - past).square().mean(dim=1)

    def join(
        self,
        memory: dict[str, Tensor],
        before: dict[str, Tensor],
        add: Callable[[Sequence[Tensor]], None],
    ) -> None:
        """Merge, in place, the memories of several processes, each of which changed its own images.

        `before` is the memory when the epoch began; `add` sums tensors over the processes.
        """
        changed = (memory["z"] != before["z"]).any(dim=1).float()
        z = memory["z"] * changed[:, None]
        add([z, changed])
        memory["z"] = torch.where((changed > 0)[:, None], z / changed.clamp(min=1)[:, None], memory["z"])
