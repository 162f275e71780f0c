"""Recipes whose loss is not plain cross-entropy on adversarial images: TRADES, MART, GradAlign.

All return the logits of the adversarial images, so that training robust accuracy costs no forward.
"""

from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from crossclass.attacks import FGSM, PGD, AnyAttack, Images, Network
from crossclass.attacks.losses import Labels, Logits, cross_entropy, hard, kl
from crossclass.training.recipes.at import Attacked, Loss, Noise


class Trades(Attacked):
    """TRADES (Zhang et al. 2019): clean cross-entropy plus beta times KL to the adversarial prediction."""

    kind: Literal["trades"] = "trades"
    attack: AnyAttack = PGD(steps=10, start="gauss", loss="kl")
    """Ascends the same KL, from x + 0.001 N(0, 1): its gradient at x itself is zero."""
    beta: float = Field(6.0, ge=0)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """CE(f(x), y) + beta KL(p(x) || p(x_adv)), both means; two forwards in train mode.

        yaodongyu/TRADES forwards the clean batch twice, so its batch norm moves three times a step.
        """
        clean, logits = model(x), model(x_adv)
        return cross_entropy(clean, y).mean() + self.beta * kl(logits, clean).mean(), logits


class MART(Attacked):
    """MART (Wang et al. 2020): a boosted cross-entropy, and KL where the clean image is uncertain."""

    kind: Literal["mart"] = "mart"
    attack: AnyAttack = PGD(steps=10, start="gauss")
    beta: float = Field(5.0, ge=0)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """BCE(f(x_adv), y) + beta KL(p(x) || p(x_adv)) (1 - p_y(x)), means; two forwards in train mode.

        BCE adds -log(1 - max_{k != y} p_k); the 1e-4 inside its logarithm is YisenWang/MART's.
        """
        clean, logits = model(x), model(x_adv)
        true = hard(y)[:, None]
        rival = logits.softmax(dim=1).scatter(1, true, 0).amax(dim=1)
        boosted = cross_entropy(logits, y) - torch.log(1.0001 - rival)
        doubt = 1 - clean.softmax(dim=1).gather(1, true).squeeze(1)
        return (boosted + self.beta * kl(logits, clean) * doubt).mean(), logits


class GradAlign(Attacked):
    """FGSM training kept from catastrophic overfitting by aligned gradients (Andriushchenko 2020)."""

    kind: Literal["gradalign"] = "gradalign"
    attack: AnyAttack = FGSM()
    weight: float = Field(0.2, ge=0)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """CE(f(x_adv), y) + weight (1 - cos(grad_x L(x), grad_x L(x + eta))), eta uniform in the ball.

        As in tml-epfl/understanding-fast-adv-training, the gradient at x is a constant; back-propagation
        goes through the other one. Three forwards in train mode.
        """
        threat = self.attack.threat
        eta = threat.sample(x, threat.inside, generator)
        at_x = _input_gradient(model, x, y, create_graph=False)
        at_eta = _input_gradient(model, x + eta, y, create_graph=True)
        cosine = F.cosine_similarity(at_x.flatten(1), at_eta.flatten(1), dim=1)
        logits = model(x_adv)
        return cross_entropy(logits, y).mean() + self.weight * (1 - cosine.mean()), logits


def _input_gradient(model: Network, x: Images, y: Labels, *, create_graph: bool) -> Tensor:
    x = x.detach().requires_grad_(True)
    # the fused attentions of transformers have no second derivative
    with sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext():
        loss = cross_entropy(model(x), y).sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=create_graph)
    return gradient
