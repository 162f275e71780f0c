"""What is wrong with a network itself is said before it is measured; a sound one is left as it was."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from conftest import seeded
from crossclass.analysis.network_faults import (
    network_warnings,
    predictions_by_batch_statistics,
    statistics_gap,
)
from crossclass.data import Splits, as_float
from faulty_networks import Small


class Stubborn(nn.Dropout):
    def train(self, mode: bool = True) -> "Stubborn":
        self.training = True
        return self


def stale(net: Small) -> None:
    net.bn.running_mean.copy_(3 * torch.randn(8, generator=seeded(5)))


def noisy(net: Small) -> None:
    net.before = lambda x: x + 0.1 * torch.randn_like(x)


def stuck(net: Small) -> None:
    net.drop = Stubborn(0.0)


def images(data: Splits) -> tuple[Tensor, Tensor]:
    return as_float(data.test.images[:200]), data.test.labels[:200]


@pytest.mark.parametrize(
    ("fault", "said"), [(stale, "batch norm"), (noisy, "second time"), (stuck, "train mode")]
)
def test_a_fault_is_one_sentence(
    fault: Callable[[Small], None], said: str, nets: dict[str, Small], data: Splits
):
    net = copy.deepcopy(nets["none"])
    fault(net)
    (line,) = network_warnings(net, *images(data))
    assert said in line


def test_a_sound_network_is_left_alone_and_as_it_was(nets: dict[str, Small], data: Splits):
    for name in ("none", "imagenet", "robust"):
        net = copy.deepcopy(nets[name]).train()
        assert network_warnings(net, *images(data)) == []
        assert net.bn.training
        assert net.bn.track_running_stats
        assert all(torch.equal(a, nets[name].state_dict()[k]) for k, a in net.state_dict().items())


def test_batch_statistics_are_those_of_equal_pieces(nets: dict[str, Small], data: Splits):
    net, (x, _) = copy.deepcopy(nets["none"]), images(data)
    said = predictions_by_batch_statistics(net, x, 150)
    net.bn.train()
    with torch.no_grad():
        assert torch.equal(said, torch.cat([net(x[:100]).argmax(1), net(x[100:]).argmax(1)]))


def test_the_gap_of_statistics_is_that_of_the_means(nets: dict[str, Small], data: Splits):
    x, _ = images(data)
    net = copy.deepcopy(nets["none"])
    assert statistics_gap(net, x) < 0.2
    seen = net.conv(net.normalise(x)).mean(dim=(0, 2, 3)).detach()
    net.bn.running_mean.copy_(seen + 2 * (net.bn.running_var + net.bn.eps).sqrt())
    assert statistics_gap(net, x) == pytest.approx(2, rel=1e-3)
    assert net.bn._forward_pre_hooks == {}
