"""AutoAttack (Croce & Hein 2020): the ensemble that published robust accuracies are measured with.

APGD on cross-entropy, targeted APGD on the DLR loss, targeted FAB and Square, each on the images that
are still classified rightly. The library does it (`pyautoattack`, or an installed `autoattack`; both return
the same images for the same seed), in the sandbox of `External`: its global seeding stays in there.
"""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt, field_validator, model_validator

from crossclass.attacks.base import Attack, AttackResult, Images, Network
from crossclass.attacks.external_attack import run_external
from crossclass.attacks.losses import Labels
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.attacks.sandbox import FrozenModule
from crossclass.core.errors import UserError

Part = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
STANDARD_STEPS, STANDARD_QUERIES = 100, 5000
_PARTS: dict[str, tuple[Part, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
_CLASSES: dict[Part, int] = {"apgd-dlr": 3, "apgd-t": 4}
"""The DLR losses divide by differences between the highest logits; so many must exist."""


class AutoAttack(Attack):
    """AutoAttack, version `standard` by default: for robust accuracy, not for features.

    It returns an adversarial image where it succeeds and **the clean image where it does not** (and
    where the clean image is misclassified already): features, C and CAS under AutoAttack mix both kinds. A
    sample's result depends on its batch, because the draws depend on which images are left.
    With fewer than 10 classes all wrong classes are targets, not 9.
    """

    kind: Literal["autoattack"] = "autoattack"
    threat: AnyThreat = Linf()
    version: Literal["standard", "plus", "rand"] = "standard"
    """`rand` is for randomised defences, `plus` adds untargeted attacks and restarts."""
    attacks: tuple[Part, ...] | None = Field(default=None, min_length=1)
    """A list of one's own instead of a version's, with the library's 5 restarts of apgd-* and fab."""
    steps: PositiveInt = STANDARD_STEPS
    """Iterations of APGD and FAB; another number only with `attacks`."""
    queries: PositiveInt = STANDARD_QUERIES
    """Queries of Square; another number only with `attacks`."""
    batch: PositiveInt = 250
    """Images at a time."""

    @field_validator("threat")
    @classmethod
    def _known_norm(cls, threat: AnyThreat) -> AnyThreat:
        if threat.autoattack is None:
            raise ValueError(f"AutoAttack does not know {threat.label} balls; use attack.kind=pgd")
        return threat

    @model_validator(mode="after")
    def _is_what_it_says(self) -> "AutoAttack":
        if self.attacks is not None and self.version != "standard":
            raise ValueError(f"version={self.version} has its own list; leave out version or attacks")
        reduced = (self.steps, self.queries) != (STANDARD_STEPS, STANDARD_QUERIES)
        if self.attacks is None and reduced:
            raise ValueError(
                f"{self.version} means {STANDARD_STEPS} steps and {STANDARD_QUERIES} queries; for others "
                "name the attacks too, such as attacks=[apgd-ce,square]"
            )
        return self

    def __str__(self) -> str:
        name = f"custom ({' + '.join(self.attacks)})" if self.attacks else self.version
        parts = [f"AutoAttack {name}", str(self.threat)]
        parts += [f"{self.steps} steps"] if self.steps != STANDARD_STEPS else []
        parts += [f"{self.queries} queries"] if self.queries != STANDARD_QUERIES else []
        parts += [f"batches of {self.batch}"] if self.batch != 250 else []
        return ", ".join(parts)

    def search(
        self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> AttackResult:
        """Adversarial images; success and gradients of the library are not known."""
        return run_external(partial(_run, self), "AutoAttack", self.threat, model, x, y, generator)


def _run(settings: AutoAttack, model: FrozenModule, x: Images, y: Labels) -> object:
    """AutoAttack as External calls it, seeded from the global stream, which the sandbox has seeded."""
    parts = settings.attacks or _PARTS[settings.version]
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    for part in parts:
        if classes < _CLASSES.get(part, 2):
            raise UserError(
                f"AutoAttack's {part} needs {_CLASSES[part]} classes for its DLR loss, the model has "
                f"{classes}; give attacks=[apgd-ce,fab,square]"
            )
    seed = int(torch.randint(2**31, ()))
    with _no_output():
        library, size = _library(model, settings, x.device, seed)
        for attack in (library.apgd, library.apgd_targeted):
            attack.n_iter = settings.steps
            # Croce & Hein 2020, section 3.1: the first check after 22 %, later ones 3 % sooner, at least 6 %
            for name, share in (("n_iter_2", 0.22), ("n_iter_min", 0.06), ("size_decr", 0.03)):
                setattr(attack, name, max(int(share * settings.steps), 1))
        library.fab.n_iter, library.square.n_queries = settings.steps, settings.queries
        targets = min(9, classes - 1)  # the library asks for 9 and fails where there are fewer
        library.apgd_targeted.n_target_classes = library.fab.n_target_classes = targets
        result = library.run_standard_evaluation(x, y, **{size: settings.batch})
    return result[0] if isinstance(result, tuple) else result


def _library(model: FrozenModule, settings: AutoAttack, device: torch.device, seed: int) -> tuple[Any, str]:
    """AutoAttack's own object, and its name for the batch size."""
    norm, eps = settings.threat.autoattack, settings.threat.eps
    version = "custom" if settings.attacks else settings.version
    parts = list(settings.attacks or ())
    shared = {"norm": norm, "eps": eps, "seed": seed, "version": version, "device": device}
    try:
        import pyautoattack
    except ImportError:
        try:
            import autoattack
        except ImportError as e:
            raise UserError("AutoAttack needs its library: pip install 'crossclass[aa]'") from e
        return autoattack.AutoAttack(model, attacks_to_run=parts, verbose=False, **shared), "bs"
    return pyautoattack.AutoAttack(model, attacks=parts or None, **shared), "batch_size"


@contextmanager
def _no_output() -> Iterator[None]:
    """Neither the library's log nor its prints: `doctor` looks for what it warns of."""
    log = logging.getLogger("auto-attack")
    before = log.disabled
    try:
        log.disabled = True
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        log.disabled = before
