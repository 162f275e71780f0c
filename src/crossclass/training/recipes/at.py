"""Training on clean images, and on the worst images that an attack finds (eq. 1)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from crossclass.attacks import PGD, AnyAttack, Images, Network
from crossclass.attacks.losses import Labels, Logits, cross_entropy
from crossclass.attacks.norms import AnyThreat
from crossclass.core.config import Settings

Loss = Float[Tensor, ""]
Noise = torch.Generator | None


class Standard(Settings):
    """Ordinary training: clean images, cross-entropy."""

    kind: Literal["standard"] = "standard"

    @property
    def threat(self) -> AnyThreat | None:
        """No ball: nothing is crafted."""
        return None

    def craft(self, model: Network, x: Images, y: Labels, generator: Noise = None) -> Images:
        """The images themselves."""
        return x

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """Mean cross-entropy on clean images."""
        logits = model(x)
        return cross_entropy(logits, y).mean(), logits


class Attacked(Settings):
    """What recipes share whose images an attack finds."""

    attack: AnyAttack

    @property
    def threat(self) -> AnyThreat | None:
        """The ball that is trained in."""
        return self.attack.threat

    def craft(self, model: Network, x: Images, y: Labels, generator: Noise = None) -> Images:
        """Adversarial images."""
        return self.attack(model, x, y, generator)


class AT(Attacked):
    """Adversarial training (Madry et al. 2018), eq. 1: the loss at the worst point that the attack finds.

    With `attack.kind=fgsm attack.start=uniform attack.step=1.25` it is fast AT (FGSM-RS, Wong et al. 2020).
    """

    kind: Literal["at"] = "at"
    attack: AnyAttack = PGD(steps=10)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """Mean cross-entropy on adversarial images."""
        logits = model(x_adv)
        return cross_entropy(logits, y).mean(), logits
