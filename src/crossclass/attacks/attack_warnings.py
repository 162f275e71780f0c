"""What settings of an attack mean that nobody meant: no attack, a ball of another norm, too short a way.

Images are in [0, 1]. Nothing is computed here; whether an attack that can cross its ball is strong enough is
seen in its losses (`analysis/attack_strength.py`).
"""

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from crossclass.attacks.base import Attack, Images, Network
from crossclass.attacks.losses import Labels, hard
from crossclass.attacks.norms import AnyThreat
from crossclass.attacks.pgd import FGSM, PGD
from crossclass.core.classes import predicted
from crossclass.core.errors import UserError
from crossclass.models.model_state import frozen

ROUNDING = 1e-6
"""Relative; steps that add up to eps in decimals may miss it by as much in binary."""


def attack_warnings(
    attack: Attack, shape: Sequence[int], *, evaluation: bool, path: str = "attack."
) -> list[str]:
    """One sentence for each setting that means something else than it seems.

    Args:
        attack: The attack.
        shape: Channels, height and width of the images.
        evaluation: Whether a robust accuracy is measured with it; for training a shorter way may be right.
        path: What stands before the names of its settings where the person types them: `recipe.attack.` of a
            run, nothing in a call in Python.

    Raises:
        UserError: The attack changes no image, or helps the network, so that nothing sensible is meant.
    """
    try:
        return [_at(path, sentence) for sentence in _warnings(attack, shape, evaluation)]
    except UserError as e:
        raise UserError(_at(path, str(e))) from None


def _at(path: str, sentence: str) -> str:
    return re.sub(r"\battack\.(?=\w+=)", path, sentence)


def _warnings(attack: Attack, shape: Sequence[int], evaluation: bool) -> list[str]:
    pgd = attack.as_pgd() if isinstance(attack, FGSM) else attack if isinstance(attack, PGD) else None
    if pgd is not None:
        _require_sense(pgd)
    if attack.threat.eps == 0:
        usual = _usual(attack.threat)
        return [f"eps=0 changes no image: robust accuracy is clean accuracy; {usual} is usual"]
    out = []
    if getattr(attack, "box", (0.0, 1.0)) is not None:
        out += list(_ball(attack.threat, shape))
    if evaluation:
        out += list(_unlike(attack))
    return out + (list(_way(pgd, evaluation)) if pgd is not None else [])


def call_warnings(attack: Attack, model: Network, x: Images, y: Labels) -> list[str]:
    """`attack_warnings` for an attack that is called on images x; nothing where any input is valid.

    Labels of a targeted attack are targets, so what is looked at is whether they are the classes that the
    network gives to the images already. Raises UserError as `attack_warnings` does.
    """
    if getattr(attack, "box", (0.0, 1.0)) is None:
        return []
    if not getattr(attack, "targeted", False):
        return attack_warnings(attack, x.shape[1:], evaluation=False, path="")
    out = attack_warnings(attack.replace(targeted=False), x.shape[1:], evaluation=False, path="")
    with torch.no_grad(), frozen(model, "eval", "fp32") as f:
        already = float((predicted(f(x.detach().float())) == hard(y)).float().mean()) if len(x) else 0.0
    if already > 0.5:
        out.append(
            f"targeted=True moves images towards y, and the network gives {already:.0%} of them that class "
            "already, as it would true classes; give targets, or leave it out"
        )
    return out


def _require_sense(attack: PGD) -> None:
    if attack.targeted:
        raise UserError(
            "attack.targeted=true moves images towards their labels, which are the true classes here; "
            "leave it out"
        )
    if attack.threat.eps == 0:
        return
    if attack.steps == 0 and attack.start == "none":
        raise UserError(
            "attack.steps=0 without a random start changes no image; give attack.steps=10, or no attack for "
            "clean images"
        )
    if attack.loss == "kl" and attack.start == "none":
        raise UserError(
            "attack.loss=kl has no gradient at the image itself, where attack.start=none begins; give "
            "attack.start=gauss"
        )


