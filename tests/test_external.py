"""External and AutoAttack: whatever a stranger does, the model and the streams come back as they were.

The strangers stand in `strangers.py`; the contracts that they share with our own attacks in test_attacks.
"""

import logging
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

from conftest import Forwards, Plane, Tripped, pictures, seeded, tiny_net
from crossclass import settings
from crossclass.attacks import PGD, AnyAttack, AutoAttack, External
from crossclass.attacks.fence import Handed
from crossclass.data import Split
from crossclass.errors import UserError
from crossclass.evaluate import under
from crossclass.recipes import AT
from crossclass.threat import L2, Linf

Y = torch.tensor([0, 1, 2, 0, 1])


def stranger(name: str, threat: Any = None, **arguments: Any) -> External:
    return External(call=f"strangers:{name}", arguments=arguments, threat=threat or Linf(eps=0.1))


def mixed(found_training: bool = True) -> nn.Module:
    """Modules in both modes, parameters frozen and not, a gradient in one of them."""
    model = tiny_net().train(found_training)
    model.bn.eval()
    model.extra = nn.BatchNorm1d(2, track_running_stats=False).train()
    model.conv.weight.requires_grad_(False)
    model.head.bias.grad = torch.full_like(model.head.bias, 0.25)
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that anyone could leave changed, with the identity of its tensors."""
    modules = {
        name: (m.training, getattr(m, "track_running_stats", None), list(vars(m)["_forward_hooks"]))
        for name, m in model.named_modules()
    }
    parameters = {n: (id(p), p.data_ptr(), p.dtype, p.requires_grad) for n, p in model.named_parameters()}
    gradients = {n: (id(p.grad), p.grad is not None and p.grad.tolist()) for n, p in model.named_parameters()}
    buffers = {n: id(b) for n, b in model.named_buffers()}
    values = {n: v.tolist() for n, v in model.state_dict().items()}
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


# --- what is left behind is put back


MISDEEDS = (
    "leaves_training", "goes_backward", "moves_statistics", "replaces_buffers", "reloads", "on_a_copy",
    "seeds_by_the_clock", "draws", "turns_switches", "spoils_its_input",
)  # fmt: skip


@pytest.mark.parametrize("misdeed", MISDEEDS)
@pytest.mark.parametrize("then", ["returns", "raises"])
@pytest.mark.parametrize("found_training", [True, False], ids=["found-training", "found-eval"])
def test_a_stranger_leaves_no_trace(misdeed: str, then: str, found_training: bool) -> None:
    model, x, y = mixed(found_training), pictures(5), Y.clone()
    before, stood, turned, kept = state(model), streams(), switches(), x.clone()
    if then == "returns":
        attack = stranger(misdeed, Linf(eps=0.1))
        assert attack(model, x, y, seeded(0)).shape == x.shape
    else:
        with pytest.raises(UserError, match=r"^strangers:fails raised RuntimeError: the gradient$"):
            stranger("fails", after=misdeed)(model, x, y, seeded(0))
    assert state(model) == before
    assert streams() == stood
    assert switches() == turned
    assert torch.equal(x, kept)
    assert torch.equal(y, Y)


@pytest.mark.parametrize("how", ["data", "new", "gone", "half"])
def test_a_changed_weight_is_put_back_and_refused(how: str) -> None:
    said = r"strangers:changes_a_weight changed the model's weights \(.*put back"
    for model in (mixed(), Forwards(mixed())):
        before = state(model)
        with pytest.raises(UserError, match=said):
            stranger("changes_a_weight", how=how)(model, pictures(5), Y, seeded(0))
        assert state(model) == before
    with pytest.raises(UserError, match=r"weights \(head\.weight\);"):
        stranger("changes_a_weight")(tiny_net(), pictures(5), Y, seeded(0))
    with pytest.raises(UserError, match=r"weights \(conv\.weight and \d others\);"):
        stranger("changes_a_weight", how="half")(tiny_net(), pictures(5), Y, seeded(0))


def test_a_weight_that_was_nan_before_is_no_change() -> None:
    model = tiny_net()
    model.conv.bias.data[0] = float("nan")
    assert torch.equal(stranger("stays")(model, pictures(5), Y, seeded(0)), pictures(5))


def test_a_tracer_goes_on_after_autoattack_has_traced() -> None:
    def tracer(frame: Any, event: str, argument: Any) -> None: ...

    before = sys.gettrace()
    try:
        sys.settrace(tracer)
        quick(Linf(eps=0.4))(tiny_net(), pictures(2), Y[:2], seeded(0))
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


# --- what the stranger is given


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
    attack = noticing(monkeypatch, look).but(arguments=given, threat=Linf(eps=0.2))
    attack(tiny_net(), pictures(5), Y, seeded(0))
    attack.but(threat=L2(eps=2))(tiny_net(), pictures(5), Y, seeded(0))
    rest = {"c": 8 / 255, "d": 0.25, "e": "8", "f": "eps2", "g": [1, "eps"], "h": 2.0}
    assert seen == [{"a": 0.2, "b": 0.05, **rest}, {"a": 2.0, "b": 0.5, **rest}]


def test_all_randomness_comes_from_the_generator() -> None:
    attack, x = stranger("draws"), pictures(5)
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


def test_a_module_that_seeds_when_imported_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import torch, random, numpy\ntorch.manual_seed(0); random.seed(0); numpy.random.seed(0)\n"
    (tmp_path / "seeding.py").write_text(f"{text}def stays(model, x, y):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = streams()
    External(call="seeding:stays")(tiny_net(), pictures(5), Y, seeded(0))
    assert streams() == before


# --- what comes back is measured


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("first_only", {}, r"returned shape \[1, 3, 6, 6\] for images of shape \[5, 3, 6, 6\]"),
        ("pairs", {}, "returned a tuple of 2; it must return the images alone"),
        ("as_bytes", {}, r"returned torch\.uint8"),
        ("one_nan", {}, "NaN or infinity in 1 of 5 images"),
        ("in_255", {}, r"moved an image by 254.*images up to 255: in 0\.\.255\? divide by 255"),
        ("moves", {"by": 8.0, "clip": False}, r"moved an image by 8, .*eps in 0\.\.255 units\? give 25\.5/"),
        ("moves", {"by": 8.0}, r"moved an image by 1, 0\.9 more than l_inf 25\.5/255.*0\.\.255 units"),
        ("moves", {"by": 0.15}, r"moved an image by 0\.15, 0\.05 more than .*must agree"),
        ("raises_pixels", {"by": 0.05}, r"left \[0, 1\]: found \[0\.05, 1\.05\]"),
        ("raises_pixels", {"by": -0.05}, r"left \[0, 1\]: found \[-0\.05, 0\.95\]"),
        ("ascent", {"eps": 0.1, "stps": 3}, "raised TypeError: ascent.. got an unexpected keyword .*stps"),
        ("no_such", {}, "'strangers' has no 'no_such'"),
    ],
)  # fmt: skip
def test_what_a_stranger_returns_wrongly_is_one_sentence(name: str, arguments: Any, said: str) -> None:
    model = mixed()
    before = state(model)
    with pytest.raises(UserError, match=said) as caught:
        stranger(name, **arguments)(model, pictures(5), Y, seeded(0))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("'strangers'" if name == "no_such" else f"strangers:{name} ")
    assert state(model) == before


def test_the_unit_trap_names_the_radius_as_people_write_it() -> None:
    with pytest.raises(UserError, match=r"eps in 0\.\.255 units\? give 8/255\)"):
        stranger("moves", Linf(), by=8.0, clip=False)(tiny_net(), pictures(5), Y)


@pytest.mark.parametrize(("threat", "tolerance"), [(Linf(eps=0.1), 1e-6), (L2(eps=0.5), 1e-5)], ids=str)
def test_excess_by_rounding_is_removed_and_more_is_refused(threat: Any, tolerance: float) -> None:
    x = 0.3 + 0.4 * torch.rand(5, 3, 6, 6, generator=seeded(1))
    per_pixel = 1 if threat.kind == "linf" else 108**-0.5
    for excess in (-0.01, 0.5 * tolerance, 2.5 * tolerance):
        attack = stranger("moves", threat, by=(threat.eps + excess) * per_pixel)
        if excess > tolerance:
            with pytest.raises(UserError, match=r"more than l_.* allows"):
                attack(tiny_net(), x, Y)
            continue
        size = threat.norm(attack(tiny_net(), x, Y) - x)
        expected = min(threat.eps, threat.eps + excess)
        torch.testing.assert_close(size, torch.full((5,), expected), rtol=0, atol=1.5e-7)
    outside = stranger("raises_pixels", threat, by=5e-7)(tiny_net(), pictures(5), Y)
    assert float(outside.max()) == 1.0


def test_the_input_cannot_be_spoiled_to_look_unmoved() -> None:
    with pytest.raises(UserError, match=r"moved an image by 0\.05"):
        stranger("spoils_its_input", Linf(eps=0.01))(tiny_net(), pictures(5), Y)


def test_doubles_that_require_gradients_in_another_layout_come_back_as_the_images_were() -> None:
    found = stranger("in_double").search(tiny_net(), pictures(5), Y, seeded(0))
    assert torch.equal(found.x_adv, pictures(5))
    assert found.x_adv.dtype == torch.float32
    assert found.x_adv.is_contiguous()
    assert not found.x_adv.requires_grad
    assert found.wrong is None
    assert found.dead.tolist() == [0] * 5


def test_errors_that_are_not_the_strangers_pass() -> None:
    with pytest.raises(UserError, match=r"raised Tripped$") as caught:
        stranger("goes_backward")(Forwards(tiny_net(), 0), pictures(5), Y)
    assert isinstance(caught.value.__cause__, Tripped)

    def interrupts(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    def fills_memory(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    for model, expected in ((interrupts, KeyboardInterrupt), (fills_memory, torch.OutOfMemoryError)):
        with pytest.raises(expected):  # type: ignore[arg-type]
            stranger("ascent", eps="eps")(model, pictures(5), Y)


# --- settings


def test_settings_round_trip_and_say_every_condition() -> None:
    attack = stranger("ascent", L2(eps="128/255"), eps="eps", steps=7)
    again = settings.load_yaml(External, attack.yaml(), "f")
    assert again == attack
    assert hash(again) == hash(attack)
    assert hash(attack) != hash(attack.but(arguments={}))
    assert attack.digest() != attack.but(call="strangers:stays").digest()
    assert str(attack) == "strangers:ascent(eps=eps, steps=7), l_2 128/255"
    assert str(AutoAttack()) == "AutoAttack standard, l_inf 8/255"
    reduced = AutoAttack(attacks=("apgd-ce", "fab"), steps=7, queries=50, batch=10, threat=L2(eps=0.5))
    assert str(reduced) == (
        "AutoAttack custom (apgd-ce + fab), l_2 127.5/255, 7 steps, 50 queries, batches of 10"
    )
    assert str(AutoAttack(version="rand")) == "AutoAttack rand, l_inf 8/255"
    assert settings.load_yaml(AutoAttack, reduced.yaml(), "f") == reduced
    made = settings.override(AT(), ["attack.kind=external", "attack.call=strangers:stays"])
    assert made.attack == External(call="strangers:stays")
    for member in settings.members(AnyAttack):
        assert member().unmoving() == member()


def test_settings_that_make_no_sense_are_refused() -> None:
    for cls, given, said in (
        (External, {"call": "no colon"}, "package.module:function"),
        (External, {"arguments": [1]}, "arguments"),
        (AutoAttack, {"attacks": []}, "attacks"),
        (AutoAttack, {"attacks": ["pgd"]}, "attacks"),
        (AutoAttack, {"attacks": ["fab"], "version": "plus"}, "version=plus has its own list"),
        (AutoAttack, {"steps": 10}, "standard means 100 steps and 5000 queries"),
        (AutoAttack, {"queries": 10, "version": "rand"}, "rand means 100 steps"),
    ):
        with pytest.raises(UserError) as caught:
            settings.validated(cls, given)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"give call=package\.module:function"):
        External()(tiny_net(), pictures(5), Y)


# --- in training and in evaluation (T18)


def trained(evaluate: Any, recipe: AT, epochs: int = 2) -> nn.Module:
    """A loop as users write it: dropout draws from the global stream, evaluation stands between epochs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x, y = tiny_net().train(), pictures(20), torch.arange(20) % 3
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for epoch in range(epochs):
            for step, rows in enumerate(torch.randperm(20).split(5)):
                x_adv = recipe.craft(model, x[rows], y[rows], seeded(100 * epoch + step))
                loss, _ = recipe.loss(model, x[rows], x_adv, y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if evaluate is not None:
                evaluate(model, x[:5], y[:5], seeded(epoch))
    return model


def test_training_against_a_stranger_works_and_evaluating_never_moves_it() -> None:
    recipe = AT(attack=stranger("ascent", eps="eps"))
    plain = trained(None, recipe)
    assert not torch.equal(plain.head.weight, tiny_net().head.weight)
    assert int(plain.bn.num_batches_tracked) == 5 + 8  # one forward in train mode per step, crafting none
    for evaluate in (quick(Linf(eps=0.4)), stranger("seeds_by_the_clock"), stranger("goes_backward")):
        other = trained(evaluate, recipe)
        for (name, a), b in zip(plain.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_an_evaluation_counts_no_dead_gradients_of_strangers(trained_split: Any) -> None:
    model, split = trained_split
    for attack in (stranger("stays"), quick(Linf(eps=0.05))):
        seen = under(model, split, attack, batch=8)
        assert seen.dead == 0
        assert len(seen.robust) == 20
    assert torch.equal(under(model, split, stranger("stays")).robust, seen.clean)


@pytest.fixture
def trained_split(trained: Any) -> Any:
    from crossclass.models import Classifier

    class Outputs(Classifier):
        def __init__(self, net: nn.Module) -> None:
            super().__init__((0.0,), (1.0,))
            self.net, self.head = net, net.head

        def features(self, x: Tensor) -> Tensor:
            n = self.net
            return n.drop(n.act(n.bn(n.conv(x)))).flatten(1)

    net, x, y = trained
    return Outputs(net).eval(), Split((x[:20] * 255).round().to(torch.uint8), y[:20])


# --- AutoAttack


def quick(threat: Any, *attacks: str, **changes: Any) -> AutoAttack:
    """AutoAttack, but seconds short."""
    known = {"steps": 10, "queries": 20, **changes}
    return AutoAttack(threat=threat, attacks=attacks or ("apgd-ce",), **known)


def right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(dim=1) == y


@pytest.mark.parametrize("part", ["apgd-ce", "fab", "square"])
def test_on_a_plane_it_breaks_exactly_what_the_closed_form_breaks(part: str) -> None:
    g = seeded(5)
    plane, x = Plane(torch.randn(48, generator=g)), torch.rand(40, 3, 4, 4, generator=g)
    y = (plane(x).argmax(dim=1) + (torch.arange(40) == 7)) % 2  # one is wrong from the start
    x[0] = plane.w.view(3, 4, 4).sign().clamp(0, 1)  # as deep in class 1 as the box allows
    y[0] = 1
    for eps in (0.06,) if part == "square" else (0.02, 0.06, 0.15):
        still = plane.margin(plane.worst_linf_in_box(x, y, eps), y) > 0
        many = {"queries": 600} if part == "square" else {"steps": 40}
        x_adv = quick(Linf(eps=eps), part, **many)(plane, x, y, seeded(0))
        found = right(plane, x_adv, y)
        assert not (still & ~found).any()  # beyond the closed form nothing can be broken
        missed = int((found & ~still).sum())
        assert missed <= (4 if part == "square" else 0)  # Square is a random search
        assert 0 < int(still.sum()) < 39
        assert torch.equal(x_adv[found], x[found])  # the clean image where nothing was found
        if part != "square":
            assert (plane.margin(x_adv, y)[~still] < 0).sum() == (~still).sum()


def test_on_a_plane_in_l2_it_breaks_exactly_what_the_closed_form_breaks() -> None:
    g = seeded(5)
    plane = Plane(torch.randn(48, generator=g))
    x = 0.4 + 0.2 * torch.rand(40, 3, 4, 4, generator=g)  # the box is out of reach
    y = plane(x).argmax(dim=1)
    distance = plane.margin(x, y) / float(plane.w.detach().norm())
    for share in (0.2, 0.5, 0.8):
        eps = float(distance.quantile(share))
        still = plane.worst(x, y, "l2", eps) > 0
        x_adv = quick(L2(eps=eps), "apgd-ce", "fab", steps=40)(plane, x, y, seeded(0))
        assert torch.equal(right(plane, x_adv, y), still)
        assert int(still.sum()) == round(40 * (1 - share))


@pytest.mark.parametrize("threat", [Linf(eps=0.04), L2(eps=0.8)], ids=str)
def test_pgd_100_never_beats_it(threat: Any, trained: Any) -> None:
    net, x, y = trained
    x, y = x[:20], y[:20]
    whole = AutoAttack(threat=threat, attacks=("apgd-ce", "apgd-dlr", "fab", "square"), steps=20, queries=50)
    left = right(net, whole(net, x, y, seeded(0)), y)
    pgd = right(net, PGD(threat=threat, steps=100, step=0.05)(net, x, y, seeded(0)), y)
    one = right(net, quick(threat, "apgd-ce", steps=3)(net, x, y, seeded(0)), y)
    assert left.sum() <= pgd.sum()
    assert left.sum() <= one.sum()
    assert 0 < left.sum() < right(net, x, y).sum()


def test_few_classes_are_refused_for_dlr_with_a_way_out() -> None:
    for attack, needed, classes in (
        (AutoAttack(), "apgd-t needs 4", 3),
        (AutoAttack(version="rand"), "apgd-dlr needs 3", 2),
        (quick(Linf(), "fab", "apgd-t"), "apgd-t needs 4", 3),
    ):
        with pytest.raises(UserError, match=rf"{needed} classes .*model has {classes}; give attacks=\["):
            attack(tiny_net(classes=classes), pictures(2), torch.tensor([0, 1]), seeded(0))
    for classes, attack in (
        (2, quick(Linf(eps=0.4), "apgd-ce", "fab", "fab-t", "square")),
        (3, quick(Linf(eps=0.4), "apgd-dlr", "fab-t")),
        (4, quick(Linf(eps=0.4), "apgd-t", "fab-t")),  # fewer than 9 other classes: all are targets
        (6, quick(Linf(eps=0.4), "apgd-t")),
    ):
        net, x = tiny_net(classes=classes), pictures(4)
        y = net(x).argmax(dim=1)
        x_adv = attack(net, x, y, seeded(0))
        assert int(right(net, x_adv, y).sum()) < 4


def test_it_is_silent_and_the_log_is_as_before(capfd: pytest.CaptureFixture, caplog: Any) -> None:
    net, x = tiny_net(), pictures(4)
    with caplog.at_level(logging.DEBUG, "auto-attack"):
        # probabilities for logits: the library warns
        quick(Linf(eps=0.1))(lambda x: net(x).softmax(dim=1), x, Y[:4], seeded(0))
        assert caplog.records == []
        logging.getLogger("auto-attack").warning("heard")
    assert len(caplog.records) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(eps=0.03), L2(eps=0.15)], ids=str)
