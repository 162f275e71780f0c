"""Attacks: contracts that every attack in every ball keeps about what it returns.

The contracts are read off the unions, so that a new attack or ball is held to them unasked.
"""

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from attack_cases import (
    FOREIGN,
    OURS,
    Y,
    every,
    every_loss,
    given_starts,
    make,
    ours,
    predicted,
    starts_of,
    steps_of,
)
from conftest import Plane, pictures, seeded, tiny_net
from crossclass.attacks import FGSM, PGD, validate_images
from crossclass.core import config
from crossclass.core.errors import UserError

pytestmark = pytest.mark.usefixtures("trusted")

# --- contract: ball and box (T5, T21)


DTYPES = torch.float32, torch.bfloat16, torch.float16, torch.float64


@every
@pytest.mark.parametrize("eps", [0.0, 1e-9, 8 / 255, 1.0, 10.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_images_stay_in_the_ball_and_the_box(attack: type, ball: type, eps: float, dtype: Any) -> None:
    model, threat, images = tiny_net(), ball.model_construct(eps=eps), pictures(5).to(dtype)
    clean, kept = images.float(), images.clone()
    for start in starts_of(attack, threat):
        for step, box in ((0.25, (0.0, 1.0)), (3.0, None)):
            a = make(attack, threat, start=start, rel_step=step, box=box, steps=2)
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
    assert not torch.equal(a(tiny_net(), x, Y), a.replace(precision="fp32")(tiny_net(), x, Y))


@every
def test_rounding_outside_the_box_is_clipped_and_more_is_refused(attack: type, ball: type) -> None:
    model, a = tiny_net(), make(attack, ball)
    x = pictures(5)
    x[0, 0, 0, 0], x[1, 1, 1, 1] = -3e-8, 1 + 1.2e-7
    x_adv = a(model, x, Y, seeded(0))
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert torch.equal(x_adv, a(model, x.clamp(0, 1), Y, seeded(0)))
    for value in (-2e-6, 1 + 3e-6, 2.64, math.inf):
        bad = pictures(5)
        bad[2, 0, 0, 0] = value
        with pytest.raises(UserError, match=r"images must be in \[0, 1\], found .*normalisation") as caught:
            a(model, bad, Y)
        assert "\n" not in str(caught.value)
    if "box" in attack.model_fields:
        assert make(attack, ball, box=None)(model, 3 * pictures(5) - 1, Y).min() < 0


def test_a_refusal_names_the_box_and_the_range_that_was_found() -> None:
    with pytest.raises(UserError, match=r"in \[-1, 1\], found \[-2\.12, 2\.64\]"):
        validate_images(torch.tensor([[-2.12, 2.64]]), (-1.0, 1.0))
    assert validate_images(torch.tensor([[0.5, math.nan]]), (0.0, 1.0))[0, 0] == 0.5
    assert validate_images(torch.tensor([[-5.0]]), None) == -5


# --- contract: what a sample's result depends on (T7), and what it does not


@pytest.mark.parametrize(
    ("attack", "ball", "loss"),
    [(a, t, loss) for a, t in OURS.values() for loss in get_args(a.model_fields["loss"].annotation)],
)
def test_a_sample_does_not_depend_on_its_batch(attack: type, ball: type, loss: str) -> None:
    model, x, y = tiny_net().double(), pictures(7), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    starts = torch.stack([ball(eps=0.1).sample(x, ball(eps=0.1).starts[0], seeded(s)) for s in range(2)])
    options = {"loss": loss, "restarts": 2, "return_iterate": "best", "start": ball(eps=0.1).starts[0]}

    def craft(rows: list[int], x: Tensor) -> Tensor:
        made = make(attack, given_starts(ball, starts[:, rows], eps=0.1), **options)
        return made.search(model, x[rows], y[rows]).x_adv  # a call refuses NaN

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
    x, model, options = pictures(5), tiny_net(), {"loss": loss, "return_iterate": "best"}
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
    a, model, x = make(attack, ball, loss=loss, return_iterate="best", restarts=2), tiny_net(), pictures(5)
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
        assert found.dead_gradients.shape == (0,)


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
        assert found.dead_gradients.tolist() == expected.tolist()
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
        a = make(attack, ball, start="none", steps=1, rel_step=0.5, loss=loss, box=None)
        found = a.search(plane, x, torch.tensor([1]))
        if found.dead_gradients.any():  # float32 cannot hold the offset of a steep plane; then CE saturates
            assert loss == "ce"
            assert scale > 1e3
            continue
        torch.testing.assert_close(a.threat.norm(found.x_adv - x), torch.tensor([0.05]), rtol=1e-5, atol=0)
        expected = -a.threat.steepest(w[None], 0.05)
        torch.testing.assert_close(found.x_adv - x, expected, rtol=1e-4, atol=1e-7)


def test_a_masked_net_is_reported_as_dead() -> None:
    plane, x = Plane(1e5 * torch.ones(12)), torch.full((4, 12), 0.5)  # CE saturates: the gradient is zero
    y = torch.tensor([1, 1, 1, 0])  # the last one is wrong already, and its gradient lives
    found = PGD(steps=5, start="none").search(plane, x, y)
    assert found.dead_gradients.tolist() == [5, 5, 5, 0]
    found = PGD(steps=5, start="none", loss="margin").search(plane, x, y)
    assert found.dead_gradients.sum() == 0


# --- settings


def test_settings_that_make_no_sense_are_refused_in_one_sentence() -> None:
    for cls, given, said in (
        (PGD, {"start": "ball"}, "start 'ball' is not for linf; known: uniform, gauss, none"),
        (FGSM, {"threat": {"kind": "l2"}, "start": "uniform"}, "start 'uniform' is not for l2; known:"),
        (PGD, {"loss": "kl", "targeted": True}, "no target"),
        (PGD, {"steps": -1}, "steps"),
        (PGD, {"restarts": 0}, "restarts"),
        (PGD, {"rel_step": 0}, "rel_step"),
        (FGSM, {"loss": "kl"}, "loss"),
        (PGD, {"bn": "off"}, "bn"),
    ):
        with pytest.raises(UserError) as caught:
            config.validated(cls, given)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@every
def test_an_attack_says_its_conditions(attack: type, ball: type) -> None:
    text = str(make(attack, ball(eps=8 / 255), targeted=True, bn="train", precision="bf16", box=None))
    for part in ("8/255", *(() if attack in FOREIGN else ("targeted", "bn train", "bf16", "no box"))):
        assert part in text
