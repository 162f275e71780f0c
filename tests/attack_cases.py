"""Every attack in every ball, read off the unions, and what an attack must leave alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import Tripped
from crossclass.attacks import AnyAttack, AutoAttack, External
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.core.errors import UserError
from crossclass.core.plugins import kind_of, members
from crossclass.models.model_state import evaluating

ATTACKS, THREATS = members(AnyAttack), members(AnyThreat)


# What someone else's search makes of a batch, of a dead gradient or of a target is its own affair (AutoAttack
# draws for the images that still stand, so a sample's result does depend on its batch): test_external_*.
FOREIGN = (AutoAttack, External)


BN = ("eval", "train", "train_frozen_stats")


Y = torch.tensor([0, 1, 2, 0, 1])


PAIRS = {f"{kind_of(a)}-{kind_of(t)}": (a, t) for a in ATTACKS for t in THREATS}


OURS = {name: pair for name, pair in PAIRS.items() if pair[0] not in FOREIGN}


every = pytest.mark.parametrize(("attack", "ball"), PAIRS.values(), ids=PAIRS)


ours = pytest.mark.parametrize(("attack", "ball"), OURS.values(), ids=OURS)


every_ball = pytest.mark.parametrize("ball", THREATS, ids=kind_of)


def crossed(setting: str, values: tuple[str, ...]) -> Any:
    """Every attack in every ball, with every value of a setting if it has that; else with the first."""
    cases = [
        pytest.param(a, t, value, id=f"{name}-{value}")
        for name, (a, t) in PAIRS.items()
        for value in (values if setting in a.model_fields else values[:1])
    ]
    return pytest.mark.parametrize(("attack", "ball", setting), cases)


every_mode, every_loss = crossed("bn", BN), crossed("loss", ("ce", "margin"))


def make(attack: type, ball: Any, **wanted: Any) -> Any:
    """An attack in a ball (a class: at its default radius) with those settings that it has."""
    wide = attack is AutoAttack  # it hands the clean image back where it finds nothing
    threat = ball(eps=(0.4 if ball is Linf else 2.0) if wide else 0.1) if isinstance(ball, type) else ball
    known = {name: v for name, v in {"steps": 3, **wanted}.items() if name in attack.model_fields}
    if attack is External:
        known |= {"call": "external_attacks:ascent", "arguments": {"eps": "eps", "norm": threat.kind}}
    if attack is AutoAttack:
        known |= {"attacks": ("apgd-ce",)}
    return attack(threat=threat, **known)


def trips(attack: type) -> Any:
    """What is expected of a forward that raises: someone else's exception comes as one sentence."""
    return pytest.raises(UserError, match="raised Tripped") if attack in FOREIGN else pytest.raises(Tripped)


def starts_of(attack: type, threat: Any) -> tuple[str, ...]:
    """Its starts; an attack without that setting is tried once."""
    return threat.starts if "start" in attack.model_fields else threat.starts[:1]


def steps_of(attack: Any) -> int:
    return getattr(attack, "steps", 1)


def given_starts(ball: type, starts: Tensor, **known: Any) -> Any:
    """The ball, but its starts are these deltas, in turn: a sample is given its own noise."""
    turn = iter(starts)

    class Given(ball):  # type: ignore[misc, valid-type]
        def sample(self, x: Tensor, start: str, generator: torch.Generator | None) -> Tensor:
            return next(turn)

    return Given(**known)


def predicted(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), evaluating(model):
        return model(x.to(next(model.parameters()).dtype)).argmax(dim=1)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((predicted(model, x) == y).double().mean())


def condition(model: nn.Module) -> dict[str, Any]:
    """All of a model's state that an attack has no business with."""
    modes = {n: (m.training, getattr(m, "track_running_stats", None)) for n, m in model.named_modules()}
    return {"modes": modes, "requires_grad": {n: p.requires_grad for n, p in model.named_parameters()}}


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def unchanged(before: dict[str, Tensor], model: nn.Module) -> bool:
    return all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def mixed(model: nn.Module) -> nn.Module:
    """Some modules in train mode and some not, some parameters frozen, a batch norm that does not track."""
    model.train()
    model.bn.eval()
    model.conv.weight.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    model.extra = nn.BatchNorm1d(2, track_running_stats=False).eval()
    return model
