"""Projected gradient ascent, the attack of adversarial training, and its one-step form.

x^{t+1} = Pi_{B(x, eps)}(x^t + alpha * steepest(grad_x loss(x^t, y)))    (eq. 2; Madry et al. 2018)

Images are in [0, 1]. The model comes back exactly as it was; only input gradients are taken
(`torch.autograd.grad`, parameters frozen), so no parameter gradient is left behind and no weight
gradient is computed. The loss is summed, so a sample's result does not depend on its batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor

from crossclass.attacks.base import Attack, AttackResult, Images, Network, require_images, validate_images
from crossclass.attacks.cuda_graphs import active_graphs
from crossclass.attacks.losses import Labels, cross_entropy, hard, kl, margin
from crossclass.attacks.norms import AnyThreat, Linf, Start, per_sample
from crossclass.attacks.step_length import (
    OTHER_NAMES,
    STEPS,
    AbsoluteStep,
    RelativeStep,
    describe_step,
    one_step,
    step_length,
)
from crossclass.core.classes import class_labels, known_labels, label_check, predicted
from crossclass.models.model_state import BNMode, Precision, frozen

AddedLoss = Callable[[Tensor, Tensor | slice], Tensor]


class PGD(Attack):
    """Projected gradient ascent (Madry et al. 2018), with the choices that recipes hide made explicit."""

    kind: Literal["pgd"] = "pgd"
    threat: AnyThreat = Linf()
    steps: int = Field(default=10, ge=0)
    """Number of gradient steps."""
    rel_step: RelativeStep = 0.25
    """Step length as a share of eps; `reference_attack` takes the norm's usual one."""
    step_size: AbsoluteStep = None
    """Step length in [0, 1] units, such as 2/255, instead of `rel_step`."""
    start: Start | None = None
    """Distribution of the start; unset is the norm's first (l_inf `uniform`, l_2 `uniform_radius`)."""
    restarts: PositiveInt = 1
    """Independent starts; the worst of them is kept for every sample."""
    loss: Literal["ce", "margin", "kl"] = "ce"
    """`kl` ascends KL to the clean prediction and ignores the labels (TRADES' inner problem)."""
    targeted: bool = False
    """If true, `y` are targets, and the loss to them is descended."""
    return_iterate: Literal["last", "best", "first"] = "last"
    """`best` keeps the worst iterate (misclassified first, then by loss); CAS needs `last`.

    `first` stops a sample at its first misclassified iterate: the robust accuracy of `best`, for less work.
    """
    bn: BNMode = "eval"
    """Whether batch norm uses its running statistics (`eval`) or those of the batch."""
    precision: Precision = "fp32"
    """Of the forward pass only; input, perturbation and projection are always float32."""
    box: tuple[float, float] | None = (0.0, 1.0)
    """Range of valid inputs; none in the paper's theory."""
    added_loss: SkipJsonSchema[AddedLoss | None] = Field(default=None, exclude=True, repr=False)
    """f(logits, rows of the batch) -> [n], ascended beside `loss`; training sets it (temporal ensembling)."""

    alternatives: ClassVar[Any] = STEPS
    replaced: ClassVar[Any] = OTHER_NAMES

    _one_step = model_validator(mode="before")(one_step)

    @model_validator(mode="after")
    def _fits(self) -> "PGD":
        if self.targeted and self.loss == "kl":
            raise ValueError("loss=kl ignores the labels, so there is no target; use loss=ce or margin")
        if self.return_iterate == "first" and self.bn != "eval":
            raise ValueError(
                "return_iterate=first leaves samples out, which batch statistics would notice; use bn=eval"
            )
        if self.start is not None and self.start not in self.threat.starts:
            known = ", ".join(self.threat.starts)
            raise ValueError(f"start '{self.start}' is not for {self.threat.kind}; known: {known}")
        return self

    def __str__(self) -> str:
        parts = [f"PGD-{self.steps}", str(self.threat), describe_step(self.rel_step, self.step_size)]
        parts.append(f"{self.start or self.threat.starts[0]} start")
        return ", ".join(parts + _extras(self))

    @property
    def alpha(self) -> float:
        """Step length in [0, 1] units."""
        return step_length(self.rel_step, self.step_size, self.threat.eps)

    @property
    def gradients(self) -> int:
        """Input gradients taken per sample (with `return_iterate=first`, at most)."""
        return self.steps * self.restarts

    def search(
        self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> AttackResult:
        """Adversarial images, whether they succeed, and how many gradients were unusable."""
        require_images(x)
        y = class_labels(y, len(x))
        graphs = active_graphs()
        if graphs is not None and (replayed := graphs.search(self, model, x, y, generator)):
            return replayed
        scored = self.return_iterate == "best" or self.restarts > 1
        with self._crafting(model, x, y) as f:
            x, y = (t.clone() if t.is_inference() else t for t in (x, y))  # these take no gradient
            x, y = validate_images(x, self.box), y.to(x.device)
            reference = f(x).detach() if self.loss == "kl" else None
            if self.return_iterate == "first":
                return self._until_wrong(f, x, y, reference, generator)
            best, best_score = self.ascend(f, x, y, reference, self.draw_start(x, generator), scored)
            for _ in range(self.restarts - 1):
                result, score = self.ascend(f, x, y, reference, self.draw_start(x, generator), scored)
                assert result.success is not None
                assert best.success is not None
                better = _worse(result.success, score, best.success, best_score)
                best = AttackResult(
                    torch.where(per_sample(better, x), result.x_adv, best.x_adv),
                    torch.where(better, result.success, best.success),
                    best.dead_gradients + result.dead_gradients,
                )
                best_score = torch.where(better, score, best_score)
        return best

    def further(self, model: Network, x: Images, y: Labels, x_adv: Images) -> Images:
        """What becomes of adversarial images x_adv of x after all steps once more, from where they are."""
        with self._crafting(model, x, y) as f:
            x = validate_images(x, self.box)
            reference = f(x).detach() if self.loss == "kl" else None
            return self.ascend(f, x, y, reference, x_adv - x, scored=False)[0].x_adv

    @contextmanager
    def _crafting(self, model: Network, x: Images, y: Labels) -> Iterator[Network]:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(x.device.type, enabled=False),  # else a caller's reaches the backward pass
            frozen(model, self.bn, self.precision) as f,
        ):
            check = label_check(y)
            with known_labels():  # the losses need not look again
                yield lambda x: check(f(x))

    def draw_start(self, x: Images, generator: torch.Generator | None) -> Tensor:
        """A start perturbation, shaped like `x`."""
        start: Start = self.start or self.threat.starts[0]
        return self.threat.sample(x, start, generator)

    def ascend(
        self, f: Network, x: Images, y: Labels, reference: Tensor | None, start: Tensor, scored: bool
    ) -> tuple[AttackResult, Tensor]:
        """All steps from a start perturbation, and scores [n], for a network that is frozen already.

        Nothing is drawn, and the host reads nothing: with `scored=False` it can be recorded as a CUDA graph.
        """
        alpha = self.alpha
        x_adv = self._inside(x, start)
        dead = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        kept, success = x_adv, torch.zeros(len(x), dtype=torch.bool, device=x.device)
        score = torch.full((len(x),), -torch.inf, device=x.device)
        for t in range(self.steps + 1):
            last = t == self.steps
            if last and not scored:
                break
            x_adv = x_adv.detach().requires_grad_(not last)
            logits = f(x_adv)
            gain = self._gain(logits, y, reference, slice(None))
            if scored and (self.return_iterate == "best" or last):
                now = self._succeeds(logits, y)
                better = _worse(now, gain.detach(), success, score)
                kept = torch.where(per_sample(better, x), x_adv.detach(), kept)
                success = torch.where(better, now, success)
                score = torch.where(better, gain.detach(), score)
            if not last:
                (gradient,) = torch.autograd.grad(gain.sum(), x_adv)
                dead += self._dead(gradient)
                delta = x_adv.detach() - x + self.threat.steepest(gradient, alpha)
                x_adv = self._inside(x, delta)
        result = AttackResult(kept, success, dead) if scored else AttackResult(x_adv.detach(), None, dead)
        return result, score

    def _until_wrong(
        self,
        f: Network,
        x: Images,
        y: Labels,
        reference: Tensor | None,
        generator: torch.Generator | None,
    ) -> AttackResult:
        """Every start in turn, on samples that still stand (Rice 2020); the iterates are those of `best`."""
        kept, success = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        dead = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for _ in range(self.restarts):
            starts = self._inside(x, self.draw_start(x, generator))  # drawn for all, as `best` does
            (left,) = torch.where(~success)
            if not len(left):
                break
            x_adv = starts[left]
            for t in range(self.steps + 1):
                x_adv = x_adv.detach().requires_grad_(t < self.steps)
                logits = f(x_adv)
                kept[left], success[left] = x_adv.detach(), self._succeeds(logits, y[left])
                unsolved = ~success[left]
                if t == self.steps or not unsolved.any():
                    break
                clean = reference[left] if reference is not None else None
                gain = self._gain(logits, y[left], clean, left)
                (gradient,) = torch.autograd.grad(gain.sum(), x_adv)
                gradient, x_adv, left = gradient[unsolved], x_adv.detach()[unsolved], left[unsolved]
                dead[left] += self._dead(gradient)
                delta = x_adv - x[left] + self.threat.steepest(gradient, self.alpha)
                x_adv = self._inside(x[left], delta)
        return AttackResult(kept, success, dead)

    @staticmethod
    def _dead(gradient: Tensor) -> Tensor:
        """Per sample, whether nothing can be ascended: a gradient that is zero or not finite."""
        top = gradient.abs().amax(dim=tuple(range(1, gradient.ndim)))  # NaN if one of them is
        return ~(top.isfinite() & (top > 0))

    def _gain(
        self, logits: Tensor, y: Labels, reference: Tensor | None, rows: Tensor | slice
    ) -> Float[Tensor, " n"]:
        if reference is not None:
            gain = kl(logits, reference)
        else:
            loss = cross_entropy(logits, y) if self.loss == "ce" else margin(logits, y)
            gain = -loss if self.targeted else loss
        return gain if self.added_loss is None else gain + self.added_loss(logits, rows)

    def _succeeds(self, logits: Tensor, y: Labels) -> Tensor:
        hit = predicted(logits) == hard(y)  # an output that is no number is wrong
        return hit if self.targeted else ~hit

    def _inside(self, x: Images, delta: Tensor) -> Images:
        x_adv = x + self.threat.project(delta)
        return x_adv if self.box is None else x_adv.clamp(*self.box)


