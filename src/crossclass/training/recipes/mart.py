"""MART: images that are misclassified already weigh more."""

from typing import Literal

import torch
from pydantic import Field

from crossclass.attacks import PGD, AnyAttack, Images, Network
from crossclass.attacks.losses import Labels, Logits, cross_entropy, hard, kl
from crossclass.core.classes import require_labels
from crossclass.training.recipes.base import Loss, Noise, Recipe, logits_at


class MART(Recipe):
    """MART (Wang et al. 2020): a boosted cross-entropy, and KL where the clean image is uncertain."""

    kind: Literal["mart"] = "mart"
    attack: AnyAttack = PGD(steps=10, start="gauss")
    """The attack that makes the training images."""
    beta: float = Field(default=5.0, ge=0)
    """Weight of the KL term."""

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """BCE(f(x_adv), y) + beta KL(p(x) || p(x_adv)) (1 - p_y(x)), means; two forwards in train mode.

        BCE adds -log(1 - max_{k != y} p_k); the 1e-4 inside its logarithm is YisenWang/MART's.
        """
        clean, logits = logits_at(model, x), logits_at(model, x_adv)
        require_labels(hard(y), logits.shape[1])
        true = hard(y)[:, None]
        rival = logits.softmax(dim=1).scatter(1, true, 0).amax(dim=1)
        boosted = cross_entropy(logits, y) - torch.log(1.0001 - rival)
        doubt = 1 - clean.softmax(dim=1).gather(1, true).squeeze(1)
        return (boosted + self.beta * kl(logits, clean) * doubt).mean(), logits
