"""A run: everything that determines a trained model, in one object; its digest names its folder."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from crossclass.attacks import AnyAttack, reference_attack
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.core.config import Settings
from crossclass.core.errors import did_you_mean
from crossclass.data import CIFAR10, AnyData
from crossclass.data.augment import Augment
from crossclass.models import AnyModel, PreActResNet
from crossclass.training.alarms import RULES
from crossclass.training.averaging import AnyAverage
from crossclass.training.labels import Mix, TemporalEnsembling
from crossclass.training.recipes import AT, AnyRecipe, Recipe
from crossclass.training.schedule import Schedule, factor


class Validation(Settings):
    """What is measured after epochs, and at the end of training."""

    every: int = Field(default=1, ge=1)
    """Epochs between validations; the first and the last epoch are always validated."""
    n: int | None = Field(default=None, ge=1)
    """At most this many validation, test and (clean only) training images; unset is all."""
    balanced: bool = True
    """Whether fewer than all are drawn class-balanced by the run's seed; false takes the first ones."""
    attack: AnyAttack | None = None
    """The attack after an epoch; unset is PGD-20 in the recipe's ball, with the usual step of its norm."""
    final: AnyAttack | None = None
    """The attack of the full evaluation of best and last on all test images; unset is the same PGD-20."""
    batch: int = Field(default=250, ge=1)
    """Images that are evaluated at once."""


class Parent(Settings):
    """The run, and the epoch of it, from whose state another run goes on."""

    epoch: int = Field(ge=1)
    """The epoch after which the fork goes on; the parent has kept its state (`keep_state`)."""
    run: str | None = Field(default=None, exclude=True)
    """The parent's folder; not part of the digest, and not needed once the fork has begun."""
    run_digest: str | None = None
    """Of the parent: set when its folder is read, checked where given."""
    fingerprint: str | None = None
    """First 16 hex digits of the sha256 of the parent's state: set when it is read, checked where given."""


