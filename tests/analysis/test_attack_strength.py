"""A weak attack is noticed, a strong one is not: planes, whose losses are known, and a curved network."""

import pytest
import torch
from torch import nn

from crossclass.analysis.attack_strength import sample_size, strength_warnings
from crossclass.attacks import FGSM, PGD, AutoAttack
from crossclass.attacks.norms import L2, Linf
from crossclass.data import Split


def part(n: int = 400) -> Split:
    g = torch.Generator().manual_seed(0)
    return Split(torch.randint(60, 196, (n, 3, 4, 4), generator=g).byte(), torch.arange(n) % 2)


class Sided(nn.Module):
    """Two classes told apart by one line, at the same distance from every image; the loss is convex in x."""

    def __init__(self, split: Split, margin: float) -> None:
        super().__init__()
        self.w = torch.ones(48) / 48
        x = split.images.float().flatten(1) / 255
        self.x, self.side, self.margin = x, 2.0 * split.labels - 1, margin

    def forward(self, x):
        flat = x.flatten(1)
        own = torch.cdist(flat.detach(), self.x).argmin(dim=1)  # the image that x was made from
        z = self.side[own] * (self.margin + self.side[own] * ((flat - self.x[own]) @ self.w))
        return torch.stack([-z, z], dim=1) * 20


WEAK = [
    PGD(steps=2),
    PGD(steps=20, rel_step=2 / 255),
    PGD(steps=20, step_size=0.2 / 255),
    PGD(steps=1),
    FGSM(rel_step=0.3),
    PGD(threat=L2(eps=0.2), steps=5, rel_step=0.05),
]
STRONG = [PGD(steps=20), PGD(steps=10), FGSM(), PGD(threat=L2(eps=0.2), steps=20, rel_step=0.125)]


@pytest.mark.parametrize("attack", WEAK, ids=str)
@pytest.mark.parametrize("margin", [0.02, 0.1])
def test_a_weak_attack_is_said(attack, margin):
    """At margin .02 more steps break images, at margin .1 none: then the rising loss alone tells."""
    split = part()
    (sentence,) = strength_warnings(Sided(split, margin), split, attack, 0)
    assert ("10 more steps" if attack.steps < 5 else f"{2 * attack.steps} steps") in sentence


@pytest.mark.parametrize("attack", STRONG, ids=str)
@pytest.mark.parametrize("margin", [0.02, 0.1])
def test_a_strong_attack_is_not(attack, margin):
    split = part()
    assert strength_warnings(Sided(split, margin), split, attack, 0) == []


def test_nothing_is_said_where_nothing_is_known():
    split = part()
    net = Sided(split, 1.0)
    for attack in (None, AutoAttack(), PGD(threat=Linf(eps=0), steps=2), PGD(steps=0)):
        assert strength_warnings(net, split, attack, 0) == []


def test_images_that_are_lost_already_need_no_more_steps():
    split = part()
    assert strength_warnings(Sided(split, -1.0), split, PGD(steps=1), 0) == []


def test_the_sample_is_a_small_share_and_the_model_and_streams_stay():
    assert [sample_size(n) for n in (9, 99, 400, 1000, 2000, 10_000)] == [9, 25, 25, 25, 50, 100]
    split = part()
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 2)).train()
    before = torch.get_rng_state()
    strength_warnings(net, split, PGD(steps=2), 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert net.training
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("n", [12, 99])
def test_few_images_are_checked_too(n):
    split = part().first(n)
    assert len(strength_warnings(Sided(split, 0.1), split, PGD(steps=2), 0)) == 1
