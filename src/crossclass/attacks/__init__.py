"""Attacks are frozen settings that can be called: `attack(model, x, y, generator) -> x_adv`.

Images are in [0, 1], the model comes back exactly as it was, no parameter gradient is left behind.
`search` returns the same with what is known of each image (`AttackResult`); `gradients` counts the input
gradients per sample (0: unknown); `for_evaluation()` is the same attack, moving no statistics.
"""

from typing import Annotated

from crossclass.attacks.autoattack import AutoAttack
from crossclass.attacks.base import (
    Attack,
    AttackResult,
    AttackWarning,
    Images,
    Network,
    require_images,
    skip_range_check,
    validate_images,
)
from crossclass.attacks.external_attack import External
from crossclass.attacks.pgd import FGSM, PGD, reference_attack
from crossclass.core.plugins import Family

AnyAttack = Annotated[Attack, Family(PGD, FGSM, AutoAttack, External)]

__all__ = [
    "FGSM",
    "PGD",
    "AnyAttack",
    "Attack",
    "AttackResult",
    "AttackWarning",
    "AutoAttack",
    "External",
    "Images",
    "Network",
    "reference_attack",
    "require_images",
    "skip_range_check",
    "validate_images",
]
