"""Settings of attacks that mean something else than they seem: a sentence, a refusal, or nothing."""

import pytest
import torch

from crossclass.attacks import FGSM, PGD, AutoAttack, External, reference_attack
from crossclass.attacks.attack_warnings import attack_warnings
from crossclass.attacks.norms import L2, Linf
from crossclass.core.errors import UserError

COLOUR, GRAY = (3, 32, 32), (1, 28, 28)


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
        (PGD(steps=20, rel_step=2 / 255), "step_size=0.00784314"),
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
