"""Every attack in every ball, read off the unions, and all that an attack could leave changed."""

import logging
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Tripped, tiny_net
from crossclass.attacks import AnyAttack, AutoAttack, External
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.core.errors import UserError
from crossclass.core.plugins import kind_of, members
from crossclass.models.model_state import evaluating
from odd_networks import ODD

Net = Callable[..., nn.Module]
ATTACKS, THREATS = members(AnyAttack), members(AnyThreat)
# An attack of other code may treat a batch, a dead gradient or a target as it likes (AutoAttack draws for the
# images that still stand, so a sample's result does depend on its batch).
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


NETS: dict[str, Net] = {"TinyNet": tiny_net, **ODD}
every_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS)
"""Also networks in which one thing has several names (`odd_networks`)."""
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


def external(name: str, threat: Any = None, **arguments: Any) -> External:
    return External(call=f"external_attacks:{name}", arguments=arguments, threat=threat or Linf(eps=0.1))


def mixed(training: bool = True, net: Net = tiny_net) -> nn.Module:
    """Modules in both modes, parameters frozen and not, a gradient, a batch norm that does not track."""
    model = net().train(training)
    model.bn.eval()
    model.extra = nn.BatchNorm1d(2, track_running_stats=False).train()
    model.conv.weight.requires_grad_(False)
    model.head.bias.grad = torch.full_like(model.head.bias, 0.25)
    return model


def state(model: nn.Module, bn: str = "eval") -> dict[str, Any]:
    """Everything of a model that anyone could leave changed, with the identity of its tensors.

    Without the statistics of batch norm where crafting in mode `bn` may move them.
    """
    modules = {
        name: (m.training, getattr(m, "track_running_stats", None), list(vars(m)["_forward_hooks"]))
        for name, m in model.named_modules()
    }
    parameters = {n: (id(p), p.data_ptr(), p.dtype, p.requires_grad) for n, p in model.named_parameters()}
    gradients = {n: (id(p.grad), p.grad is not None and p.grad.tolist()) for n, p in model.named_parameters()}
    buffers = {n: id(b) for n, b in model.named_buffers(remove_duplicate=False)}
    moving = set(buffers) if bn == "train" else set()
    values = {n: v.tolist() for n, v in model.state_dict().items() if n not in moving}
    return {"modules": modules, "p": parameters, "g": gradients, "b": buffers, "values": values}


def streams() -> list[Any]:
    """Where Python's, numpy's and torch's global streams stand."""
    numpy = np.random.get_state()  # noqa: NPY002
    return [random.getstate(), *(v.tolist() if isinstance(v, np.ndarray) else v for v in numpy),
            torch.get_rng_state().tolist()]  # fmt: skip


def switches() -> list[Any]:
    cudnn = torch.backends.cudnn
    return [
        torch.get_default_dtype(), torch.get_deterministic_debug_mode(), torch.is_anomaly_enabled(),
        torch.is_grad_enabled(), torch.get_num_threads(), sys.gettrace(), sys.stdout,
        cudnn.benchmark, cudnn.deterministic, torch.backends.cuda.matmul.allow_tf32,
        logging.getLogger("auto-attack").disabled,
    ]  # fmt: skip


def quick(threat: Any, *attacks: str, **changes: Any) -> AutoAttack:
    """AutoAttack, but seconds short."""
    known = {"steps": 10, "queries": 20, **changes}
    return AutoAttack(threat=threat, attacks=attacks or ("apgd-ce",), **known)
