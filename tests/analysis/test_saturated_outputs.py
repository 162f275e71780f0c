"""A network whose outputs saturate: the loss of the attack vanishes, and robust accuracy is overstated."""

import re
import warnings

import pytest
import torch
from torch import nn

import crossclass as cc
from conftest import seeded
from crossclass.analysis.attack_strength import strength_warnings
from crossclass.attacks import AttackWarning
from crossclass.data import Split

BALL = cc.Linf(eps=0.1)


class Saturated(nn.Module):
    """A trained network of which only the outputs are changed; its predictions stay."""

    def __init__(self, net: nn.Module, how: str) -> None:
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x):
        z = self.net(x)
        return 1e4 * z if self.how == "scaled" else 10 * (50 * z).tanh()


def robust(net: nn.Module, attack: cc.Attack, x: torch.Tensor, y: torch.Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)
        return float((net(attack(net, x, y, seeded(0))).argmax(dim=1) == y).float().mean())


def measured(net: nn.Module, attack: cc.Attack, x: torch.Tensor, y: torch.Tensor) -> list[str]:
    return strength_warnings(net, Split((255 * x).round().byte(), y), attack, 0)


def test_cross_entropy_of_scaled_logits_overstates_and_the_margin_does_not(trained):
    net, x, y = trained
    true = robust(net, cc.PGD(threat=BALL, steps=20), x, y)
    scaled = Saturated(net, "scaled")
    assert robust(scaled, cc.PGD(threat=BALL, steps=20), x, y) > true + 0.2
    assert robust(scaled, cc.PGD(threat=BALL, steps=20, loss="margin"), x, y) <= true + 0.02
    (sentence,) = measured(scaled, cc.PGD(threat=BALL, steps=20), x, y)
    assert "gradient is zero" in sentence
    assert "attack.loss=margin breaks" in sentence
    assert sentence.isprintable()
    broken, unused = map(int, re.findall(r"breaks (\d+) of these (\d+)", sentence)[0])
    assert 2 <= broken <= unused
    assert measured(scaled, cc.PGD(threat=BALL, steps=20, loss="margin"), x, y) == []


def test_where_the_margin_vanishes_too_another_attack_is_named(trained):
    net, x, y = trained
    flat = Saturated(net, "tanh")
    for loss in ("ce", "margin"):
        attack = cc.PGD(threat=BALL, steps=20, loss=loss)
        assert robust(flat, attack, x, y) > robust(net, attack, x, y) + 0.2
        assert any("autoattack" in sentence for sentence in measured(flat, attack, x, y))


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.3])
def test_nothing_is_said_of_a_usual_network(trained, eps):
    net, x, y = trained
    for loss in ("ce", "margin"):
        assert measured(net, cc.PGD(threat=cc.Linf(eps=eps), steps=20, loss=loss), x, y) == []
