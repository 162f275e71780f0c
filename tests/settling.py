"""Networks that a stranger brings without a word on their inputs, and what is settled about them."""

from collections.abc import Callable

import torch
from torch import Tensor

from crossclass.analysis.settle_inputs import Settled, settle
from crossclass.attacks import PGD
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.load import Identity, LoadedCheckpoint
from crossclass.data import Splits
from crossclass.models import Classifier, statistics
from pattern_network import PatternNetwork

IMAGENET = statistics()["imagenet"]


ATTACK = PGD(threat=Linf(eps=0.05), steps=20)


BYTES = ((0.0,), (1 / 255,))


def buffers(net: Classifier, constants: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    net.mean, net.std = (torch.tensor(v).view(1, -1, 1, 1) for v in constants)


def loaded(net: Classifier, data: Splits, by: str = "guess", other_data: bool = True) -> LoadedCheckpoint:
    about = Identity(checkpoint="theirs", data="npz", model="small", normalise={}, source="t.pt", sha256="0")
    return LoadedCheckpoint(net, data, about, (Linf(),), None, by, other_data, "imagenet")


def settled(net: Classifier, data: Splits, by: str = "guess") -> Settled:
    return settle(loaded(net, data, by), "test", [ATTACK], len(data.test))


def said(net: Classifier, data: Splits) -> Tensor:
    with torch.no_grad():
        return net(data.test.images.float() / 255).argmax(dim=1)


def two_ranges(net: PatternNetwork, in_half: Callable[[Tensor], Tensor]) -> PatternNetwork:
    """Takes [0, 1] and, told by a negative pixel, [-1, 1], where it does something of its own."""

    def inside(x: Tensor) -> Tensor:
        negative = (x < 0).flatten(1).any(dim=1)[:, None, None, None]
        return torch.where(negative, in_half((x + 1) / 2), x)

    net.inside = inside
    return net
