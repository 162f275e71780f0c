"""Training on clean images, and on the worst images that an attack finds (eq. 1)."""

from typing import Literal

from crossclass.attacks import PGD, AnyAttack, Images, Network
from crossclass.attacks.losses import Labels, Logits, cross_entropy
from crossclass.training.recipes.base import Loss, Noise, Recipe, logits_at


class Standard(Recipe):
    """Ordinary training: clean images, cross-entropy."""

    kind: Literal["standard"] = "standard"

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """Mean cross-entropy on clean images."""
        logits = logits_at(model, x)
        return cross_entropy(logits, y).mean(), logits


class AT(Recipe):
    """Adversarial training (Madry et al. 2018), eq. 1: the loss at the worst point that the attack finds.

    With `attack.kind=fgsm attack.start=uniform attack.rel_step=1.25` it is fast AT (FGSM-RS, Wong
    et al. 2020).
    """

    kind: Literal["at"] = "at"
    attack: AnyAttack = PGD(steps=10)
    """The attack that makes the training images."""

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """Mean cross-entropy on adversarial images."""
        logits = logits_at(model, x_adv)
        return cross_entropy(logits, y).mean(), logits