class Run(Settings):
    """Everything that determines a trained model; its digest names its folder.

    The defaults are the paper's (Table 2): PGD-10 AT at 8/255, PreActResNet-18, 200 epochs.
    """

    data: AnyData = CIFAR10()
    """The data set, by `data.kind`."""
    model: AnyModel = PreActResNet()
    """The network, by `model.kind`."""
    recipe: AnyRecipe = AT()
    """How a training step is made, by `recipe.kind`: its attack and its loss."""
    augment: Augment | None = Augment()
    """Random changes of training images; null has none."""
    epochs: int = Field(default=200, ge=1)
    """Passes over the training images."""
    batch: int = Field(default=128, ge=1)
    """Images of a step, over all processes together."""
    lr: float = Field(default=0.1, gt=0)
    """Learning rate of SGD, at its largest."""
    schedule: Schedule = "steps"
    """`steps` follows lr_milestones; `cyclic` and `cosine` change the rate with every batch."""
    lr_peak: float = Field(default=0.5, gt=0, lt=1)
    """Share of the epochs after which schedule=cyclic has its largest rate (Wong et al. 2020: the middle)."""
    lr_milestones: tuple[int, ...] = (100, 150)
    """Epochs after which the learning rate falls to a tenth."""
    lr_warmup: int = Field(default=0, ge=0)
    """Epochs over which the learning rate rises linearly from 0."""
    eps_warmup: int = Field(default=0, ge=0)
    """Epoch in which eps reaches its value, rising linearly from 0; 0 has no warm-up."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay of SGD."""
    decay_bias_and_norm: bool = True
    """Whether weight decay acts on biases and batch norm too."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing: 1 - s on the true class, s/(K - 1) on each other."""
    attack_labels: Literal["hard", "soft"] = "hard"
    """Whether the attack ascends the loss to smoothed labels (labels mixed by `mix` it always takes)."""
    mix: Mix | None = None
    """Mixup and cutmix."""
    ensembling: TemporalEnsembling | None = None
    """Self-distillation from the network's own past predictions."""
    weight_averaging: AnyAverage | None = None
    """Weight averaging; the average is then what is validated and saved."""
    grad_clip_norm: float | None = Field(default=None, gt=0)
    """Largest l_2 norm of the whole gradient; unset does not clip."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the training step; the attack has its own (`recipe.attack.precision`)."""
    validation: Validation = Validation()
    """What is measured after epochs, and at the end."""
    stop_on_alarms: tuple[str, ...] = ()
    """Alarms that end the training, such as [catastrophic-overfitting]; others only warn."""
    restore_last_good: bool = False
    """Whether `last` then is the last checkpoint before the trouble, not the network at the end."""
    checkpoint_every: int = Field(default=0, ge=0)
    """Epochs between the checkpoints `epoch_NNN`; 0 writes none."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of weights, order, augmentation and attacks: every seed is another run."""
    parent: Parent | None = None
    """Go on from the state of another run instead of from new weights (`crossclass fork`)."""

    @model_validator(mode="after")
    def _schedule(self) -> "Run":
        if list(self.lr_milestones) != sorted(set(self.lr_milestones)) or any(
            d < 1 for d in self.lr_milestones
        ):
            raise ValueError("lr_milestones must be rising epochs, counted from 1")
        if self.schedule != "steps" and self.lr_milestones:
            raise ValueError(f"schedule={self.schedule} has no lr_milestones; set lr_milestones=[]")
        if self.schedule == "cyclic" and self.lr_warmup:
            raise ValueError("schedule=cyclic rises from 0 by itself; leave out lr_warmup")
        if self.lr_milestones and self.lr_milestones[-1] >= self.epochs:
            hint = f"[{self.epochs // 2},{self.epochs * 3 // 4}]" if self.epochs >= 4 else "[]"
            raise ValueError(
                f"lr_milestones={list(self.lr_milestones)} do not lie inside {self.epochs} epochs; "
                f"set lr_milestones={hint}, say"
            )
        if self.parent is not None and self.parent.epoch >= self.epochs:
            raise ValueError(
                f"the fork goes on after epoch {self.parent.epoch}, and epochs={self.epochs} ends it there; "
                "epochs counts the parent's too, so give more"
            )
        for name in ("weight_averaging", "ensembling"):
            start = getattr(getattr(self, name), "start", 1)
            if start > self.epochs:
                raise ValueError(f"{name}.start={start} lies after the last epoch, {self.epochs}")
        return self

    @model_validator(mode="after")
    def _ensembling_in_the_attack(self) -> "Run":
        attack = self.recipe.crafting_attack
        if self.ensembling is not None and attack is not None and not hasattr(attack, "added_loss"):
            raise ValueError(
                "the term of ensembling is ascended by the attack, which "
                f"recipe.attack.kind={attack.kind} cannot; use kind pgd or fgsm"
            )
        return self

    @field_validator("stop_on_alarms")
    @classmethod
    def _known_alarms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in RULES:
                raise ValueError(f"there is no alarm '{name}'{did_you_mean(name, RULES)}")
        return names

    @model_validator(mode="after")
    def _ball(self) -> "Run":
        threat = self.recipe.threat
        if threat is not None and 0 < threat.eps < threat.smallest:
            raise ValueError(
                f"an {threat} ball is too small to protect against anything; use a radius "
                f"above {threat.smallest:g}, or the norm that it was meant for (threat.kind=linf)"
            )
        return self

    def lr_at(self, epoch: int, done: float = 1.0) -> float:
        """Learning rate in an epoch, counted from 1, for the batch after which the share `done` is done."""
        time = epoch - 1 + done
        return self.lr * factor(
            self.schedule, time, self.epochs, self.lr_milestones, self.lr_warmup, self.lr_peak
        )

    def recipe_at(self, epoch: int) -> Recipe:
        """The recipe as it is in an epoch, counted from 1: warm-ups of eps and of recipes applied."""
        recipe = self.recipe.at_epoch(epoch)
        warmup = self.eps_warmup
        if epoch >= warmup:
            return recipe
        return recipe.map_attacks(
            lambda a: a.replace(threat=a.threat.replace(eps=a.threat.eps * epoch / warmup))
        )

    @property
    def threat(self) -> AnyThreat:
        """The ball that the run is trained in; l_inf 8/255 for a recipe without one."""
        return self.recipe.threat or Linf()

    def validation_attack(self) -> AnyAttack:
        """The attack of the validation after an epoch."""
        return self.validation.attack or reference_attack(self.threat)

    def final_attack(self) -> AnyAttack:
        """The attack of the full evaluation."""
        return self.validation.final or reference_attack(self.threat)