def _ball(threat: AnyThreat, shape: Sequence[int]) -> Iterator[str]:
    """Radii that no publication uses, because of a wrong norm or unit."""
    gray, colour = _norms(threat, tuple(shape))
    usual = _usual(threat)
    if threat.eps >= gray * (1 - ROUNDING):
        yield f"a ball of {threat} holds one gray picture for all images: nothing is robust; {usual} is usual"
    elif shape[0] == 3 and threat.eps > colour:
        yield f"a ball of {threat} is far larger than any that is usual for colour images, such as {usual}"
    elif threat.eps < max(threat.smallest, 0.25 / 255):
        yield f"a ball of {threat} is too small for any attack to succeed; {usual} is usual"


def _unlike(attack: Attack) -> Iterator[str]:
    """Settings by which an attack measures another robust accuracy than the one that is usual."""
    if getattr(attack, "loss", None) == "kl":
        yield (
            "attack.loss=kl moves away from the clean prediction, not from the label, and is weaker: robust "
            "accuracy may be overstated; attack.loss=ce is usual"
        )
    if (bn := getattr(attack, "bn", "eval")) != "eval":
        yield (
            f"attack.bn={bn} attacks another network than the one that is measured, whose batch norm uses "
            "running statistics: robust accuracy may be overstated; give attack.bn=eval"
        )
    if getattr(attack, "box", (0.0, 1.0)) is None:
        yield (
            "attack.box=null lets pixels leave [0, 1], so the attacked images are no pictures and robust "
            "accuracy is that of another threat; leave attack.box out"
        )


@lru_cache
def _norms(threat: AnyThreat, shape: tuple[int, ...]) -> tuple[float, float]:
    """The norm of images of the value 0.5, and of 0.2."""
    gray, colour = (float(threat.norm(torch.full((1, *shape), level))) for level in (0.5, 0.2))
    return gray, colour


def _usual(threat: AnyThreat) -> str:
    """The default ball of the norm, as text."""
    eps = type(threat).model_fields["eps"].default
    return str(threat.replace(eps=eps)) if isinstance(eps, float) else "another radius"


def _way(attack: PGD, evaluation: bool) -> Iterator[str]:
    """Whether the steps can cross the ball: eps from the image, 2 eps from a start at the edge."""
    eps, alpha, start = attack.threat.eps, attack.alpha, attack.start or attack.threat.starts[0]
    if attack.steps == 0:
        yield "attack.steps=0 is random noise in the ball, no attack; give attack.steps=10"
        return
    if attack.restarts > 1 and start == "none":
        yield (
            f"attack.restarts={attack.restarts} from attack.start=none repeat the same attack; give a random "
            "start"
        )
    way = attack.steps * alpha / eps
    across = 1.0 if start in ("none", "gauss") else 2.0
    far = f"{attack.steps} x {alpha / eps:.3g} eps is {way:.3g} eps"
    steps = math.ceil(across * eps / alpha * (1 - ROUNDING))
    remedy = f"give {'attack.kind=pgd ' if attack.steps == 1 else ''}attack.steps={steps} or a longer step"
    if attack.rel_step is not None and attack.rel_step < 0.05:
        remedy += f" (rel_step is a share of eps; a length is attack.step_size={attack.rel_step:g})"
    if way < 1 - ROUNDING:
        yield f"the attack is too short: {far}, less than the ball's radius; {remedy}"
    elif evaluation and way < across * (1 - ROUNDING):
        yield f"the attack is short: {far}, and from a random start the far side is 2 eps away; {remedy}"
    elif attack.steps > 1 and alpha > 2 * eps * (1 + ROUNDING):
        given = attack.rel_step if attack.rel_step is not None else alpha
        meant = "give attack.step_size=2/255, say"
        if given >= 1:
            meant = f"is attack.step_size={given:g}/255 meant?"
        yield (
            f"a step of {alpha / eps:.3g} eps is longer than the ball is wide, so every step ends on its "
            f"edge; {meant}"
        )
