"""Attacks: contracts that every attack in every ball keeps, optima known in closed form, a literal twin.

The contracts are read off the unions, so that a new attack or ball is held to them unasked.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference
from conftest import Forwards, Plane, Tripped, pictures, seeded, tiny_net
from crossclass import settings
from crossclass.attacks import FGSM, PGD, AnyAttack, AutoAttack, External, within
from crossclass.errors import UserError
from crossclass.threat import L2, AnyThreat, Linf
from crossclass.view import evaluating, frozen

ATTACKS, THREATS = settings.members(AnyAttack), settings.members(AnyThreat)
# What someone else's search makes of a batch, of a dead gradient or of a target is its own affair (AutoAttack
# draws for the images that still stand, so a sample's result does depend on its batch): test_external.
FOREIGN = (AutoAttack, External)
BN = ("eval", "train", "train_frozen_stats")
Y = torch.tensor([0, 1, 2, 0, 1])

PAIRS = {f"{settings.kind_of(a)}-{settings.kind_of(t)}": (a, t) for a in ATTACKS for t in THREATS}
OURS = {name: pair for name, pair in PAIRS.items() if pair[0] not in FOREIGN}

every = pytest.mark.parametrize(("attack", "ball"), PAIRS.values(), ids=PAIRS)
ours = pytest.mark.parametrize(("attack", "ball"), OURS.values(), ids=OURS)
every_ball = pytest.mark.parametrize("ball", THREATS, ids=settings.kind_of)


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
        known |= {"call": "strangers:ascent", "arguments": {"eps": "eps", "norm": threat.kind}}
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


# --- contract: the model is handed back as it was found (T1-T3)


@every_mode
def test_the_model_comes_back_as_it_was(attack: type, ball: type, bn: str) -> None:
    model = Forwards(mixed(tiny_net()))
    before, weights = condition(model), {n: p.clone() for n, p in model.named_parameters()}
    make(attack, ball, bn=bn)(model, pictures(5), Y, seeded(0))
    assert model.count > 0
    assert condition(model) == before
    assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())


@every_mode
@pytest.mark.parametrize("backward", [False, True], ids=["in-forward", "in-backward"])
def test_the_model_comes_back_as_it_was_when_it_raises(
    attack: type, ball: type, bn: str, backward: bool
) -> None:
    a = make(attack, ball, bn=bn)
    takes_gradient: list[bool] = []

    def noted(x: Tensor) -> Tensor:
        takes_gradient.append(x.requires_grad and torch.is_grad_enabled())
        return tiny_net()(x)

    a(noted, pictures(5), Y, seeded(0))
    candidates = [i for i, takes in enumerate(takes_gradient) if takes or not backward]
    for trip in {candidates[0], candidates[len(candidates) // 2], candidates[-1]}:
        model = Forwards(mixed(tiny_net()), trip, backward)
        before, statistics = condition(model), tensors(model)
        with trips(attack):
            a(model, pictures(5), Y, seeded(0))
        assert condition(model) == before
        assert all(p.grad is None for p in model.parameters())
        assert bn == "train" or unchanged(statistics, model)
        assert torch.is_grad_enabled()


@every_mode
def test_no_gradient_is_left_in_a_parameter(attack: type, ball: type, bn: str) -> None:
    model = tiny_net()
    model.head.weight.grad = torch.full_like(model.head.weight, 0.25)
    make(attack, ball, bn=bn)(model, pictures(5), Y, seeded(0))
    for name, p in model.named_parameters():
        assert (p.grad is None) == (name != "head.weight")
    assert (model.head.weight.grad == 0.25).all()


@every_mode
@pytest.mark.parametrize("mode", [True, False], ids=["found-training", "found-eval"])
def test_batch_norm_moves_by_the_documented_count(attack: type, ball: type, bn: str, mode: bool) -> None:
    model = Forwards(tiny_net().train(mode))
    before = tensors(model)
    make(attack, ball, bn=bn)(model, pictures(5), Y, seeded(0))
    moved = int(model.inner.bn.num_batches_tracked - before["inner.bn.num_batches_tracked"])
    assert moved == (model.count if bn == "train" else 0)
    assert unchanged(before, model) == (bn != "train")


@pytest.mark.parametrize(
    ("attack", "forwards"),
    [
        (PGD(steps=4, bn="train"), 4),
        (PGD(steps=0, bn="train"), 0),
        (PGD(steps=4, loss="kl", bn="train"), 5),  # one for the clean prediction
        (PGD(steps=4, keep="best", bn="train"), 5),  # one to score the last iterate
        (PGD(steps=4, restarts=3, bn="train"), 15),
        (FGSM(bn="train"), 1),
    ],
    ids=str,
)
def test_forwards_in_train_mode_are_no_more_than_needed(attack: Any, forwards: int) -> None:
    model = tiny_net()
    attack(model, pictures(5), Y, seeded(0))
    assert int(model.bn.num_batches_tracked) == 5 + forwards


@every
def test_frozen_statistics_hold_for_instance_and_spectral_norm_too(attack: type, ball: type) -> None:
    model = nn.Sequential(
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.Flatten(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(108, 3)),
    )
    for bn in ("eval", "train_frozen_stats"):
        before = tensors(model)
        make(attack, ball, bn=bn)(model, pictures(5), Y, seeded(0))
        assert unchanged(before, model)


@ours
def test_each_bn_mode_crafts_against_the_net_in_that_mode(attack: type, ball: type) -> None:
    x, still = pictures(5), nn.Identity()
    wanted = {"start": "none", "steps": 1}
    made = {}
    for bn in BN:
        model = tiny_net()
        model.drop = still
        made[bn] = make(attack, ball, bn=bn, **wanted)(model, x, Y)
    assert torch.equal(made["train"], made["train_frozen_stats"])
    assert not torch.equal(made["train"], made["eval"])
    model = tiny_net().train()  # whatever mode it is found in, eval means eval: dropout is off too
    assert torch.equal(make(attack, ball, **wanted)(model, x, Y), made["eval"])


def test_the_view_is_undone_for_every_way_out() -> None:
    model = mixed(tiny_net())
    before = condition(model)
    for bn in BN:
        with frozen(model, bn) as f:
            assert all(m.training == (bn != "eval") for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())
            assert f(pictures(2)).dtype == torch.float32
        assert condition(model) == before
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert condition(model) == before
    for view in (evaluating(model), *(frozen(model, bn) for bn in BN)):
        with pytest.raises(Tripped), view:
            raise Tripped
        assert condition(model) == before


# --- contract: ball and box (T5, T21)


@every
@pytest.mark.parametrize("eps", [0.0, 1e-9, 8 / 255, 1.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_images_stay_in_the_ball_and_the_box(
    attack: type, ball: type, eps: float, dtype: torch.dtype
) -> None:
    model, threat, images = tiny_net(), ball.model_construct(eps=eps), pictures(5).to(dtype)
    clean, kept = images.float(), images.clone()
    for start in starts_of(attack, threat):
        for step, box in ((0.25, (0.0, 1.0)), (3.0, None)):
            a = make(attack, threat, start=start, step=step, box=box, steps=2)
            x_adv = a(model, images, Y, seeded(0))
            assert x_adv.dtype == torch.float32
            assert not x_adv.requires_grad
            assert (threat.norm(x_adv - clean) <= eps * (1 + 1e-6) + 1e-6).all()
            assert box is None or ((x_adv >= 0).all() and (x_adv <= 1).all())
            assert torch.equal(images, kept)
            assert eps > 0 or torch.equal(x_adv, clean)


@ours
def test_a_bf16_forward_leaves_the_radius_exact(attack: type, ball: type) -> None:
    eps, x = 8 / 255, 0.3 + 0.4 * torch.rand(5, 3, 6, 6, generator=seeded(1))
    a = make(attack, ball(eps=eps), precision="bf16", steps=8)
    size = a.threat.norm(a(tiny_net(), x, Y, seeded(0)) - x)
    assert (size <= eps + 2e-7).all()  # bf16 itself would give 8.03/255, and sums up to 9.5/255
    assert (size >= eps - 2e-6).all()
    assert not torch.equal(a(tiny_net(), x, Y), a.but(precision="fp32")(tiny_net(), x, Y))


@every
def test_rounding_outside_the_box_is_clipped_and_more_is_refused(attack: type, ball: type) -> None:
    model, a = tiny_net(), make(attack, ball)
    x = pictures(5)
    x[0, 0, 0, 0], x[1, 1, 1, 1] = -3e-8, 1 + 1.2e-7
    x_adv = a(model, x, Y, seeded(0))
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert torch.equal(x_adv, a(model, x.clamp(0, 1), Y, seeded(0)))
    for value, said in (
        (-2e-6, r"found \[-2e-06, 1\]"),
        (1 + 3e-6, r"found \[0, 1\]"),
        (2.64, r"\[0, 2.64\]"),
    ):
        bad = pictures(5)
        bad[2, 0, 0, 0] = value
        with pytest.raises(UserError, match=r"images must be in \[0, 1\], found .*normalisation") as caught:
            a(model, bad, Y)
        assert "\n" not in str(caught.value)
        if abs(value - 1) > 1e-3:
            caught.match(said)
    with pytest.raises(UserError, match=r"3\.4e\+38"):
        a(model, torch.full((5, 3, 6, 6), math.inf), Y)
    if "box" in attack.model_fields:
        assert make(attack, ball, box=None)(model, 3 * pictures(5) - 1, Y).min() < 0


def test_a_refusal_names_the_box_and_the_range_that_was_found() -> None:
    with pytest.raises(UserError, match=r"in \[-1, 1\], found \[-2\.12, 2\.64\]"):
        within(torch.tensor([[-2.12, 2.64]]), (-1.0, 1.0))
    assert torch.equal(within(torch.tensor([[0.5, math.nan]]), (0.0, 1.0))[0, :1], torch.tensor([0.5]))
    assert within(torch.tensor([[-5.0]]), None) == -5


# --- contract: what a sample's result depends on (T7), and what it does not


@ours
@pytest.mark.parametrize("loss", ["ce", "margin", "kl"])
def test_a_sample_does_not_depend_on_its_batch_nor_on_a_nan_neighbour(
    attack: type, ball: type, loss: str
) -> None:
    if loss == "kl" and attack is FGSM:
        loss = "ce"
    model, x, y = tiny_net().double(), pictures(7), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    starts = torch.stack([ball(eps=0.1).sample(x, ball(eps=0.1).starts[0], seeded(s)) for s in range(2)])
    options = {"loss": loss, "restarts": 2, "keep": "best", "start": ball(eps=0.1).starts[0]}

    def craft(rows: list[int], x: Tensor) -> Tensor:
        return make(attack, given_starts(ball, starts[:, rows], eps=0.1), **options)(model, x[rows], y[rows])

    everyone, spoiled = craft(list(range(7)), x), x.clone()
    spoiled[3, 1] = math.nan
    beside_nan = craft(list(range(7)), spoiled)
    for i in range(7):
        torch.testing.assert_close(craft([i], x)[0], everyone[i], rtol=0, atol=1e-6)
        if i != 3:
            torch.testing.assert_close(beside_nan[i], everyone[i], rtol=0, atol=1e-6)
    torch.testing.assert_close(craft([4, 0, 6], x), everyone[[4, 0, 6]], rtol=0, atol=1e-6)
    assert beside_nan[3, 1].isnan().all()
    assert not torch.equal(everyone, x)


@every
def test_attacks_hold_no_state_and_leave_the_global_stream_alone(attack: type, ball: type) -> None:
    model, x = tiny_net(), pictures(5)
    y = predicted(model, x)  # AutoAttack draws nothing for an image that is misclassified already
    for start in starts_of(attack, ball(eps=0.1)):
        a = make(attack, ball, start=start, restarts=2)
        before = torch.get_rng_state()
        first, g = a(model, x, y, seeded(3)), seeded(3)
        assert torch.equal(a(model, x, y, g), first)
        assert torch.equal(torch.get_rng_state(), before)
        again, other = a(model, x, y, g), a(model, x, y, seeded(4))
        assert a == make(attack, ball, start=start, restarts=2)
        if start == "none":
            assert torch.equal(again, first)
        else:
            assert not torch.equal(again, first)
            assert not torch.equal(other, first)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                assert torch.equal(a(model, x, y), first)


@every_loss
def test_grad_and_inference_modes_and_layouts_do_not_matter(attack: type, ball: type, loss: str) -> None:
    x, model, options = pictures(5), tiny_net(), {"loss": loss, "keep": "best"}
    for a, y in (
        (make(attack, ball, **options), Y),
        (make(attack, ball, **options, box=None), torch.eye(3)[Y] * 0.7 + 0.1),
    ):
        expected = a(model, x, y, seeded(0))
        with torch.no_grad():
            assert torch.equal(a(model, x, y, seeded(0)), expected)
            assert not torch.is_grad_enabled()
        with torch.inference_mode():
            assert torch.equal(a(model, x, y, seeded(0)), expected)
            inside = a(model, x.clone(), y.clone(), seeded(0))  # images made in inference mode
            assert torch.is_inference_mode_enabled()
        assert torch.equal(inside, expected)
        with torch.autocast("cpu", torch.bfloat16):  # crafting's precision is its own
            assert torch.equal(a(model, x, y, seeded(0)), expected)
        last = a(model, x.to(memory_format=torch.channels_last), y, seeded(0))
        torch.testing.assert_close(last, expected)
        torch.testing.assert_close(a(model, x.double(), y, seeded(0)), expected)
        assert torch.equal(a(model, x.clone().requires_grad_(), y, seeded(0)), expected)


@every
def test_a_plain_function_is_a_model(attack: type, ball: type) -> None:
    model, x = tiny_net(), pictures(5)
    a = make(attack, ball)
    found = a(lambda x: model(x), x, Y, seeded(0))
    assert torch.equal(found, a(model, x, Y, seeded(0)))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@every_loss
def test_labels_may_be_classes_of_any_integer_type_or_one_hot(attack: type, ball: type, loss: str) -> None:
    a, model, x = make(attack, ball, loss=loss, keep="best", restarts=2), tiny_net(), pictures(5)
    expected = a(model, x, Y, seeded(0))
    for dtype in (torch.int32, torch.int16, torch.int8):
        assert torch.equal(a(model, x, Y.to(dtype), seeded(0)), expected)
    torch.testing.assert_close(a(model, x, torch.eye(3)[Y], seeded(0)), expected)
    torch.testing.assert_close(a(model, x, torch.eye(3, dtype=torch.float64)[Y], seeded(0)), expected)


@every
def test_an_empty_batch_stays_empty(attack: type, ball: type) -> None:
    for start in ball(eps=0.1).starts:
        found = make(attack, ball, start=start).search(tiny_net(), pictures(5)[:0], Y[:0], seeded(0))
        assert found.x_adv.shape == (0, 3, 6, 6)
        assert found.dead.shape == (0,)


# --- contract: zero and NaN gradients (T6)


def half_dead(kind: Tensor) -> Callable[[Tensor], Tensor]:
    """Logits in which sample i is alive (0), has gradient zero (1), or a NaN one at finite logits (2)."""

    def model(x: Tensor) -> Tensor:
        alive = x.flatten(1)[:, :3] * 2 + x.flatten(1)[:, 3:6]
        rows = [(row, 0 * row, (0 * row).abs().sqrt())[k] for k, row in zip(kind, alive, strict=True)]
        return torch.stack(rows)

    return model


@ours
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_dead_gradients_do_not_move_and_are_counted(attack: type, ball: type, loss: str) -> None:
    kind, x = torch.tensor([0, 1, 2, 0, 1]), pictures(5)
    for restarts in (1, 3):
        a = make(attack, ball, start="none", loss=loss, restarts=restarts)
        found = a.search(half_dead(kind), x, Y)
        expected = torch.where(kind == 0, 0, steps_of(a) * getattr(a, "restarts", 1))
        assert found.dead.tolist() == expected.tolist()
        assert torch.equal(found.x_adv[kind != 0], x[kind != 0])
        assert (a.threat.norm(found.x_adv - x)[kind == 0] > 0).all()
        assert found.x_adv.isfinite().all()


@ours
@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1.0, 1e12, 1e20])
def test_the_scale_of_the_gradient_does_not_matter(attack: type, ball: type, scale: float) -> None:
    x, w = torch.full((1, 12), 0.5), torch.randn(12, generator=seeded(0))
    plane = Plane(scale * w)
    for loss in ("ce", "margin"):
        if loss == "ce" and scale > 1:
            plane = Plane(scale * w, -float(scale * w.sum()) / 2)  # unsaturated at x = 1/2
        a = make(attack, ball, start="none", steps=1, step=0.5, loss=loss, box=None)
        found = a.search(plane, x, torch.tensor([1]))
        if found.dead.any():  # float32 cannot hold the offset of a steep plane exactly; then CE saturates
            assert loss == "ce"
            assert scale > 1e3
            continue
        torch.testing.assert_close(a.threat.norm(found.x_adv - x), torch.tensor([0.05]), rtol=1e-5, atol=0)
        expected = -a.threat.steepest(w[None], 0.05)
        torch.testing.assert_close(found.x_adv - x, expected, rtol=1e-4, atol=1e-7)


def test_a_masked_net_is_reported_as_dead() -> None:
    plane, x = Plane(1e5 * torch.ones(12)), torch.full((4, 12), 0.5)  # CE saturates: the gradient is zero
    found = PGD(steps=5, start="none").search(plane, x, torch.tensor([1, 1, 1, 0]))
    assert found.dead.tolist() == [5, 5, 5, 0]  # the last one is wrong already, and its gradient lives
    assert (
        PGD(steps=5, start="none", loss="margin").search(plane, x, torch.tensor([1, 1, 1, 0])).dead.sum() == 0
    )


# --- the plane: the optimum is known (T10, T11, T12)


def plane_problem(n: int = 6, d: int = 20) -> tuple[Plane, Tensor, Tensor]:
    g = seeded(7)
    w = torch.randn(d, generator=g, dtype=torch.float64)
    return Plane(w, 0.1), torch.rand(n, d, generator=g), torch.arange(n) % 2


@pytest.mark.parametrize("ball", [Linf, L2], ids=settings.kind_of)
@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("eps", [8 / 255, 0.5])
def test_on_a_plane_every_start_reaches_the_closed_form(ball: type, loss: str, eps: float) -> None:
    plane, x, y = plane_problem()
    expected = plane.worst(x, y, settings.kind_of(ball), eps)
    for start in ball.starts:
        attack = PGD(threat=ball(eps=eps), steps=60, step=0.25, start=start, loss=loss, box=None)
        x_adv = attack(plane, x, y, seeded(0))
        torch.testing.assert_close(plane.margin(x_adv, y), expected, rtol=0, atol=1e-5)
    one = FGSM(threat=ball(eps=eps), loss=loss, box=None)(plane, x, y)
    torch.testing.assert_close(plane.margin(one, y), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("eps", [8 / 255, 0.3, 1.0])
def test_on_a_plane_the_optimum_in_ball_and_box_is_found_exactly(loss: str, eps: float) -> None:
    plane, x, y = plane_problem()
    expected = plane.worst_linf_in_box(x, y, eps).float()
    for attack in (
        PGD(threat=Linf(eps=eps), steps=12, loss=loss),
        PGD(threat=Linf(eps=eps), steps=12, loss=loss, keep="best", restarts=2),
        FGSM(threat=Linf(eps=eps), loss=loss),
    ):
        torch.testing.assert_close(attack(plane, x, y, seeded(0)), expected, rtol=0, atol=1e-6)


@ours
def test_in_a_box_no_random_point_beats_the_attack_on_a_plane(attack: type, ball: type) -> None:
    plane, x, y = plane_problem()
    a = make(attack, ball(eps=0.2), steps=100, step=0.1 if "steps" in attack.model_fields else 1.0)
    found = plane.margin(a(plane, x, y, seeded(0)), y)
    assert (found < plane.margin(x, y)).all()
    if "steps" not in attack.model_fields:
        return  # one step of a new attack need not be optimal in the box
    for seed in range(200):
        delta = 5 * torch.randn(x.shape, generator=seeded(seed))
        rival = (x + a.threat.project(delta)).clamp(0, 1)
        assert (plane.margin(rival, y) >= found - 1e-5).all()


@ours
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_a_targeted_attack_descends_to_its_target(attack: type, ball: type, loss: str) -> None:
    plane, x, y = plane_problem()
    a = make(attack, ball, targeted=True, start="none", loss=loss, steps=1, step=0.05)
    b = make(attack, ball, targeted=False, start="none", loss=loss, steps=1, step=0.05)
    torch.testing.assert_close(a(plane, x, 1 - y), b(plane, x, y))  # two classes: the same question
    torch.testing.assert_close(
        a.but(box=None)(plane, x, y) - x, x - b.but(box=None)(plane, x, y), atol=1e-6, rtol=0
    )
    margins = [plane.margin(x, y)]
    for _ in range(6):
        x = a(plane, x, y)
        margins.append(plane.margin(x, y))
    assert (torch.stack(margins).diff(dim=0) > 0).all()


@ours
def test_the_loss_rises_on_a_net_and_falls_towards_a_target(attack: type, ball: type, trained: Any) -> None:
    net, x, y = trained
    other = (y + 1) % 3

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(net(x), y, reduction="none").detach()

    options = {"start": "none", "step": 0.1, "steps": 5}
    rise = loss(make(attack, ball(eps=0.05), **options)(net, x, y), y) - loss(x, y)
    assert (rise > 0).double().mean() > 0.95
    fall = loss(make(attack, ball(eps=0.05), targeted=True, **options)(net, x, other), other) - loss(x, other)
    assert (fall < 0).double().mean() > 0.95


def test_targeted_best_keeps_what_hits_the_target(trained: Any) -> None:
    net, x, y = trained
    target = (y + 1) % 3
    attack = PGD(threat=Linf(eps=0.08), steps=4, restarts=2, keep="best", targeted=True)
    found = attack.search(net, x, target, seeded(0))
    assert found.wrong is not None
    assert torch.equal(found.wrong, predicted(net, found.x_adv) == target)
    assert 0.05 < float(found.wrong.double().mean()) < 1


@pytest.mark.parametrize("eps", [8 / 255, 0.3])
def test_fgsm_rs_stays_in_the_ball_and_is_pgd_1(eps: float) -> None:
    plane, x, y = plane_problem()
    wong = FGSM(threat=Linf(eps=eps), start="uniform", step=1.25)
    x_adv = wong(plane, x, y, seeded(0))
    assert float((x_adv - x).abs().max()) <= eps + 1e-6
    one = PGD(threat=Linf(eps=eps), start="uniform", step=1.25, steps=1)
    assert torch.equal(x_adv, one(plane, x, y, seeded(0)))
    assert wong.as_pgd() == one
    start = (x + one.threat.sample(x, "uniform", seeded(0))).clamp(0, 1) - x
    up = -torch.where(y == 1, 1.0, -1.0)[:, None] * plane.w.sign()
    literal = (x + (start + 1.25 * eps * up).clamp(-eps, eps)).clamp(0, 1).float()
    torch.testing.assert_close(x_adv, literal)
    assert float(((x_adv - x).abs() < 0.9 * eps).double().mean()) > 0.01  # not every pixel is at the border


# --- the literal twin


def two_layers(d: int = 6, hidden: int = 5, k: int = 4) -> tuple[nn.Module, reference.TwoLayers]:
    g = seeded(21)
    U, V = (1.2 * torch.randn(s, generator=g, dtype=torch.float64) for s in ((hidden, d), (k, hidden)))
    a, b = (0.3 * torch.randn(s, generator=g, dtype=torch.float64) for s in (hidden, k))
    model = nn.Sequential(nn.Flatten(), nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, k)).double()
    with torch.no_grad():
        for p, value in zip(model.parameters(), (U, a - U.sum(dim=1) / 2, V, b), strict=True):
            p.copy_(value)
    return model, reference.TwoLayers(U.tolist(), (a - U.sum(dim=1) / 2).tolist(), V.tolist(), b.tolist())


SOFT = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.3, 0.2, 0.4], [0.0, 1.0, 0.0, 0.0]])
CLASSES = torch.tensor([0, 2, 3, 1])


@pytest.mark.parametrize("ball", [Linf, L2], ids=settings.kind_of)
@pytest.mark.parametrize(("restarts", "keep"), [(1, "last"), (1, "best"), (3, "last"), (3, "best")])
@pytest.mark.parametrize(
    ("loss", "targeted"), [("ce", False), ("ce", True), ("margin", False), ("margin", True), ("kl", False)]
)
@pytest.mark.parametrize("labels", [CLASSES, SOFT], ids=["hard", "soft"])
def test_pgd_is_its_literal_twin(
    ball: type, restarts: int, keep: str, loss: str, targeted: bool, labels: Tensor
) -> None:
    model, net = two_layers()
    threat = ball(eps=0.5 if ball is Linf else 0.9)
    for box in ((0.0, 1.0), None):
        choices = {"steps": 6, "loss": loss, "targeted": targeted, "keep": keep, "box": box}
        attack = PGD(threat=threat, restarts=restarts, step=0.7, **choices)
        x, g = torch.rand(4, 1, 2, 3, generator=seeded(5)), seeded(2)
        found = attack.search(model, x, labels, seeded(2))
        starts = torch.stack([threat.sample(x, threat.starts[0], g).flatten(1) for _ in range(restarts)])
        for i in range(4):
            twin = reference.Search(
                net,
                threat.kind,
                threat.eps,
                0.7 * threat.eps,
                starts=starts[:, i].double().numpy(),
                **choices,
            )
            y = labels[i].tolist()
            expected = torch.from_numpy(twin(x[i].flatten().double().numpy(), y))
            torch.testing.assert_close(found.x_adv[i].flatten().double(), expected, rtol=0, atol=1e-5)
            if found.wrong is not None:
                assert bool(found.wrong[i]) == twin.wrong(expected.numpy(), y)
        assert (found.wrong is None) == (restarts == 1 and keep == "last")


def test_the_twins_problem_tells_the_choices_apart() -> None:
    model, _ = two_layers()
    x = torch.rand(4, 1, 2, 3, generator=seeded(5))
    base = PGD(threat=L2(eps=0.9), steps=6, step=0.7)
    seen: list[Tensor] = []
    for change in (
        {}, {"loss": "margin"}, {"loss": "kl"}, {"targeted": True}, {"restarts": 3}, {"keep": "best"},
        {"box": None}, {"steps": 5}, {"step": 0.5}, {"threat": Linf(eps=0.5)}, {"start": "none"},
    ):  # fmt: skip
        x_adv = base.but(**change)(model, x, CLASSES, seeded(2))
        assert not any(torch.allclose(x_adv, other, atol=1e-3) for other in seen), change
        seen.append(x_adv)
    assert not torch.allclose(base(model, x, SOFT, seeded(2)), seen[0], atol=1e-3)


# --- robust accuracy never rises with more effort (T9)


@every_ball
def test_robust_accuracy_falls_with_restarts_steps_and_radius(ball: type, trained: Any) -> None:
    net, x, y = trained
    size = 0.05 if ball is Linf else 0.4
    base = PGD(threat=ball(eps=size), steps=2, step=0.5, keep="last")

    def robust(attack: PGD) -> tuple[float, Tensor]:
        x_adv = attack(net, x, y, seeded(0))
        return accuracy(net, x_adv, y), predicted(net, x_adv) != y

    clean = accuracy(net, x, y)
    assert clean > 0.9
    for changes in (
        [{"restarts": r} for r in (1, 2, 4, 8)],
        [{"keep": "best", "steps": s, "step": 0.8} for s in (0, 1, 2, 5, 10)],
        [{"keep": "best", "restarts": r} for r in (1, 3, 6)],
        [
            {"keep": "best", "steps": 10, "threat": ball.model_construct(eps=size * f)}
            for f in (0, 0.2, 0.5, 1, 2, 4)
        ],
    ):
        seen = [robust(base.but(**c)) for c in changes]
        accuracies = [a for a, _ in seen]
        assert accuracies == sorted(accuracies, reverse=True)
        assert accuracies[0] > accuracies[-1]
        if "threat" not in changes[0]:  # the same stream: what was found stays found
            assert all((after >= before).all() for (_, before), (_, after) in pairwise(seen))


def test_the_worst_restart_is_kept_and_not_the_last(trained: Any) -> None:
    net, x, y = trained
    one, g = PGD(threat=Linf(eps=0.06), steps=1, step=0.5), seeded(0)
    alone = torch.stack([predicted(net, one(net, x, y, g)) != y for _ in range(6)])
    together = one.but(restarts=6).search(net, x, y, seeded(0))
    assert together.wrong is not None
    assert torch.equal(together.wrong, alone.any(dim=0))
    assert torch.equal(predicted(net, together.x_adv) != y, alone.any(dim=0))
    assert int(alone.any(dim=0).sum()) > int(alone[-1].sum())  # so the last alone would have been fewer


@every_ball
def test_an_undefended_net_has_no_accuracy_in_a_ball_of_the_whole_range(ball: type, trained: Any) -> None:
    net, x, y = trained
    whole = ball.model_construct(eps=1.0 if ball is Linf else 10.0)
    assert accuracy(net, PGD(threat=whole, steps=20, step=0.1, keep="best")(net, x, y, seeded(0)), y) == 0
    assert accuracy(net, PGD(threat=ball(eps=0))(net, x, y), y) == accuracy(net, x, y)


def test_what_a_search_reports_is_what_a_float32_evaluation_sees(trained: Any) -> None:
    net, x, y = trained
    for attack in (PGD(threat=Linf(eps=0.05), keep="best"), PGD(threat=L2(eps=0.4), restarts=3, steps=3)):
        found = attack.search(net, x, y, seeded(0))
        assert found.wrong is not None
        assert torch.equal(found.wrong, predicted(net, found.x_adv) != y)
        assert torch.equal(found.x_adv, attack(net, x, y, seeded(0)))
        assert (found.dead == 0).all()
    assert PGD().search(net, x, y).wrong is None


def test_kl_ignores_the_labels(trained: Any) -> None:
    net, x, y = trained
    attack = PGD(threat=Linf(eps=0.05), loss="kl", start="gauss", steps=5)
    assert torch.equal(attack(net, x, y, seeded(0)), attack(net, x, (y + 1) % 3, seeded(0)))
    moved = (attack(net, x, y, seeded(0)) - x).abs().amax(dim=(1, 2, 3))
    assert (moved > 0.04).all()


# --- settings


def test_settings_that_make_no_sense_are_refused_in_one_sentence() -> None:
    for cls, given, said in (
        (PGD, {"start": "ball"}, "start 'ball' is not for linf; known: uniform, gauss, none"),
        (FGSM, {"threat": {"kind": "l2"}, "start": "uniform"}, "start 'uniform' is not for l2; known:"),
        (PGD, {"loss": "kl", "targeted": True}, "no target"),
        (PGD, {"steps": -1}, "steps"),
        (PGD, {"restarts": 0}, "restarts"),
        (PGD, {"step": 0}, "step"),
        (FGSM, {"loss": "kl"}, "loss"),
        (PGD, {"bn": "off"}, "bn"),
    ):
        with pytest.raises(UserError) as caught:
            settings.validated(cls, given)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@every
def test_an_attack_says_its_conditions(attack: type, ball: type) -> None:
    text = str(make(attack, ball(eps=8 / 255), targeted=True, bn="train", precision="bf16", box=None))
    for part in ("8/255", *(() if attack in FOREIGN else ("targeted", "bn train", "bf16", "no box"))):
        assert part in text
