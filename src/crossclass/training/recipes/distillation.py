"""Adversarial training with knowledge distillation: soft labels from a teacher (eq. 3)."""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, InstanceOf, JsonValue, model_validator
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor, nn

from crossclass.attacks import Images, Network
from crossclass.attacks.losses import Labels, Logits, cross_entropy, kl, soft
from crossclass.core.config import Settings
from crossclass.models.model_state import evaluating
from crossclass.training.recipes.at import AT
from crossclass.training.recipes.base import Loss, Noise, Recipe, logits_at


class Teacher(Settings):
    """A trained network that gives soft labels.

    By default it is this run with the same seed and the inner recipe alone, trained first if need be.
    """

    changes: dict[str, JsonValue] = Field(default={})
    """Settings in which the teacher's run differs, by dotted path: {recipe.kind: standard}."""
    which: Literal["best.val", "best.test", "last"] = "best.val"
    """Which checkpoint of the teacher's run; best.test where no images are held out."""
    file: str | None = Field(default=None, exclude=True)
    """Instead of a run to train: a run folder (`RUN@best.val`) or a checkpoint. Not part of the digest."""
    fingerprint: str | None = None
    """First 16 hex digits of the sha256 of the file's weights: set when it is read, checked where given."""
    weight: float = Field(default=1.0, gt=0)
    """Weight among several teachers; they are divided by their sum."""
    module: SkipJsonSchema[InstanceOf[nn.Module] | None] = Field(default=None, exclude=True, repr=False)
    """The network; training sets it before the first batch, and a loop of your own can."""

    @model_validator(mode="after")
    def _one(self) -> "Teacher":
        if self.changes and (self.file is not None or self.fingerprint is not None):
            raise ValueError("a teacher is a changed run or a file, not both")
        return self

    def __hash__(self) -> int:
        return hash(self.digest())  # a dict has no hash of its own

    def logits(self, x: Images) -> Logits:
        """Logits [n, k] in eval mode, without a gradient; raises TypeError while there is no `module`."""
        if self.module is None:
            raise TypeError("this teacher is only named; train it, or give Teacher(module=...)")
        with torch.no_grad(), evaluating(self.module):
            logits = logits_at(self.module, x)
        return logits


class KnowledgeDistillation(Recipe):
    """AT + KD (eq. 3): (1 - lam) CE(f(x_adv), y) + lam T^2 KL(teacher(x_adv)/T || f(x_adv)/T)."""

    kind: Literal["kd"] = "kd"
    inner: AT = AT()
    """Whose attack crafts the images; also what a teacher without settings of its own is trained with."""
    teachers: tuple[Teacher, ...] = Field(default=(Teacher(),), min_length=1)
    """The trained networks that are distilled."""
    lam: float = Field(default=0.5, ge=0, le=1)
    """lambda of eq. 3: how much of the loss is the teachers'."""
    T: float = Field(default=2.0, gt=0)
    """Temperature."""
    scale_by_T2: bool = True  # noqa: N815
    """Multiply the teachers' term by T^2, so that its gradients do not shrink with T (Hinton et al. 2015)."""
    direction: Literal["teacher_student", "student_teacher"] = "teacher_student"
    """Of the KL divergence; the first is cross-entropy to the teacher up to a constant."""
    attack_loss: Literal["ce", "total"] = "ce"
    """The attack ascends cross-entropy to the labels, or to (1 - lam) labels + lam teachers' predictions."""
    teacher_input: Literal["adversarial", "clean"] = "adversarial"
    """The images that teachers classify (clean: Goldblum et al. 2020)."""

    def craft(self, model: Network, x: Images, y: Labels, generator: Noise = None) -> Images:
        """Adversarial images; `attack_loss=total` takes the teachers' predictions at x with T = 1."""
        if self.attack_loss == "total":
            p = torch.stack([w * t.logits(x).softmax(dim=1) for t, w in self._weighted()]).sum(dim=0)
            y = (1 - self.lam) * soft(y, p.shape[1]) + self.lam * p
        return self.inner.craft(model, x, y, generator)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """Eq. 3 as a mean over the batch; raises TypeError while a teacher is only named."""
        logits = logits_at(model, x_adv)
        total = (1 - self.lam) * cross_entropy(logits, y)
        images = x_adv if self.teacher_input == "adversarial" else x
        for teacher, weight in self._weighted():
            total = total + self.lam * weight * self._divergence(logits, teacher.logits(images))
        return total.mean(), logits

    def _divergence(self, logits: Logits, teacher_logits: Logits) -> Float[Tensor, " n"]:
        student, teacher = logits / self.T, teacher_logits / self.T
        forward = self.direction == "teacher_student"
        term = kl(student, teacher) if forward else kl(teacher, student)
        return term * self.T**2 if self.scale_by_T2 else term

    def _weighted(self) -> list[tuple[Teacher, float]]:
        total = sum(t.weight for t in self.teachers)
        return [(t, t.weight / total) for t in self.teachers]


def distillations(recipe: Recipe) -> Iterator[KnowledgeDistillation]:
    """Every distillation in a recipe, at any depth."""
    return (r for r in recipe.walk() if isinstance(r, KnowledgeDistillation))


def map_teachers(recipe: Recipe, f: Callable[[KnowledgeDistillation, Teacher], Teacher]) -> Recipe:
    """A copy with every teacher, at any depth, replaced by `f(its distillation, teacher)`."""
    copy = recipe.map_children(lambda child: map_teachers(child, f))
    if not isinstance(copy, KnowledgeDistillation):
        return copy
    return copy.replace(teachers=tuple(f(copy, teacher) for teacher in copy.teachers))


def without_teachers(recipe: Recipe) -> Recipe:
    """A copy in which the recipe inside takes the place of every distillation."""
    if isinstance(recipe, KnowledgeDistillation):
        return recipe.inner
    return recipe.map_children(without_teachers)