def test_the_standard_version_runs_whole(threat: Any) -> None:
    net, x = tiny_net(classes=10), pictures(8)
    y = net(x).argmax(dim=1)
    whole = AutoAttack(threat=threat)
    x_adv = whole(net, x, y, seeded(0))
    assert torch.equal(x_adv, whole(net, x, y, seeded(0)))
    assert right(net, x_adv, y).sum() <= right(net, PGD(threat=threat, steps=50)(net, x, y), y).sum()
    assert 0 < right(net, x_adv, y).sum() < 8


def as_the_original(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """In pyautoattack's place its original, by its signature: `attacks_to_run`, `bs`, images alone."""
    import pyautoattack

    made: list[dict[str, Any]] = []

    class Original:
        def __init__(
            self,
            model: nn.Module,
            norm: str = "Linf",
            eps: float = 0.3,
            seed: int | None = None,
            verbose: bool = True,
            attacks_to_run: list[str] | None = None,
            version: str = "standard",
            is_tf_model: bool = False,
            device: str = "cuda",
            log_path: str | None = None,
        ) -> None:
            made.append({"seed": seed, "verbose": verbose, "version": version, "attacks": attacks_to_run})
            self.inner = pyautoattack.AutoAttack(
                model, norm=norm, eps=eps, seed=seed, version=version, device=device,
                attacks=attacks_to_run or None,
            )  # fmt: skip
            self.apgd, self.apgd_targeted = self.inner.apgd, self.inner.apgd_targeted
            self.fab, self.square = self.inner.fab, self.inner.square

        def run_standard_evaluation(self, x: Tensor, y: Tensor, bs: int = 250) -> Tensor:
            print("initial accuracy: 100%")
            made[-1]["bs"] = bs
            return self.inner.run_standard_evaluation(x, y, batch_size=bs)[0]

    module = types.ModuleType("autoattack")
    module.AutoAttack = Original  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "autoattack", module)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)  # as if it were not installed
    return made


