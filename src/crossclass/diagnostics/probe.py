"""The network under examination with its images; it is left exactly as it was.

Images are drawn class-balanced from the test part (validation or training, if there is none), so files
sorted by class do no harm. Everything is float32 in eval mode.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from crossclass.analysis.feedings import (
    Feeding,
    arrangements,
    as_loaded,
    feedings,
    known_constants,
    same_constants,
    standardised,
    with_variants,
)
from crossclass.analysis.input_alternatives import InputTrial, Trial, predictions, try_feedings
from crossclass.analysis.network_faults import predictions_by_batch_statistics
from crossclass.analysis.renumbering import explaining_renumbering, orders_of_names
from crossclass.attacks import PGD, AnyAttack, AttackResult
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.core import rng
from crossclass.core.classes import predicted
from crossclass.core.config import Settings
from crossclass.core.device import full_precision
from crossclass.data import Splits, as_float
from crossclass.data.base import MEASURED
from crossclass.data.draw import draw
from crossclass.models import Classifier, Variant, channel_statistics
from crossclass.models.base import Statistics
from crossclass.models.model_state import frozen


class Doctor(Settings):
    """Settings of `examine`."""

    n: int = Field(default=1000, ge=2)
    """Images for the checks without attacks (fewer, if the data set has fewer)."""
    n_attack: int = Field(default=200, ge=2)
    """Number of these images that are attacked."""
    threat: AnyThreat = Linf()
    """The ball of the attacks."""
    seed: int = Field(default=0, ge=0)
    """Of the images and of the attacks."""
    batch: PositiveInt = 250
    """Images that are evaluated at once."""

    @field_validator("threat")
    @classmethod
    def _has_room(cls, threat: AnyThreat) -> AnyThreat:
        if threat.eps <= 0:
            raise ValueError("eps=0 attacks nothing; give a positive radius such as 8/255")
        return threat


@dataclass(frozen=True)
class Probe:
    """A network, its images, and the results that several checks use."""

    model: Classifier
    x: Float[Tensor, "n c h w"]
    y: Int[Tensor, " n"]
    class_names: tuple[str, ...]
    part: str
    """The part of the data that the images are from: test, val or train."""
    data: Statistics
    """Channel statistics of the training part."""
    file: Statistics | None
    """The normalisation that the checkpoint's file names."""
    settings: Doctor
    surrogate: Classifier | None = None
    results: dict[AnyAttack, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """For attacks that were already run: which images are still correct, and dead gradients per image."""
    variants: tuple[Variant, ...] = ()
    """Networks that the weights may be meant for as well."""

    @property
    def classes(self) -> int:
        """Classes of the data set."""
        return len(self.class_names)

    @property
    def conditions(self) -> str:
        """Number, part and seed of the images, for the evidence of a finding."""
        return f"{len(self.x)} {self.part} images, seed {self.settings.seed}"

    @property
    def attack_conditions(self) -> str:
        """The same of the images that are attacked."""
        return f"{len(self.attack_set[0])} {self.part} images, seed {self.settings.seed}"

    @property
    def threat(self) -> AnyThreat:
        """The ball that the images are attacked in."""
        return self.settings.threat

    @cached_property
    def attack_set(self) -> tuple[Float[Tensor, "m c h w"], Int[Tensor, " m"]]:
        """The images that are attacked, and their labels."""
        return self.x[: self.settings.n_attack], self.y[: self.settings.n_attack]

    @cached_property
    def features(self) -> Float[Tensor, "n d"]:
        """g(x) of all images, as loaded."""
        return torch.cat(self.map_batches(self.x, self.model.features)).float()

    @cached_property
    def correct(self) -> Bool[Tensor, " n"]:
        """Which images are classified correctly, as loaded."""
        return predicted(self.all_logits) == self.y

    @cached_property
    def correct_by_batch_statistics(self) -> Bool[Tensor, " n"]:
        """The same where batch norm takes the statistics of the batch itself."""
        return predictions_by_batch_statistics(self.model, self.x, self.settings.batch) == self.y

    @cached_property
    def all_logits(self) -> Float[Tensor, "n k"]:
        """What `forward` returns for all images, as loaded."""
        return self.logits(self.x)

    @cached_property
    def input_trial(self) -> InputTrial:
        """The plausible ways to feed the network, tried on all images."""
        channels, sides = self.x.shape[1], (self.x.shape[2], self.x.shape[3])
        known, loaded = self.known_constants, self.loaded_feeding
        others = [Feeding(n, s) for n, s in known.items() if not same_constants(s, loaded.constants)]
        others += [standardised(loaded), *arrangements(loaded, channels, sides)]
        apart = [f for f in feedings(loaded, known, channels, sides) if not f.of_arrangement]
        others += with_variants(self.variants, loaded, [loaded, *apart])
        return self._try(loaded, others)

    @cached_property
    def known_constants(self) -> dict[str, Statistics]:
        """The normalisations that are tried."""
        return known_constants(self.x.shape[1], self.data, self.file)

    @cached_property
    def loaded_feeding(self) -> Feeding:
        """How the network is fed as loaded."""
        return as_loaded(self.model, self.known_constants)

    @cached_property
    def input_steps(self) -> tuple[tuple[InputTrial, Trial], ...]:
        """What is to be put right, one thing after the other until nothing is better."""
        steps: list[tuple[InputTrial, Trial]] = []
        trial, sides = self.input_trial, (self.x.shape[2], self.x.shape[3])
        for _ in range(5):
            if not (better := trial.better()):
                break
            alike = (better[0], *trial.tied(better[0]))
            # the file's word counts more than a tie
            best = next((t for t in alike if t.feeding.name == "file"), better[0])
            steps = [(s, b) for s, b in steps if not _same_thing(b.feeding, best.feeding)]
            steps.append((trial, best))
            now = replace(best.feeding, of_arrangement=())
            others = feedings(now, self.known_constants, self.x.shape[1], sides)
            trial = self._try(now, [replace(f, variant=now.variant) for f in others])
        return tuple(steps)

    def _try(self, loaded: Feeding, others: list[Feeding]) -> InputTrial:
        size, orders = self.settings.batch, orders_of_names(self.class_names)
        return try_feedings(self.model, self.x, self.y, loaded, others, batch=size, orders=orders)

    @property
    def best_feeding(self) -> Trial | None:
        """The way that is clearly better than as loaded."""
        return self.input_steps[-1][1] if self.input_steps else None

    @cached_property
    def renumbering(self) -> tuple[int, ...] | None:
        """The class meant by each output, if another numbering explains the errors with the best inputs."""
        feeding = (self.best_feeding or self.input_trial.loaded).feeding
        with frozen(self.model), full_precision():
            said = predictions(self.model, feeding, self.x, self.settings.batch)
        return explaining_renumbering(said, self.y, orders_of_names(self.class_names))

    def equal_feedings(self, best: Trial) -> tuple[Trial, ...]:
        """The ways that cannot be told from the best of a step; none if that is the file's word."""
        trial = next((s for s, b in self.input_steps if b is best), None)
        return () if trial is None or best.feeding.name == "file" else trial.tied(best)

    def is_correct(self, x: Float[Tensor, "m c h w"], y: Int[Tensor, " m"]) -> Bool[Tensor, " m"]:
        """Which of these images are classified correctly by `forward`, in float32."""
        return predicted(self.logits(x)) == y

    def logits(self, x: Float[Tensor, "m c h w"]) -> Float[Tensor, "m k"]:
        """Outputs of `forward` in float32."""
        return torch.cat(self.map_batches(x, self.model)).float()

    @torch.no_grad()
    def map_batches(self, x: Float[Tensor, "m c h w"], f: Callable[[Tensor], Any]) -> list[Any]:
        """f of every batch, in eval mode, in the network's own floating type."""
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        with full_precision(), frozen(self.model):
            return [f(b.to(dtype)) for b in x.split(self.settings.batch)]

    def evaluate(self, attack: AnyAttack) -> Bool[Tensor, " m"]:
        """Which images of `attack_set` are still correct; attacks with equal starts share their noise."""
        return self.run_attack(attack)[0]

    def run_attack(self, attack: AnyAttack) -> tuple[Bool[Tensor, " m"], Int[Tensor, " m"]]:
        """Which images of `attack_set` are still correct, and their numbers of steps without a gradient."""
        if attack not in self.results:
            results = list(self._search(attack, self.model, *self.attack_set))
            correct = self.is_correct(torch.cat([f.x_adv for f in results]), self.attack_set[1])
            self.results[attack] = correct, torch.cat([f.dead_gradients for f in results])
        return self.results[attack]

    def evaluate_remaining(
        self, correct: Bool[Tensor, " m"], attack: AnyAttack, on: Classifier | None = None
    ) -> Bool[Tensor, " m"]:
        """Which of the `correct` images of `attack_set` stay correct; only these are attacked.

        The adversarial images are made on this network, or on another (`on`) and evaluated on this one.
        """
        x, y = self.attack_set[0][correct], self.attack_set[1][correct]
        results = list(self._search(attack, on or self.model, x, y))
        still = correct.clone()
        if results:
            still[correct] = self.is_correct(torch.cat([f.x_adv for f in results]), y)
        return still

    def _search(self, attack: AnyAttack, model: Classifier, x: Tensor, y: Tensor) -> Iterator[AttackResult]:
        size = self.settings.batch
        with full_precision():
            for i, (a, b) in enumerate(zip(x.split(size), y.split(size), strict=True)):
                if len(a):
                    target = self._targets(a, b) if isinstance(attack, PGD) and attack.targeted else b
                    yield attack.search(model, a, target, self.generator(0, i))

    def _targets(self, x: Tensor, y: Tensor) -> Tensor:
        """The most likely wrong class."""
        return self.logits(x).scatter(1, y[:, None], -torch.inf).argmax(dim=1)

    def generator(self, purpose: int, step: int = 0) -> torch.Generator:
        """A stream of noise; purpose 0 is that of the attacks."""
        return rng.generator(self.settings.seed, purpose, step, "doctor")


def _same_thing(a: Feeding, b: Feeding) -> bool:
    """Whether two ways differ from as loaded in the same respect."""
    of_constants = {"normalisation", "range"}
    return set(a.aspects) == set(b.aspects) or set(a.aspects) | set(b.aspects) <= of_constants


def make_probe(
    model: Classifier,
    splits: Splits,
    settings: Doctor,
    surrogate: Classifier | None,
    file: Statistics | None,
    variants: tuple[Variant, ...] = (),
) -> Probe:
    """The network with at most `settings.n` images, drawn by the seed, on the model's device."""
    part = next((p for p in ("test", "val", "train") if len(getattr(splits, p))), "train")
    split = splits.part(part)
    labels = split.labels.cpu().numpy()
    (drawn,) = draw(labels, (min(settings.n, len(split)),), settings.seed, MEASURED)
    part_drawn = split.take(torch.from_numpy(drawn)).to(model.mean.device)
    x, y = as_float(part_drawn.images), part_drawn.labels
    data = channel_statistics((splits.train if len(splits.train) else split).images)
    names = splits.class_names
    return Probe(model, x, y, names, part, data, file, settings, surrogate, variants=variants)


@contextmanager
def restored(*models: nn.Module) -> Iterator[None]:
    """Tensors, modes, flags and gradients of the models are put back on leaving.

    Unlike `frozen` this copies every tensor: a faulty network may move its buffers in eval mode.
    """
    modules = [m for model in models for m in model.modules()]
    state = [(m, m.training, dict(m._parameters), dict(m._buffers)) for m in modules]
    tensors = {t for _, _, ps, bs in state for t in (*ps.values(), *bs.values()) if t is not None}
    values = [(t, t.detach().clone(), t.requires_grad) for t in tensors]
    gradients = [(t, t.grad, None if t.grad is None else t.grad.clone()) for t in tensors if t.is_leaf]
    try:
        yield
    finally:
        for module, training, parameters, buffers in state:
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
