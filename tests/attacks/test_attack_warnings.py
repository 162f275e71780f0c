"""Settings of attacks that mean something else than they seem: a sentence, a refusal, or nothing."""

import warnings
from inspect import unwrap

import pytest
import torch
from torch import Tensor

from crossclass.attacks import FGSM, PGD, Attack, AttackWarning, AutoAttack, External, reference_attack
from crossclass.attacks.attack_warnings import attack_warnings
from crossclass.attacks.base import skip_range_check
from crossclass.attacks.norms import L2, Linf
from crossclass.core.errors import UserError
from crossclass.training.recipes import AT

COLOUR, GRAY = (3, 32, 32), (1, 28, 28)
Y = torch.arange(4)
IMAGES = torch.full((4, 1, 2, 2), 0.3)
IMAGES.flatten(1)[Y, Y] = 0.7


def net(x: Tensor) -> Tensor:
    """Says which of four pixels is the brightest."""
    return x.flatten(1)


def said(attack, shape=COLOUR, evaluation=True) -> list[str]:
    return attack_warnings(attack, shape, evaluation=evaluation)


@pytest.mark.parametrize(
    "attack",
    [
        reference_attack(Linf()),
        reference_attack(L2(eps=0.5)),
        PGD(steps=10, step_size=2 / 255),
        PGD(threat=L2(eps=0.5), steps=10, rel_step=0.2),
        PGD(threat=Linf(eps=16 / 255), steps=8, rel_step=0.25),
        PGD(steps=4, rel_step=0.25, start="none"),
        PGD(restarts=5),
        FGSM(),
        AutoAttack(),
        External(call="a:b"),
    ],
    ids=str,
)
def test_usual_attacks_are_not_warned_of(attack):
    assert said(attack) == []


@pytest.mark.parametrize(
    ("attack", "word"),
    [
        (PGD(steps=20, rel_step=2 / 255), "attack.step_size=0.00784314"),
        (PGD(steps=20, step_size=0.25 / 255), "attack.steps=64"),
        (PGD(steps=2), "attack.steps=8"),
        (PGD(steps=3, start="none"), "attack.steps=4"),
        (FGSM(rel_step=0.5), "attack.kind=pgd attack.steps=2"),
        (PGD(steps=0), "random noise"),
        (PGD(rel_step=3), "step_size=3/255"),
        (PGD(step_size=0.5), "longer than the ball"),
        (PGD(restarts=5, start="none"), "restarts=5"),
        (PGD(threat=Linf(eps=0)), "eps=0"),
        (PGD(threat=Linf(eps=0.3)), "usual for colour"),
        (PGD(threat=Linf(eps=128 / 255)), "gray picture"),
        (PGD(threat=Linf(eps=8 / 255 / 255)), "too small"),
        (PGD(threat=L2(eps=8 / 255)), "too small"),
        (PGD(threat=L2(eps=30)), "gray picture"),
        (AutoAttack(threat=L2(eps=8 / 255)), "too small"),
        (External(call="a:b", threat=Linf(eps=0.5)), "gray picture"),
    ],
    ids=str,
)
@pytest.mark.parametrize("evaluation", [True, False])
def test_what_means_something_else_is_one_sentence(attack, word, evaluation):
    (sentence,) = said(attack, evaluation=evaluation)
    assert word in sentence
    assert sentence.isprintable()


@pytest.mark.parametrize(
    "attack", [PGD(steps=7), FGSM(start="uniform", rel_step=1.25), PGD(steps=20, rel_step=0.05)]
)
def test_a_way_that_reaches_the_edge_but_not_the_far_side_is_said_of_evaluations_only(attack):
    assert len(said(attack)) == 1
    assert said(attack, evaluation=False) == []


def test_a_large_radius_is_usual_for_gray_pictures():
    assert said(PGD(threat=Linf(eps=0.3)), GRAY) == []
    assert len(said(PGD(threat=Linf(eps=0.5)), GRAY)) == 1


