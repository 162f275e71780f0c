"""Networks whose state is unusual, in ways that a checkpoint can hold (`KEPT`) and cannot (`LOST`)."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class Net(nn.Module):
    """Images [n, 3, h, w] to logits; `more` adds the unusual, `through` uses it."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.c, self.bn, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Linear(8, num_classes)
        self.more()

    def more(self) -> None: ...

    def through(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.through(self.bn(self.c(x)).relu().mean((2, 3))))


class Extra(Net):
    """Extra state that moves with every forward pass in train mode, and that the network computes with."""

    def more(self) -> None:
        self.state = {"uses": 0, "names": ["a"]}

    def through(self, x: Tensor) -> Tensor:
        self.state["uses"] += self.training
        return x * (1 + self.state["uses"])

    def get_extra_state(self) -> object:
        return dict(self.state)

    def set_extra_state(self, state: object) -> None:
        self.state = state


class ExtraTensor(Extra):
    def get_extra_state(self) -> object:
        return torch.tensor(self.state["uses"])

    def set_extra_state(self, state: object) -> None:
        self.state["uses"] = int(state)


class ExtraObject(Extra):
    def get_extra_state(self) -> object:
        return {1: object()}


class Sparse(Net):
    def more(self) -> None:
        self.register_buffer("graph", torch.eye(8).to_sparse())

    def through(self, x: Tensor) -> Tensor:
        return x + torch.sparse.mm(self.graph, x.T).T


class SparseRows(Sparse):
    def more(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.register_buffer("graph", torch.eye(8).to_sparse_csr())


class Expanded(Net):
    def more(self) -> None:
        self.register_buffer("mask", torch.full((1,), 2.0).expand(8))

    def through(self, x: Tensor) -> Tensor:
        return x * self.mask


class Complex(Net):
    def more(self) -> None:
        self.register_buffer("wave", torch.full((8,), 2j))

    def through(self, x: Tensor) -> Tensor:
        return x * self.wave.abs()


class Scalar(Net):
    def more(self) -> None:
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("flipped", torch.rand(3, 8).T[:, :1])
        self.register_buffer("nothing", None)

    def through(self, x: Tensor) -> Tensor:
        self.scale = self.scale + self.training
        return x * self.scale * self.flipped.T


class Eighth(Net):
    def more(self) -> None:
        self.register_buffer("eighth", torch.full((8,), 2.0).to(torch.float8_e4m3fn))

    def through(self, x: Tensor) -> Tensor:
        return x * self.eighth.float()


class Lazy(Net):
    def more(self) -> None:
        self.fc = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, self.fc.out_features))


class OldWeightNorm(Net):
    def more(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(self.c)


class Parametrized(Net):
    def more(self) -> None:
        parametrizations.weight_norm(self.c)
        parametrizations.spectral_norm(self.fc)


class Tied(Net):
    def more(self) -> None:
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight, self.three = self.one.weight, self.one

    def through(self, x: Tensor) -> Tensor:
        return self.three(self.two(self.one(x)))


class Queue(Net):
    """Remembers features, more of them with every step, in a buffer that is made when it is first needed."""

    def more(self) -> None:
        self.register_buffer("queue", torch.zeros(0, 8))
        self.register_buffer("first", None)

    def through(self, x: Tensor) -> Tensor:
        if self.training:
            self.queue = torch.cat([self.queue, x.detach()])[-40:]
            self.first = x.detach()[0] if self.first is None else self.first
        return x if self.first is None else x + self.queue.mean(0) + self.first


class Hidden(Net):
    def more(self) -> None:
        self.parts = [nn.Linear(8, 8)]

    def through(self, x: Tensor) -> Tensor:
        return self.parts[0](x)


class NotSaved(Net):
    def more(self) -> None:
        self.register_buffer("mean_seen", torch.zeros(8), persistent=False)

    def through(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean_seen += 3 * x.detach().mean(0) + 1
        return x - self.mean_seen


class Attribute(Net):
    def more(self) -> None:
        self.drawn = torch.rand(8)

    def through(self, x: Tensor) -> Tensor:
        return x * self.drawn


class Quantised(Net):
    def more(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.register_buffer("table", torch.quantize_per_tensor(torch.ones(8), 0.1, 0, torch.qint8))


class Double(Net):
    def more(self) -> None:
        self.register_buffer("table", torch.ones(8, dtype=torch.complex128))


KEPT = (
    *("Extra", "ExtraTensor", "Sparse", "SparseRows", "Expanded", "Complex", "Scalar", "Eighth", "Lazy"),
    *("OldWeightNorm", "Parametrized", "Tied", "Queue"),
)
LOST = {
    "ExtraObject": "extra state 'net._extra_state'",
    "Hidden": "'net.parts' holds layers",
    "NotSaved": "buffer 'net.mean_seen' is not saved",
    "Attribute": "'net.drawn' is a plain attribute",
    "Quantised": "'net.table' of the network is a torch.qint8",
    "Double": "'net.table' is torch.complex128",
}
"""What the sentence says of each."""


def flat(num_classes: int = 3) -> nn.Module:
    """A network for 16 x 32 only."""
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8 * 4 * 8, num_classes))


class Tokens(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.patch, self.norm1 = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.mix, self.head = nn.Linear(32, 32), nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        t = self.norm1(self.patch(x).flatten(2).mT)
        return self.head((t + self.mix(t.mT).mT).mean(1))


def half(num_classes: int = 3) -> nn.Module:
    return Net(num_classes).half()


def double(num_classes: int = 3) -> nn.Module:
    return Net(num_classes).double()


def brain(num_classes: int = 3) -> nn.Module:
    return Net(num_classes).bfloat16()


def mixed(num_classes: int = 3) -> nn.Module:
    net = Net(num_classes)
    net.c.half()
    net.fc.double()
    return net


class Casting(Net):
    """Casts between its own types itself, and fails in float32."""

    def more(self) -> None:
        self.c.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        if self.c.weight.dtype != torch.bfloat16:
            raise RuntimeError("expected BFloat16 but found Float")
        return self.fc(self.bn(self.c(x.bfloat16()).float()).relu().mean((2, 3)))


PRECISIONS = ("half", "double", "brain", "mixed", "Casting")


class OneChannel(Net):
    """For gray images."""

    def more(self) -> None:
        self.c = nn.Conv2d(1, 8, 3, 2, 1)
