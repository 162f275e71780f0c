"""A recipe answers two questions: on which inputs, and with which loss? At the foot, `Run`.

`craft(model, x, y) -> x_adv` gets the bare model; `loss(model, x, x_adv, y) -> (loss, logits)` gets the
wrapped one and returns its logits, so that training accuracy costs no further forward (in train mode
every forward moves batch-norm statistics). There is one training loop, in `train`.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from crossclass.attacks import PGD, AnyAttack, Images, Network
from crossclass.augment import Augment
from crossclass.data import CIFAR10, AnyData
from crossclass.losses import Labels, Logits, cross_entropy
from crossclass.models import AnyModel, PreActResNet
from crossclass.settings import Settings
from crossclass.threat import AnyThreat, Linf

Loss = Float[Tensor, ""]


class Standard(Settings):
    """Ordinary training: clean images, cross-entropy."""

    kind: Literal["standard"] = "standard"

    def craft(self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None) -> Images:
        """The images themselves."""
        return x

    def loss(self, model: Network, x: Images, x_adv: Images, y: Labels) -> tuple[Loss, Logits]:
        """Mean cross-entropy on clean images."""
        logits = model(x)
        return cross_entropy(logits, y).mean(), logits


class AT(Settings):
    """Adversarial training (Madry et al. 2018), eq. 1: the loss at the worst point that the attack finds."""

    kind: Literal["at"] = "at"
    attack: AnyAttack = PGD(steps=10)

    def craft(self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None) -> Images:
        """Adversarial images."""
        return self.attack(model, x, y, generator)

    def loss(self, model: Network, x: Images, x_adv: Images, y: Labels) -> tuple[Loss, Logits]:
        """Mean cross-entropy on adversarial images."""
        logits = model(x_adv)
        return cross_entropy(logits, y).mean(), logits


AnyRecipe = Annotated[Standard | AT, Field(discriminator="kind")]


class Check(Settings):
    """What is measured during training, and how thoroughly; the full evaluation is `final`."""

    every: int = Field(1, ge=1)
    """Epochs between checks; the first and the last epoch are always checked."""
    n: int | None = Field(None, ge=1)
    """At most this many validation, test and (clean only) training images per check; unset is all."""
    attack: AnyAttack | None = None
    """Unset is PGD-20 in the recipe's own ball, eps/4 a step (eps/8 for l_2)."""
    final: AnyAttack | None = None
    """The attack at the checkpoints that matter, on all test images; unset is the same PGD-20."""
    batch: int = Field(250, ge=1)


class Run(Settings):
    """Everything that determines a trained model; its digest names its folder.

    The defaults are the paper's (Table 2): PGD-10 AT at 8/255, PreActResNet-18, 200 epochs.
    """

    data: AnyData = CIFAR10()
    model: AnyModel = PreActResNet()
    recipe: AnyRecipe = AT()
    augment: Augment | None = Augment()
    epochs: int = Field(200, ge=1)
    batch: int = Field(128, ge=1)
    lr: float = Field(0.1, gt=0)
    drops: tuple[int, ...] = (100, 150)
    """Epochs after which the learning rate falls to a tenth."""
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    decay: Literal["all", "matrices"] = "all"
    """`matrices` leaves biases and batch norm undecayed (a second parameter group)."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of the whole gradient."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the training step; crafting has its own (`recipe.attack.precision`)."""
    check: Check = Check()
    keep_every: int = Field(0, ge=0)
    """Keep `epoch_NNN` every so many epochs; 0 keeps none."""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _schedule(self) -> "Run":
        if list(self.drops) != sorted(set(self.drops)) or any(d < 1 for d in self.drops):
            raise ValueError("drops must be rising epochs, counted from 1")
        if self.drops and self.drops[-1] >= self.epochs:
            hint = f"[{self.epochs // 2},{self.epochs * 3 // 4}]" if self.epochs >= 4 else "[]"
            raise ValueError(
                f"drops={list(self.drops)} do not lie inside {self.epochs} epochs; set drops={hint}, say"
            )
        return self

    def lr_at(self, epoch: int) -> float:
        """Learning rate in epoch 1, 2, ...: a tenth after each drop."""
        return self.lr * 10.0 ** -sum(epoch > d for d in self.drops)

    @property
    def threat(self) -> AnyThreat:
        """The ball that the run is trained in; l_inf 8/255 for a recipe without one."""
        return self.recipe.attack.threat if isinstance(self.recipe, AT) else Linf()

    def check_attack(self) -> AnyAttack:
        """The attack of the per-epoch check."""
        return self.check.attack or reference_attack(self.threat)

    def final_attack(self) -> AnyAttack:
        """The attack of the full evaluation."""
        return self.check.final or reference_attack(self.threat)


def reference_attack(threat: AnyThreat) -> PGD:
    """PGD-20 as in the paper's code: a step is eps/4 for l_inf and eps/8 for l_2."""
    return PGD(threat=threat, steps=20, step=0.125 if threat.kind == "l2" else 0.25)
