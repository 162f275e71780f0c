"""`return_iterate=first` leaves out work and nothing else: what `best` finds wrong, it finds wrong."""

import pytest
import torch
from torch import Tensor, nn

from crossclass.attacks import PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.core.config import validated
from crossclass.core.errors import UserError

X = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Counting(nn.Module):
    """A small network that counts the images it has seen."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 4))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.net(x)


def labels(net: nn.Module) -> Tensor:
    """The network's own answers, so that all is right at the start, but for five."""
    with torch.no_grad():
        y = net(X).argmax(dim=1)
    y[:5] = (y[:5] + 1) % 4
    return y


@pytest.mark.parametrize("threat", [Linf(eps=0.06), L2(eps=0.25)], ids=["linf", "l2"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"restarts": 3},
        {"loss": "margin"},
        {"loss": "kl", "start": "gauss"},
        {"targeted": True},
        {"steps": 0},
    ],
    ids=str,
)
def test_it_finds_wrong_what_best_finds_wrong(threat, change):
    net = Counting().eval()
    y = labels(net)
    best = PGD(threat=threat, steps=6, rel_step=0.3, return_iterate="best").replace(**change)
    expected = best.search(net, X, y, torch.Generator().manual_seed(2))
    most, net.seen = net.seen, 0
    found = best.replace(return_iterate="first").search(net, X, y, torch.Generator().manual_seed(2))
    assert torch.equal(found.success, expected.success)
    assert 0 < int(found.success.sum()) < len(X) or best.targeted or best.steps == 0
    with torch.no_grad():
        hit = net(found.x_adv).argmax(dim=1) == y
    assert torch.equal(hit if best.targeted else ~hit, found.success)
    assert (threat.norm(found.x_adv - X) <= threat.eps + 1e-6).all()
    assert net.seen < most or best.steps == 0  # and sees fewer images on the way


def test_what_was_wrong_before_costs_one_forward_pass():
    net = Counting().eval()
    y = (net(X).argmax(dim=1) + 1) % 4
    net.seen = 0
    found = PGD(threat=Linf(eps=0.0), steps=10, restarts=3, return_iterate="first").search(net, X, y)
    assert net.seen == len(X)
    assert found.success.all()
    assert torch.equal(found.x_adv, X)


def test_steps_without_a_gradient_are_counted_for_those_that_take_them():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.copy_(torch.tensor([1.0, 0, 0, 0]))
    y = torch.zeros(len(X), dtype=torch.long)
    y[:3] = 1
    found = PGD(steps=4, restarts=2, return_iterate="first").search(net, X, y)
    assert found.dead_gradients.tolist() == [0] * 3 + [8] * 37


def test_batch_statistics_would_see_the_others_leave():
    for bn in ("train", "train_frozen_stats"):
        with pytest.raises(UserError, match="bn=eval"):
            validated(PGD, {"return_iterate": "first", "bn": bn})
    assert "stopped at the first success" in str(PGD(return_iterate="first"))
