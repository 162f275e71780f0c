"""The network under examination, its images, and the promise that it comes back exactly as it was.

Images are drawn from the test part (validation or training, if there is none) by (seed, "doctor"), so
files sorted by class do no harm. Everything is float32 in eval mode.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossclass.attacks import PGD, AnyAttack, AttackResult
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.core.config import Settings
from crossclass.core.rng import generator
from crossclass.core.runtime import full_precision
from crossclass.data import Splits, as_float
from crossclass.models import Classifier, channel_statistics
from crossclass.models.model_state import frozen

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, in [0, 1] units."""


class Doctor(Settings):
    """Settings of an examination."""

    n: int = Field(1000, ge=2)
    """Images for the checks without attacks (fewer, if the data set has fewer)."""
    n_attack: int = Field(200, ge=2)
    """The first so many of them are attacked."""
    threat: AnyThreat = Linf()
    seed: int = Field(0, ge=0)
    batch: PositiveInt = 250

    @field_validator("threat")
    @classmethod
    def _has_room(cls, threat: AnyThreat) -> AnyThreat:
        if threat.eps <= 0:
            raise ValueError("eps=0 attacks nothing; give a positive radius such as 8/255")
        return threat


@dataclass(frozen=True)
class Probe:
    """A network, the images it is asked about, and what was already asked."""

    model: Classifier
    x: Float[Tensor, "n c h w"]
    y: Int[Tensor, " n"]
    class_names: tuple[str, ...]
    part: str
    """Where the images are from: test, val or train."""
    data: Statistics
    """Of the training part."""
    file: Statistics | None
    """What the checkpoint's file says."""
    settings: Doctor
    surrogate: Classifier | None = None
    attacked: dict[AnyAttack, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Rights and dead steps of attacks that were already run."""

    @property
    def classes(self) -> int:
        """Classes of the data set."""
        return len(self.class_names)

    @property
    def conditions(self) -> str:
        """Which images, for the line of evidence."""
        return f"{len(self.x)} {self.part} images, seed {self.settings.seed}"

    @property
    def threat(self) -> AnyThreat:
        """The ball that the images are attacked in."""
        return self.settings.threat

    @cached_property
    def few(self) -> tuple[Float[Tensor, "m c h w"], Int[Tensor, " m"]]:
        """The images that are attacked, and their labels."""
        return self.x[: self.settings.n_attack], self.y[: self.settings.n_attack]

    @cached_property
    def own(self) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Features and head's outputs of all images as the network came, both of one forward pass."""
        pairs = self.each(self.x, self.model.outputs)
        return torch.cat([g for g, _ in pairs]).float(), torch.cat([z for _, z in pairs]).float()

    @cached_property
    def right(self) -> Bool[Tensor, " n"]:
        """Which images are classified rightly as the network came."""
        return self.answers.argmax(dim=1) == self.y

    @cached_property
    def answers(self) -> Float[Tensor, "n k"]:
        """What `forward` gives for all images as the network came."""
        return self.logits(self.x)

    @cached_property
    def unrest(self) -> float:
        """How far a second pass of the first images is from the first one."""
        x = self.x[:32]
        return gap(self.logits(x), self.logits(x))

    def judge(self, x: Float[Tensor, "m c h w"], y: Int[Tensor, " m"]) -> Bool[Tensor, " m"]:
        """Which of these images are classified rightly, by `forward`, as an attack sees it."""
        return self.logits(x).argmax(dim=1) == y

    def logits(self, x: Float[Tensor, "m c h w"]) -> Float[Tensor, "m k"]:
        """Outputs of `forward` in float32."""
        return torch.cat(self.each(x, self.model)).float()

    @torch.no_grad()
    def each(
        self, x: Float[Tensor, "m c h w"], f: Callable[[Tensor], Any], batch_statistics: bool = False
    ) -> list[Any]:
        """f of every batch, in eval mode, in the network's own floating type.

        With `batch_statistics` batch norm (and nothing else) is in train mode, and moves nothing.
        """
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        norms = [m for m in self.model.modules() if batch_statistics and isinstance(m, _BatchNorm)]
        tracking = [m.track_running_stats for m in norms]
        with full_precision(), frozen(self.model):
            try:
                for m in norms:
                    m.training, m.track_running_stats = True, False
                return [f(b.to(dtype)) for b in x.split(self.settings.batch)]
            finally:
                for m, before in zip(norms, tracking, strict=True):
                    m.track_running_stats = before

    def under(self, attack: AnyAttack) -> Bool[Tensor, " m"]:
        """Which of the `few` are still classified rightly; attacks of equal start share their noise."""
        return self._under(attack)[0]

    def dead(self, attack: AnyAttack) -> Int[Tensor, " m"]:
        """Per image, the number of steps without a usable gradient."""
        return self._under(attack)[1]

    def still(
        self, stood: Bool[Tensor, " m"], attack: AnyAttack, on: Classifier | None = None
    ) -> Bool[Tensor, " m"]:
        """Which of those of the `few` that stood so far stand this attack as well; the others are spared.

        The images are made on this network, or on another and only judged here.
        """
        x, y = self.few[0][stood], self.few[1][stood]
        found = list(self._search(attack, on or self.model, x, y))
        left = stood.clone()
        if found:
            left[stood] = self.judge(torch.cat([f.x_adv for f in found]), y)
        return left

    def _under(self, attack: AnyAttack) -> tuple[Tensor, Tensor]:
        if attack not in self.attacked:
            found = list(self._search(attack, self.model, *self.few))
            right = self.judge(torch.cat([f.x_adv for f in found]), self.few[1])
            self.attacked[attack] = right, torch.cat([f.dead_gradients for f in found])
        return self.attacked[attack]

    def _search(self, attack: AnyAttack, model: Classifier, x: Tensor, y: Tensor) -> Iterator[AttackResult]:
        size = self.settings.batch
        with full_precision():
            for i, (a, b) in enumerate(zip(x.split(size), y.split(size), strict=True)):
                if len(a):
                    target = self._targets(a, b) if isinstance(attack, PGD) and attack.targeted else b
                    yield attack.search(model, a, target, self.stream(0, i))

    def _targets(self, x: Tensor, y: Tensor) -> Tensor:
        """The most likely wrong class."""
        return self.logits(x).scatter(1, y[:, None], -torch.inf).argmax(dim=1)

    def stream(self, purpose: int, step: int = 0) -> torch.Generator:
        """A stream of noise: 0 for attacks, the others for what else is drawn."""
        return generator(self.settings.seed, purpose, step, "doctor")


def admitted(
    model: Classifier, splits: Splits, settings: Doctor, surrogate: Classifier | None, file: Statistics | None
) -> Probe:
    """The patient with its images on the model's device."""
    part = next((p for p in ("test", "val", "train") if len(getattr(splits, p))), "train")
    split = splits.part(part)
    drawn = torch.randperm(len(split), generator=generator(settings.seed, 4, 0, "doctor"))[: settings.n]
    drawn = drawn.to(split.labels.device)
    x, y = as_float(split.images[drawn]).to(model.mean.device), split.labels[drawn].to(model.mean.device)
    data = channel_statistics((splits.train if len(splits.train) else split).images)
    return Probe(model, x, y, splits.class_names, part, data, file, settings, surrogate)


def gap(a: Float[Tensor, "n k"], b: Float[Tensor, "n j"]) -> float:
    """Largest difference as a share of the largest output; infinite if they are not comparable."""
    if a.shape != b.shape or not bool(a.isfinite().all() & b.isfinite().all()):
        return float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


@contextmanager
def normalising(model: Classifier, mean: tuple[float, ...], std: tuple[float, ...]) -> Iterator[None]:
    """The model with other constants for a while; its own buffers come back, the very same tensors."""
    before = model.mean, model.std
    try:
        model.mean = before[0].new_tensor(mean).view(1, -1, 1, 1)
        model.std = before[1].new_tensor(std).view(1, -1, 1, 1)
        yield
    finally:
        model.mean, model.std = before


@contextmanager
def untouched(*models: nn.Module) -> Iterator[None]:
    """Whatever happens inside: tensors, modes, flags and gradients of the models are as before.

    Unlike `frozen` this copies every tensor: a network that is ill may move its buffers in eval mode.
    """
    modules = [m for model in models for m in model.modules()]
    held = [(m, m.training, dict(m._parameters), dict(m._buffers)) for m in modules]
    tensors = {t for _, _, ps, bs in held for t in (*ps.values(), *bs.values()) if t is not None}
    values = [(t, t.detach().clone(), t.requires_grad) for t in tensors]
    gradients = [(t, t.grad, None if t.grad is None else t.grad.clone()) for t in tensors if t.is_leaf]
    try:
        yield
    finally:
        for module, training, parameters, buffers in held:
            module.training = training
            module._parameters.update(parameters)
            module._buffers.update(buffers)
        with torch.no_grad():
            for tensor, before, flag in values:
                if not torch.equal(tensor, before):  # NaN never equals, copying it does no harm
                    tensor.copy_(before)
                if tensor.is_leaf:
                    tensor.requires_grad_(flag)
            for tensor, grad, before_grad in gradients:
                tensor.grad = grad
                if grad is not None and before_grad is not None:
                    grad.copy_(before_grad)
