"""Networks of convolutions alone return logits [n, K, 1, 1]: read as [n, K]; maps of logits are refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import crossclass as cc
from conftest import seeded
from crossclass.core.errors import UserError

K, D = 4, 9


class Convolutional(nn.Module):
    """Pools before the last convolution, or not at all."""

    def __init__(self, pools: bool = True) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, D, 3, 2, 1), nn.Conv2d(D, K, 1)
        self.pools = pools

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return F.adaptive_avg_pool2d(x, 1) if self.pools else x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class WithFeatures(Convolutional):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        g = self.features(x)
        return g, self.head(g)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(32, 3, 8, 8, generator=seeded(0))


def wrapped(net: nn.Module) -> cc.Wrapped:
    return cc.Wrapped(net, K, 3, (0.5,), (0.25,), 8).eval()


@pytest.mark.parametrize("kind", [Convolutional, WithFeatures])
def test_the_head_is_the_convolution_and_features_are_pooled(kind, images):
    net = kind().eval()
    model = wrapped(net)
    model.choose_head(images)
    with torch.no_grad():
        g, logits = model.outputs(images)
        assert g.shape == (32, D)
        assert torch.equal(g, net.features((images - 0.5) / 0.25).flatten(1))
        assert torch.allclose(F.linear(g, net.head.weight.flatten(1), net.head.bias), logits, atol=1e-6)
        assert torch.equal(model(images), logits)
        assert torch.allclose(model.head(g), logits, atol=1e-6)
    assert model.head_warnings == ()


def test_an_attack_on_them_is_the_attack_on_flat_logits(images):
    net, y = Convolutional().eval(), torch.arange(32) % K
    attack = cc.PGD(steps=2)
    there = [attack(f, images, y, seeded(1)) for f in (net, nn.Sequential(net, nn.Flatten()).eval())]
    assert torch.equal(*there)


def test_maps_of_logits_are_refused_with_what_to_do(images):
    for use in (wrapped, lambda net: cc.PGD(steps=1)(net, images, torch.arange(32) % K)):
        with pytest.raises(UserError, match=r"\[\d+, 4, 4, 4\] .*mean over the positions"):
            use(Convolutional(pools=False).eval())
