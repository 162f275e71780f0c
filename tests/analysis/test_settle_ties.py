"""Ways to feed a network that clean images cannot tell apart: what is taken, said, or left to the user."""

import pytest
import torch
from torch import Tensor

from crossclass.core.errors import UserError
from crossclass.data import Splits
from pattern_network import PatternNetwork, pattern_splits
from settling import BYTES, buffers, said, settled, two_ranges


@pytest.fixture(scope="module")
def data() -> Splits:
    """Five classes; the network is right on 89 % of the images."""
    return pattern_splits()


def test_two_equally_good_ways_with_other_results_are_for_the_user(data):
    net = two_ranges(PatternNetwork(), lambda x: ((x * 60).round() / 60).detach())
    buffers(net, BYTES)
    with pytest.raises(UserError, match=r"model\.normalise=none or model\.normalise=\{mean: \[0\.5\]"):
        settled(net, data)


def test_two_equally_good_ways_with_the_same_result_are_no_reason_to_refuse(data):
    right = said(PatternNetwork(), data)
    net = two_ranges(PatternNetwork(), lambda x: x)
    buffers(net, BYTES)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert out.check.taken in ("none", "half")


def test_images_in_bytes_that_are_as_good_are_said_and_not_taken(data):
    def inside(x: Tensor) -> Tensor:
        """A network that scales with its inputs, nearly."""
        wide = (x > 1.5).flatten(1).any(dim=1)[:, None, None, None]
        return torch.where(wide, ((x / 255 * 60).round() / 60).detach(), x)

    net = PatternNetwork()
    net.inside = inside
    out = settled(net, data)
    assert out.check.taken == "none"
    (line,) = out.warnings
    assert "images in 0..255" in line
    assert "model.normalise=" in line
