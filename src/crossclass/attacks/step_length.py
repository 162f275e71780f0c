"""How long a step is: absolute, as in torchattacks, or a share of eps, which another ball keeps.

`step_size=2/255` and `rel_step=0.25` are the same step at eps = 8/255. One of the two is given; a share is
never taken for a length, or the other way round.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from crossclass.core.config import as_fraction
from crossclass.core.yaml_reader import parse_fraction

STEPS = (("rel_step", "step_size"),)
"""Settings of which one is given (`Settings.alternatives`)."""
_BOTH = "give rel_step=0.25, a share of eps, or step_size=2/255, a length as in torchattacks"
_BALL = "the radius belongs to the ball: give threat=Linf(eps=8/255), or threat.eps=8/255 on the command line"
OTHER_NAMES = MappingProxyType(
    dict.fromkeys(("step", "alpha", "eps_step", "stepsize"), _BOTH)
    | dict.fromkeys(("eps", "epsilon", "radius"), _BALL)
)
"""What a step and a radius are called elsewhere, and what to give (`Settings.replaced`)."""


def _share(value: object) -> object:
    """Refuse `2/255`, which is a length."""
    if isinstance(value, str) and "/" in value:
        raise ValueError(f"rel_step is a share of eps, such as 0.25; give step_size={value} for a length")
    return value


RelativeStep = Annotated[float, BeforeValidator(_share), Field(gt=0)] | None
AbsoluteStep = (
    Annotated[
        float,
        Field(gt=0),
        BeforeValidator(parse_fraction),
        PlainSerializer(as_fraction, when_used="json"),
    ]
    | None
)


def one_step(data: Any) -> Any:
    """Settings in which the share is unset where a length is given; raises ValueError if both are."""
    if not isinstance(data, Mapping):
        return data
    share, length = data.get("rel_step"), data.get("step_size")
    if share is not None and length is not None:
        raise ValueError(f"rel_step={share} and step_size={length} both say how long a step is; give one")
    if length is not None:
        return {**data, "rel_step": None}
    return {name: value for name, value in data.items() if name != "rel_step" or value is not None}


def step_length(rel_step: float | None, step_size: float | None, eps: float) -> float:
    """The length of a step in [0, 1] units."""
    if step_size is not None:
        return step_size
    assert rel_step is not None  # `one_step` leaves one of the two
    return rel_step * eps


def describe_step(rel_step: float | None, step_size: float | None) -> str:
    """The step as conditions are printed, such as `step 0.25 eps` or `step 2/255`."""
    if step_size is None:
        return f"step {rel_step:g} eps"
    n = step_size * 255
    return f"step {n:.4g}/255" if abs(n - round(n, 2)) < 1e-9 else f"step {step_size:.4g}"
