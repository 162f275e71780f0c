"""Attacks are frozen settings that can be called: `attack(model, x, y, generator) -> x_adv`.

Images are in [0, 1], the model comes back exactly as it was, no parameter gradient is left behind.
`search` gives the same with what was seen on the way; `gradients` counts the input gradients per
sample (0: unknown); `for_evaluation()` is the attack as an evaluation may run it.
"""

from typing import Annotated

from pydantic import Field

from crossclass.attacks.autoattack import AutoAttack
from crossclass.attacks.base import Attack, Found, Images, Network, skip_range_check, validate_images
from crossclass.attacks.external import External
from crossclass.attacks.pgd import FGSM, PGD

AnyAttack = Annotated[PGD | FGSM | AutoAttack | External, Field(discriminator="kind")]

__all__ = [
    "FGSM",
    "PGD",
    "AnyAttack",
    "Attack",
    "AutoAttack",
    "External",
    "Found",
    "Images",
    "Network",
    "skip_range_check",
    "validate_images",
]