def reference_attack(threat: AnyThreat) -> PGD:
    """PGD-20 as in the paper's code, with the norm's usual step (eps/4 for l_inf, eps/8 for l_2)."""
    return PGD(threat=threat, steps=20, rel_step=threat.usual_step)


class FGSM(Attack):
    """One step (Goodfellow et al. 2015); with `start=uniform`, `rel_step=1.25` it is FGSM-RS (Wong 2020)."""

    kind: Literal["fgsm"] = "fgsm"
    threat: AnyThreat = Linf()
    rel_step: RelativeStep = 1.0
    """Step length as a share of eps; above 1 the result is projected back."""
    step_size: AbsoluteStep = None
    """Step length in [0, 1] units, such as 10/255, instead of `rel_step`."""
    start: Start = "none"
    """Where the step starts; `none` is the image itself."""
    loss: Literal["ce", "margin"] = "ce"
    """What the step raises: cross-entropy or the margin."""
    targeted: bool = False
    """Step towards a given class instead of away from the label."""
    bn: BNMode = "eval"
    """Whether batch norm uses its running statistics (`eval`) or those of the batch."""
    precision: Precision = "fp32"
    """Number format of the forward and backward pass."""
    box: tuple[float, float] | None = (0.0, 1.0)
    """Range that images stay in; null has none."""
    added_loss: SkipJsonSchema[AddedLoss | None] = Field(default=None, exclude=True, repr=False)
    """As of `PGD`."""

    steps: ClassVar[int] = 1
    alternatives: ClassVar[Any] = STEPS
    replaced: ClassVar[Any] = OTHER_NAMES

    _one_step = model_validator(mode="before")(one_step)

    @model_validator(mode="after")
    def _start_fits(self) -> "FGSM":
        self.as_pgd()
        return self

    @property
    def gradients(self) -> int:
        """Input gradients taken per sample."""
        return 1

    def as_pgd(self) -> PGD:
        """The same attack, written as PGD-1."""
        shared = {n: getattr(self, n) for n in FGSM.model_fields if n != "kind"}
        return PGD.model_validate({**shared, "steps": 1})

    def __str__(self) -> str:
        parts = [
            "FGSM",
            str(self.threat),
            describe_step(self.rel_step, self.step_size),
            f"{self.start} start",
        ]
        return ", ".join(parts + _extras(self.as_pgd()))

    def search(
        self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> AttackResult:
        """Adversarial images, whether they succeed, and how many gradients were unusable."""
        return self.as_pgd().search(model, x, y, generator)


def _worse(success: Tensor, score: Tensor, than_success: Tensor, than_score: Tensor) -> Tensor:
    """Per sample: is the first the worse case? Misclassified beats classified, then the loss decides."""
    return (success & ~than_success) | ((success == than_success) & (score > than_score))


def _extras(attack: PGD) -> list[str]:
    """What differs from a plain attack, for the line that conditions are printed in."""
    extras = {
        f"{attack.restarts} restarts": attack.restarts > 1,
        "best iterate": attack.return_iterate == "best",
        "stopped at the first success": attack.return_iterate == "first",
        f"{attack.loss} loss": attack.loss != "ce",
        "targeted": attack.targeted,
        f"bn {attack.bn}": attack.bn != "eval",
        f"crafted in {attack.precision}": attack.precision != "fp32",
        "no box": attack.box is None,
    }
    return [extra for extra, holds in extras.items() if holds]
