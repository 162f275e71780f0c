"""GradAlign: a penalty on loss surfaces that one attack step cannot follow."""

from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from crossclass.attacks import FGSM, AnyAttack, Images, Network
from crossclass.attacks.losses import Labels, Logits, cross_entropy
from crossclass.training.recipes.base import Loss, Noise, Recipe


class GradAlign(Recipe):
    """FGSM training kept from catastrophic overfitting by aligned gradients (Andriushchenko 2020)."""

    kind: Literal["gradalign"] = "gradalign"
    attack: AnyAttack = FGSM()
    weight: float = Field(default=0.2, ge=0)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """CE(f(x_adv), y) + weight (1 - cos(grad_x L(x), grad_x L(x + eta))), eta uniform in the ball.

        As in tml-epfl/understanding-fast-adv-training, the gradient at x is a constant; back-propagation
        goes through the other one. Three forwards in train mode.
        """
        threat = self.attack.threat
        eta = threat.sample(x, threat.uniform_start, generator)
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
