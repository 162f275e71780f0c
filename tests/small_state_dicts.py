"""Small networks, and whether a file's weights came into them."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import seeded
from crossclass.checkpoints import match_state_dict as matching
from crossclass.core.errors import UserError
from published_networks import (
    Shapes,
    norm,
)

MU, SIGMA = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])
Weights = dict[str, Tensor]


def filled(shapes: Shapes, seed: int = 0) -> Weights:
    """Random values, positive variances; what torch counts is an integer."""
    g = seeded(seed)
    tensors = {name: torch.rand(shape, generator=g) + 0.1 for name, shape in shapes.items()}
    return {n: torch.tensor(seed + 7) if n.endswith("tracked") else t for n, t in tensors.items()}


def under(prefix: str, tensors: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in tensors.items()}


# ---- The files, and the networks they belong into. ----


def holds(net: nn.Module, tensors: Weights) -> bool:
    """Whether every tensor of the net (but its normalisation) is the file's, whatever the head is called."""
    file = {re.sub(r"^(linear|fc)\.", "head.", name): tensor for name, tensor in tensors.items()}
    return all(torch.equal(t, file[n]) for n, t in net.state_dict().items() if n not in ("mean", "std"))


class Net(nn.Module):
    """Convolution, batch norm, head."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, classes)


class Normalised(nn.Module):
    """A net behind a normalisation of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3).view(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(3).view(1, 3, 1, 1))
        self.anything = net


def small(seed: int = 0, classes: int = 3) -> Weights:
    shapes = {"conv.weight": (2, 3, 3, 3), "conv.bias": (2,), **norm("bn", 2)}
    return filled({**shapes, "fc.weight": (classes, 2), "fc.bias": (classes,)}, seed)


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def refused(net: nn.Module, tree: dict[str, Any], closest: str = "", allow_partial: bool = False) -> str:
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UserError) as e:
        matching.load(net, tree, where="some/file.pt", closest=closest, allow_partial=allow_partial)
    assert same(before, dict(net.state_dict()))
    return str(e.value)