def test_an_installed_original_does_as_well(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    net, x = tiny_net(), pictures(4)
    y, attack = net(x).argmax(dim=1), quick(Linf(eps=0.4), "apgd-ce", batch=3)
    expected = attack(net, x, y, seeded(0))
    made = as_the_original(monkeypatch)
    assert torch.equal(attack(net, x, y, seeded(0)), expected)
    assert made[0]["attacks"] == ["apgd-ce"]
    assert (made[0]["version"], made[0]["verbose"], made[0]["bs"]) == ("custom", False, 3)
    assert isinstance(made[0]["seed"], int)
    assert capfd.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "autoattack", None)
    with pytest.raises(UserError, match=r"pip install 'crossclass\[aa\]'"):
        attack(net, x, y, seeded(0))


def test_the_settings_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyautoattack

    seen: list[Any] = []

    def run(self: Any, x: Tensor, y: Tensor, /, *, batch_size: int) -> Any:
        apgd, targeted = self.apgd, self.apgd_targeted
        seen.append(
            {
                "norm": (self.norm, apgd.norm, self.fab.norm),
                "eps": (self.epsilon, targeted.eps, self.square.eps),
                "attacks": tuple(self.attacks_to_run),
                "steps": (apgd.n_iter, targeted.n_iter, self.fab.n_iter),
                "checks": (apgd.n_iter_2, targeted.n_iter_min, apgd.size_decr),
                "queries": self.square.n_queries,
                "restarts": (apgd.n_restarts, targeted.n_restarts, self.fab.n_restarts),
                "targets": (targeted.n_target_classes, self.fab.n_target_classes),
                "batch": batch_size,
            }
        )
        assert isinstance(self.model, Handed)
        return x, y

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", run)
    x, y = pictures(5), Y
    AutoAttack()(tiny_net(classes=12), x, y, seeded(0))
    AutoAttack(version="rand", threat=L2(eps=1))(tiny_net(classes=5), x, y, seeded(0))
    quick(L2(eps=2), "fab", "square", batch=7, steps=50, queries=9)(tiny_net(), x, y, seeded(0))
    assert seen[0] == {
        "norm": ("Linf",) * 3, "eps": (8 / 255,) * 3, "attacks": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "steps": (100, 100, 100), "checks": (22, 6, 3), "queries": 5000, "restarts": (1, 1, 1),
        "targets": (9, 9), "batch": 250,
    }  # fmt: skip
    assert seen[1]["attacks"] == ("apgd-ce", "apgd-dlr")
    assert seen[1]["targets"] == (4, 4)
    assert seen[2] == {
        "norm": ("L2",) * 3, "eps": (2.0,) * 3, "attacks": ("fab", "square"), "steps": (50, 50, 50),
        "checks": (11, 3, 1), "queries": 9, "restarts": (5, 1, 5), "targets": (2, 2), "batch": 7,
    }  # fmt: skip
