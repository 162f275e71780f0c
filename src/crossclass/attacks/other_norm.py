"""The start and the step of an attack that moves to the ball of another norm."""

from typing import Any

from crossclass.attacks import AnyAttack
from crossclass.attacks.norms import Threat

_SHORT = 10
"""Attacks of at most so many steps take the norm's longer step."""


def changes_for_norm(attack: AnyAttack, threat: type[Threat]) -> dict[str, Any]:
    """Values of `start` and `rel_step` with which an attack suits another norm, where its own do not.

    A start that the norm does not know becomes the norm's usual one. A step that is usual in the old norm
    becomes that of the new one, and so does a length (`step_size`), which is one of the old ball.
    """
    changes: dict[str, Any] = {}
    old: Threat = attack.threat
    if type(old) is threat:
        return changes
    if getattr(attack, "start", None) not in (None, *threat.starts):
        changes["start"] = threat.starts[0]
    steps: int = getattr(attack, "steps", 0)
    usual = getattr(attack, "rel_step", None) in (old.usual_step, old.short_step)
    if steps > 1 and (usual or getattr(attack, "step_size", None) is not None):
        changes["rel_step"] = threat.short_step if steps <= _SHORT else threat.usual_step
    return changes
