"""Networks of others: random small ones with layers that look like heads.

CAS must be that of the layer that is known to give the logits, written out here, or be refused where none
does.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import crossclass as cc
from crossclass.core.errors import UserError

from .door import Door

HEADS = ("linear", "convolution", "functional", "product", "cosine", "two", "views", "weight norm", "frozen")
BEHIND = ("", "divided", "in place", "constants", "batch norm", "log-softmax", "softmax")
NO_HEAD = ("tanh", "of the image", "cube")
DECOYS = ("after", "before", "gate", "behind", "twin", "conv")
RETURNED = ("tensor", "pair", "dictionary", "list")
AROUND = ("", "sequential", "parallel", "inside")


class Network(nn.Module):
    """A body, a head, decoys, and what follows; `known` are the features and weight that give the logits."""

    def __init__(self, luck: random.Random) -> None:
        super().__init__()
        self.k = k = luck.randrange(2, 8)
        self.d = d = luck.choice((k, luck.randrange(6, 14)))
        self.kind, self.returned = luck.choice(HEADS), luck.choice(RETURNED)
        self.behind = luck.choice((*BEHIND, *NO_HEAD))
        self.decoys = luck.sample(DECOYS, luck.randrange(4))
        self.temperature = luck.choice((0.3, 2.0, 7.7))
        self.stem, self.conv = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, d, 3, 2, 1)
        self.after, self.before, self.fc, self.two = (nn.Linear(d, k) for _ in range(4))
        self.squeeze, self.excite, self.top = nn.Linear(d, k), nn.Linear(k, d), nn.Linear(k, k)
        self.cls, self.side = nn.Conv2d(d, k, 1), nn.Conv2d(8, k, 1)
        self.w = nn.Parameter(torch.randn(d, k))
        self.bn, self.constants = nn.BatchNorm1d(k), nn.Parameter(torch.randn(k))
        for p in self.parameters():
            p.data.mul_(2).add_(0.1 * torch.randn_like(p))
        self.bn.weight.data.abs_().add_(0.1)
        self.bn.running_mean.normal_()
        if self.kind == "weight norm":
            self.fc = nn.utils.parametrizations.weight_norm(self.fc)
        if "twin" in self.decoys:
            self.twin = self.fc
        self.known: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    def map(self, x: Tensor) -> Tensor:
        """The last map of the image, gated if there is a gate."""
        early = F.relu(self.stem(x))
        if "conv" in self.decoys:
            self.seen = self.side(early)
        out = F.relu(self.conv(early))
        if "gate" in self.decoys:
            gate = torch.sigmoid(self.excite(F.relu(self.squeeze(out.mean((2, 3))))))
            out = out * gate[:, :, None, None]
        return out

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """W g + b with g and W."""
        maps = self.map(x)
        g = maps.mean((2, 3))
        if self.kind == "convolution":
            return self.cls(maps).mean((2, 3)), g, self.cls.weight.flatten(1)
        if self.kind == "functional":
            return F.linear(g, self.fc.weight, self.fc.bias), g, self.fc.weight
        if self.kind == "product":
            return g @ self.w, g, self.w.T
        if self.kind == "cosine":
            unit, rows = F.normalize(g), F.normalize(self.fc.weight)
            return 8 * F.linear(unit, rows), unit, rows
        if self.kind == "two":
            other = g.square()
            both = torch.cat((self.fc.weight, self.two.weight), dim=1)
            return (self.fc(g) + self.two(other)) / 2, torch.cat((g, other), dim=1), both
        if self.kind == "views":
            flipped = self.map(x.flip(3)).mean((2, 3))
            return (self.fc(g) + self.fc(flipped)) / 2, (g + flipped) / 2, self.fc.weight
        return self.fc(g), g, self.fc.weight

    def forward(self, x: Tensor) -> object:
        if "before" in self.decoys:
            self.seen = self.before(self.map(x).mean((2, 3)))
        z, g, W = self.logits(x)
        if "after" in self.decoys:
            self.seen = self.after(g[:, : self.d])
        if "behind" in self.decoys:
            self.seen = self.top(z)
        if self.behind == "batch norm":
            W = W * (self.bn.weight / (self.bn.running_var + self.bn.eps).sqrt())[:, None]
        self.known = g.clone(), W
        out = {
            "divided": lambda: z / self.temperature,
            "in place": lambda: z.div_(self.temperature),
            "constants": lambda: z * self.temperature + self.constants,
            "batch norm": lambda: self.bn(z),
            "log-softmax": lambda: z.log_softmax(1),
            "softmax": lambda: z.softmax(1),
            "tanh": lambda: (z / z.abs().max().detach() * 3).tanh(),
            "of the image": lambda: z * (1 + g.sum(1, keepdim=True)),
            "cube": lambda: z + z**3 / z.abs().max().detach() ** 2,
        }.get(self.behind, lambda: z)()
        containers = {"pair": (g, out), "dictionary": {"features": g, "logits": out}, "list": [None, out]}
        return containers.get(self.returned, out)


class Inside(nn.Module):
    """As Lightning modules hold a network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> object:
        return self.model(x)


def literal_cas(g: Tensor, W: Tensor, y: Tensor) -> float:
    """Equations 5 to 7."""
    A = torch.stack([(g[y == c] * W[c]).double().mean(dim=0) for c in range(len(W))])
    U = A / A.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return float(((U @ U.T).clamp(min=0) * (1 - torch.eye(len(W)))).sum())


@torch.no_grad()
def enter(place: Path, seed: int) -> object:
    """Wrap a network, and compare CAS with the known layer's."""
    luck = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Network(luck).eval()
        x = torch.rand(48, 3, 12, 12)
    around = luck.choice(AROUND)
    whole = {"sequential": nn.Sequential, "parallel": nn.DataParallel, "inside": Inside}.get(around)
    model = cc.Wrapped(net if whole is None else whole(net), net.k, 3, (0.5,), (0.25,), 12).eval()
    model.choose_head(x)
    y = torch.arange(len(x)) % net.k
    about = f"{net.kind}, {net.behind or 'nothing'} behind, {net.decoys}, {net.returned}, {around}, K={net.k}"
    try:
        features, rows = model.features(x), model.head.weight
    except UserError:
        # a factor for each class of each head, and two heads of so few features that any two would do
        limit = net.kind == "two" and (net.behind == "batch norm" or net.d * net.k < 8)
        assert limit or net.behind in NO_HEAD, f"refused: {about}"
        raise
    with torch.no_grad():
        net(model.normalise(x))
    wanted, measured = literal_cas(*net.known, y), literal_cas(features, rows, y)
    assert abs(wanted - measured) <= 1e-3 * max(1.0, wanted), f"{measured} for {wanted}: {about}"
    if net.behind in ("softmax", "log-softmax"):
        assert model.head_warnings, f"not said: {about}"
    return measured


def seeds(luck: random.Random) -> Iterator[int]:
    """One number for each network."""
    while True:
        yield luck.randrange(2**31)


def heads() -> Door:
    """Heads among layers that look like one."""
    return Door(seeds, enter, share=0.2)


DOORS = {"heads": heads()}
