"""External attacks: whatever one does, the model and the random streams come back as they were.

The attacks are in `external_attacks.py`; test_contract holds what they share with the built-in ones.
"""

import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attack_cases import Y, external, mixed, quick, state, streams, switches
from conftest import Forwards, pictures, seeded, tiny_net
from crossclass.attacks import External
from crossclass.attacks.norms import L2, Linf
from crossclass.core.errors import UserError

# --- what is left behind is put back


MISDEEDS = (
    "leaves_training", "goes_backward", "moves_statistics", "replaces_buffers", "reloads", "on_a_copy",
    "seeds_by_the_clock", "draws", "turns_switches", "spoils_its_input",
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("trusted")


@pytest.mark.usefixtures("without_shape_checks")  # checks draw from `random`
@pytest.mark.parametrize("misdeed", MISDEEDS)
@pytest.mark.parametrize("then", ["returns", "raises"])
@pytest.mark.parametrize("training", [True, False], ids=["found-training", "found-eval"])
def test_an_external_attack_leaves_no_trace(misdeed: str, then: str, training: bool) -> None:
    model, x, y = mixed(training), pictures(5), Y.clone()
    before, stood, turned, kept = state(model), streams(), switches(), x.clone()
    if then == "returns":
        attack = external(misdeed, Linf(eps=0.1))
        assert attack(model, x, y, seeded(0)).shape == x.shape
    else:
        with pytest.raises(UserError, match=r"^external_attacks:fails raised RuntimeError: the gradient$"):
            external("fails", after=misdeed)(model, x, y, seeded(0))
    assert state(model) == before
    assert streams() == stood
    assert switches() == turned
    assert torch.equal(x, kept)
    assert torch.equal(y, Y)


@pytest.mark.parametrize("how", ["data", "new", "gone", "half"])
def test_a_changed_weight_is_put_back_and_refused(how: str) -> None:
    said = r"external_attacks:changes_a_weight changed the model's weights \(.*put back"
    for model in (mixed(), Forwards(mixed())):
        before = state(model)
        with pytest.raises(UserError, match=said):
            external("changes_a_weight", how=how)(model, pictures(5), Y, seeded(0))
        assert state(model) == before
    with pytest.raises(UserError, match=r"weights \(head\.weight\);"):
        external("changes_a_weight")(tiny_net(), pictures(5), Y, seeded(0))
    with pytest.raises(UserError, match=r"weights \(conv\.weight and \d others\);"):
        external("changes_a_weight", how="half")(tiny_net(), pictures(5), Y, seeded(0))


def test_a_weight_that_was_nan_before_is_no_change() -> None:
    model = tiny_net()
    model.conv.bias.data[0] = float("nan")
    assert torch.equal(external("stays")(model, pictures(5), Y, seeded(0)), pictures(5))


def test_a_tracer_goes_on_after_autoattack_has_traced() -> None:
    def tracer(frame: Any, event: str, argument: Any) -> None: ...

    before = sys.gettrace()
    try:
        sys.settrace(tracer)
        quick(Linf(eps=0.4))(tiny_net(), pictures(2), Y[:2], seeded(0))
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


# --- what an external attack is given


def noticing(monkeypatch: pytest.MonkeyPatch, look: Callable[..., Any]) -> External:
    module = types.ModuleType("noticing")
    module.look = look  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "noticing", module)
    return External(call="noticing:look", threat=Linf(eps=0.1))


@pytest.mark.parametrize("double", [False, True])
def test_the_model_handed_over_is_a_frozen_module_in_eval_mode(
    monkeypatch: pytest.MonkeyPatch, double: bool
) -> None:
    model, x = mixed(), pictures(5)
    model = model.double() if double else model
    seen: list[Any] = []

    def look(handed: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert isinstance(handed, nn.Module)
        assert not any(m.training for m in handed.modules())
        assert len(list(handed.parameters())) == 8
        assert not any(p.requires_grad for p in handed.parameters())
        assert all(p.grad is None for p in handed.parameters())
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert y.dtype == torch.int64
        assert y.tolist() == Y.tolist()
        assert x.dtype == torch.float32
        assert x.is_contiguous()
        logits = handed(x.requires_grad_())
        assert logits.dtype == torch.float32
        (gradient,) = torch.autograd.grad(logits.sum(), x)
        assert gradient.is_contiguous()
        seen.append(logits.detach())
        return x

    attack = noticing(monkeypatch, look)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        attack(model.to(memory_format=torch.channels_last), x, torch.eye(3)[Y], seeded(0))
    with torch.inference_mode():
        found = attack(model, x.clone().to(memory_format=torch.channels_last), Y.to(torch.int8), seeded(0))
    assert not found.is_inference()
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = model.eval()(x.to(next(model.parameters()).dtype)).float()
    for logits in seen:
        torch.testing.assert_close(logits, expected)
    assert len(seen) == 2


def test_a_plain_function_is_handed_over_as_a_module_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(handed: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert handed.eval() is handed
        assert list(handed.parameters()) == []
        assert handed(x).shape == (5, 3)
        return x

    net = tiny_net()
    noticing(monkeypatch, look)(lambda x: net(x), pictures(5), Y, seeded(0))


def test_arguments_may_be_radii_and_eps_follows_the_threat(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def look(model: nn.Module, x: Tensor, y: Tensor, **arguments: Any) -> Tensor:
        seen.append(arguments)
        return x

    given = {"a": "eps", "b": "eps/4", "c": "8/255", "d": "0.5/2", "e": "8", "f": "eps2", "g": [1, "eps"],
             "h": "1/0.5"}  # fmt: skip
    attack = noticing(monkeypatch, look).replace(arguments=given, threat=Linf(eps=0.2))
    attack(tiny_net(), pictures(5), Y, seeded(0))
    attack.replace(threat=L2(eps=2))(tiny_net(), pictures(5), Y, seeded(0))
    rest = {"c": 8 / 255, "d": 0.25, "e": "8", "f": "eps2", "g": [1, "eps"], "h": 2.0}
    assert seen == [{"a": 0.2, "b": 0.05, **rest}, {"a": 2.0, "b": 0.5, **rest}]


def test_all_randomness_comes_from_the_generator() -> None:
    attack, x = external("draws"), pictures(5)
    model = tiny_net()
    first = attack(model, x, Y, seeded(3))
    with torch.random.fork_rng(devices=[]):  # wherever the global streams stand
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)
        assert torch.equal(attack(model, x, Y, seeded(3)), first)
    assert not torch.equal(attack(model, x, Y, seeded(4)), first)
    g = seeded(3)
    assert torch.equal(attack(model, x, Y, g), first)
    assert not torch.equal(attack(model, x, Y, g), first)


@pytest.mark.usefixtures("without_shape_checks")
def test_a_module_that_seeds_when_imported_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import torch, random, numpy\ntorch.manual_seed(0); random.seed(0); numpy.random.seed(0)\n"
    (tmp_path / "seeding.py").write_text(f"{text}def stays(model, x, y):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = streams()
    External(call="seeding:stays")(tiny_net(), pictures(5), Y, seeded(0))
    assert streams() == before