@pytest.mark.parametrize("evaluation", [True, False])
@pytest.mark.parametrize(
    "attack",
    [PGD(steps=0, start="none"), PGD(targeted=True), FGSM(targeted=True), PGD(loss="kl", start="none")],
    ids=str,
)
def test_attacks_that_cannot_attack_are_refused(attack, evaluation):
    with pytest.raises(UserError, match=r"attack\."):
        said(attack, evaluation=evaluation)


def test_steps_from_where_images_are_go_on(monkeypatch):
    """`further` is the second half of twice the steps, image by image, in the ball and the box."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3)
    )
    x, y = torch.rand(6, 3, 2, 2), torch.arange(6) % 3
    for threat in (Linf(eps=0.1), L2(eps=0.3)):
        half = PGD(threat=threat, steps=4, rel_step=0.1)
        once = half(net, x, y, torch.Generator().manual_seed(1))
        whole = half.replace(steps=8)(net, x, y, torch.Generator().manual_seed(1))
        torch.testing.assert_close(half.further(net, x, y, once), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("attack", "word"),
    [
        (PGD(loss="kl", start="gauss"), "attack.loss=kl"),
        (PGD(bn="train"), "attack.bn=train"),
        (PGD(threat=Linf(eps=1.0), box=None), "attack.box=null"),
    ],
)
def test_training_attacks_are_no_measurement(attack, word):
    (sentence,) = attack_warnings(attack, (3, 8, 8), evaluation=True)
    assert word in sentence
    assert sentence.isprintable()
    assert attack_warnings(attack, (3, 8, 8), evaluation=False) == []


def called(attack: Attack, y: Tensor = Y) -> list[str]:
    """What a call in the library warns of, on four images that the network below gives class 0 to 3."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call = unwrap(Attack.__call__)  # shape checks are callers of their own
        call(attack, net, IMAGES, y, torch.Generator().manual_seed(0))
    assert all(w.category is AttackWarning and w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("attack", "word"),
    [
        (PGD(steps=20, rel_step=2 / 255), "rel_step"),
        (PGD(steps=20, step_size=1.0), "longer than the ball"),
        (PGD(steps=0), "random noise"),
        (PGD(threat=Linf(eps=0.0)), "eps=0"),
        (PGD(targeted=True), "targeted=True"),
        (FGSM(targeted=True), "targeted=True"),
    ],
    ids=str,
)
def test_a_call_in_the_library_warns_at_the_line_of_the_caller(attack: Attack, word: str) -> None:
    (text,) = called(attack)
    assert word in text


@pytest.mark.parametrize("attack", [PGD(), FGSM(), PGD(steps=1, rel_step=1.25), PGD(steps=20, rel_step=0.1)])
def test_usual_calls_warn_of_nothing(attack: Attack) -> None:
    assert called(attack) == []


def test_targets_that_are_not_what_the_network_says_warn_of_nothing() -> None:
    assert called(PGD(targeted=True), (Y + 1) % 4) == []


def test_what_has_no_box_and_our_own_loops_warn_of_nothing() -> None:
    odd = PGD(steps=1, rel_step=0.01, start="none")
    assert len(called(odd)) == 1
    assert called(odd.replace(box=None)) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AT(attack=odd).craft(net, IMAGES, Y)
        with skip_range_check():
            odd(net, IMAGES, Y)
        odd.search(net, IMAGES, Y)


def test_a_call_that_can_change_no_image_or_fits_no_network_is_refused() -> None:
    with pytest.raises(UserError, match="changes no image"):
        PGD(steps=0, start="none")(net, IMAGES, Y)
    for loss in ("ce", "margin"):
        with pytest.raises(UserError, match="labels reach from 3 to 6"):
            PGD(loss=loss)(net, IMAGES, Y + 3)
    with pytest.raises(UserError, match="a label is -100"):
        PGD()(net, IMAGES, torch.full((4,), -100))
    spoiled = IMAGES.clone()
    spoiled[1, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="1 of 4 images hold NaN"):
        PGD()(net, spoiled, Y)
