"""Adversarial training with knowledge distillation: soft labels from a teacher (eq. 3)."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, InstanceOf, model_validator
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor, nn

from crossclass.attacks import Images, Network
from crossclass.attacks.losses import Labels, Logits, cross_entropy, kl, soft
from crossclass.attacks.norms import AnyThreat
from crossclass.core.config import Settings
from crossclass.models.model_state import evaluating
from crossclass.training.recipes.at import AT, Loss, Noise


class Teacher(Settings):
    """Who teaches. Unset: this run, same seed, trained with the inner recipe (first, if it is missing)."""

    changes: tuple[str, ...] = ()
    """How the teacher's run differs from that, as `path=value`: [recipe.kind=standard], [model.width=64]."""
    which: Literal["best.val", "best.test", "last"] = "best.val"
    """Which checkpoint of the teacher's run; best.test where no images are held out."""
    file: str | None = Field(None, exclude=True)
    """Instead: a run folder (`RUN@best.val`) or a checkpoint. Where it lies is not part of a run."""
    fingerprint: str | None = None
    """Filled in when `file` is read; given, it is checked."""
    weight: float = Field(1.0, gt=0)
    """Share among several teachers."""
    module: SkipJsonSchema[InstanceOf[nn.Module] | None] = Field(None, exclude=True, repr=False)
    """The network itself: training puts it here before the first batch, and so can a loop of one's own."""

    @model_validator(mode="after")
    def _one(self) -> "Teacher":
        if self.changes and (self.file is not None or self.fingerprint is not None):
            raise ValueError("a teacher is a changed run or a file, not both")
        return self

    def logits(self, x: Images) -> Logits:
        """Its logits in eval mode, without a gradient; raises TypeError while it is only named."""
        if self.module is None:
            raise TypeError("this teacher is only named; train it, or give Teacher(module=...)")
        with torch.no_grad(), evaluating(self.module):
            logits: Tensor = self.module(x)
        return logits


class KnowledgeDistillation(Settings):
    """AT + KD (eq. 3): (1 - lam) CE(f(x_adv), y) + lam T^2 KL(teacher(x_adv)/T || f(x_adv)/T)."""

    kind: Literal["kd"] = "kd"
    inner: AT = AT()
    """Whose attack crafts the images; also what the teacher is trained with if nobody is named."""
    teachers: tuple[Teacher, ...] = Field((Teacher(),), min_length=1)
    lam: float = Field(0.5, ge=0, le=1)
    """lambda of eq. 3: how much of the loss is the teachers'."""
    T: float = Field(2.0, gt=0)
    """Temperature."""
    scaled: bool = True
    """Multiply the teachers' term by T^2, so that its gradients do not shrink with T (Hinton et al. 2015)."""
    direction: Literal["teacher_student", "student_teacher"] = "teacher_student"
    """Of the KL divergence; the first is cross-entropy to the teacher up to a constant."""
    attacked: Literal["ce", "total"] = "ce"
    """The loss that crafting ascends: cross-entropy to the labels, or to labels mixed with the teacher's."""
    shown: Literal["adversarial", "clean"] = "adversarial"
    """The images that teachers see (clean: Goldblum et al. 2020)."""

    @property
    def threat(self) -> AnyThreat | None:
        """The inner recipe's ball."""
        return self.inner.threat

    def craft(self, model: Network, x: Images, y: Labels, generator: Noise = None) -> Images:
        """Adversarial images; with `attacked=total` for labels mixed with the teachers' at x (T = 1)."""
        if self.attacked == "total":
            told = [share * t.logits(x).softmax(dim=1) for t, share in self._shares()]
            taught = torch.stack(told).sum(dim=0)
            hot = soft(y, taught.shape[1])
            y = (1 - self.lam) * hot + self.lam * taught
        return self.inner.craft(model, x, y, generator)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """Eq. 3 as a mean over the batch."""
        logits = model(x_adv)
        total = (1 - self.lam) * cross_entropy(logits, y)
        seen = x_adv if self.shown == "adversarial" else x
        for teacher, share in self._shares():
            total = total + self.lam * share * self._term(logits, teacher.logits(seen))
        return total.mean(), logits

    def _term(self, logits: Logits, told: Logits) -> Float[Tensor, " n"]:
        student, teacher = logits / self.T, told / self.T
        forward = self.direction == "teacher_student"
        term = kl(student, teacher) if forward else kl(teacher, student)
        return term * self.T**2 if self.scaled else term

    def _shares(self) -> list[tuple[Teacher, float]]:
        total = sum(t.weight for t in self.teachers)
        return [(t, t.weight / total) for t in self.teachers]
