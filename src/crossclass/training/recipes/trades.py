"""TRADES: clean accuracy, and as a term of its own how far an attack can move the prediction."""

from typing import Literal

from pydantic import Field

from crossclass.attacks import PGD, AnyAttack, Images, Network
from crossclass.attacks.losses import Labels, Logits, cross_entropy, kl
from crossclass.training.recipes.base import Loss, Noise, Recipe, logits_at


class Trades(Recipe):
    """TRADES (Zhang et al. 2019): clean cross-entropy plus beta times KL to the adversarial prediction."""

    kind: Literal["trades"] = "trades"
    attack: AnyAttack = PGD(steps=10, start="gauss", loss="kl")
    """Ascends the same KL, from x + 0.001 N(0, 1): its gradient at x itself is zero."""
    beta: float = Field(default=6.0, ge=0)
    """Weight of the KL term."""

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """CE(f(x), y) + beta KL(p(x) || p(x_adv)), both means; two forwards in train mode.

        yaodongyu/TRADES forwards the clean batch twice, so its batch norm moves three times a step.
        """
        clean, logits = logits_at(model, x), logits_at(model, x_adv)
        return cross_entropy(clean, y).mean() + self.beta * kl(logits, clean).mean(), logits
