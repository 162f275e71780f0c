"""Networks whose head is known, and layers in them that look like it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

K, D = 4, 9


class Body(nn.Module):
    """Features and a head `fc`, among whatever a subclass adds."""

    def __init__(self, classes: int = K, width: int = D) -> None:
        super().__init__()
        self.other = nn.Linear(width, classes)
        self.conv, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, width, 3, 2, 1)
        self.fc = nn.Linear(width, classes)
        self.more(classes, width)

    def more(self, classes: int, width: int) -> None:
        pass

    def map(self, x: Tensor) -> Tensor:
        return F.relu(self.last(F.relu(self.conv(x))))

    def g(self, x: Tensor) -> Tensor:
        return self.map(x).mean((2, 3))


def net_of(forward, more=lambda self, k, d: None, classes=K, width=D, seed=0):
    """A network with such a forward, seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = type("Net", (Body,), {"forward": forward, "more": more})(classes, width)
        for p in made.parameters():  # no bias near zero, and features that differ from image to image
            p.data.mul_(2).add_(0.1 * torch.randn_like(p))
    return made.eval()


def plain(self, z):
    return self.g(z), self.fc.weight


def add(name, make):
    return lambda self, k, d: setattr(self, name, make(k, d))


class Cosine(nn.Linear):
    def forward(self, g):
        return 8 * F.linear(F.normalize(g), F.normalize(self.weight))


class Normed(nn.Module):
    """As in long-tailed recognition: the weight is [d, k]."""

    def __init__(self, d, k):
        super().__init__()
        self.w = nn.Parameter(torch.randn(d, k))

    def forward(self, g):
        return F.normalize(g, dim=1).mm(F.normalize(self.w, dim=0))


def side_effect(name):
    def forward(self, z):
        g = self.g(z)
        out = self.fc(g)
        getattr(self, name)(g)
        return out

    return forward


def gated(self, z):
    g = self.g(z)
    g = g * torch.sigmoid(self.s2(F.relu(self.s1(g))))
    return self.cls(g[:, :, None, None]).flatten(1)


def gated_operands(self, z):
    g = self.g(z)
    return g * torch.sigmoid(self.s2(F.relu(self.s1(g)))), self.cls.weight.flatten(1)


def gate_layers(self, k, d):
    self.s1, self.s2, self.cls = nn.Linear(d, k), nn.Linear(k, d), nn.Conv2d(d, k, 1)


def in_place(self, z):
    g = self.g(z)
    out = self.fc(g)
    g.zero_()
    return out.div_(3)


def weight_normed(self, k, d):
    self.fc = parametrizations.weight_norm(self.fc)


def hooked(self, k, d):
    self.fc.register_forward_pre_hook(lambda m, args: (2 * args[0],))
    self.fc.register_forward_hook(lambda m, args, out: out * 1)


def views(self, z):
    return (self.fc(self.g(z)) + self.fc(self.g(z.flip(3)))) / 2


def nothing(self, k, d):
    pass


def pair(self, z):
    g = self.g(z)
    return g, self.fc(g)


def logits_and_auxiliary(self, z):
    g = self.g(z)
    return {"aux": self.other(g), "logits": self.fc(g)}


def pair_that_goes_on(self, z):
    g = self.hidden(self.g(z))
    logits = self.fc(g)
    self.seen = self.other(logits)
    return g, logits


class Inside(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def rows_of(rows, more):
    def forward(self, x):
        z = self.head(self.g(x))
        return z[:, rows]

    return forward, lambda self, k, d: setattr(self, "head", nn.Linear(d, more))
