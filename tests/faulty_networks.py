"""Small networks for the doctor, trained on classes hard enough, and what was found in them by name."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import seeded
from crossclass.attacks import PGD
from crossclass.attacks.norms import Linf
from crossclass.data import Split, Splits
from crossclass.diagnostics import FINDINGS, Doctor, Finding
from crossclass.models import Classifier, statistics

EPS = 0.05


QUICK = Doctor(n=300, n_attack=12, threat=Linf(eps=EPS), batch=100)


FULL = QUICK.replace(n_attack=100)


TRIPLE = FULL.replace(threat=Linf(eps=0.15))


WIDE = FULL.replace(threat=Linf(eps=0.4))


class Small(Classifier):
    """Convolution, batch norm, dropout, head; `before` and `after` are where illnesses are put."""

    def __init__(self, classes: int, channels: int, normalise: str = "none", side: int = 6) -> None:
        mean, std = BYTES if normalise == "bytes" else statistics()[normalise]
        super().__init__(mean, std)
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8 * side * side, classes)
        self.before: Callable[[Tensor], Tensor] = lambda x: x
        self.after: Callable[[Tensor, Tensor], Tensor] = lambda z, x: z

    def features(self, x: Tensor) -> Tensor:
        return self.drop(F.relu(self.bn(self.conv(self.normalise(self.before(x)))))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(self.features(x)), x)


BYTES = ((0.0,), (1 / 255,))


def splits_of(classes: int = 3, channels: int = 3, n: int = 400) -> Splits:
    """Gaussian classes, the channels unlike each other, hard enough for 8/255 to matter."""
    g = seeded(11)
    means = 0.5 + 0.06 * torch.randn(classes, channels, 6, 6, generator=g)
    y = torch.arange(2 * n) % classes
    x = (means[y] + 0.1 * torch.randn(2 * n, channels, 6, 6, generator=g)).clamp(0, 1)
    images = (255 * x).round().to(torch.uint8)
    train, test = Split(images[:n], y[:n]), Split(images[n:], y[n:])
    return Splits(train, Split(images[:0], y[:0]), test, tuple("abcdefgh"[:classes]), "0" * 16)


def train(net: Small, splits: Splits, attack: PGD | None = None, steps: int = 40) -> Small:
    x, y = splits.train.images.float() / 255, splits.train.labels
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(steps):
        x_adv = attack(net.eval(), x, y, seeded(step)) if attack else x
        optimizer.zero_grad()
        F.cross_entropy(net.train()(x_adv), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net.eval()


def made(classes: int = 3, channels: int = 3, normalise: str = "none", attack: PGD | None = None) -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return train(Small(classes, channels, normalise), splits_of(classes, channels), attack)


def healthy() -> dict[str, Small]:
    """Normalised in three ways, trained against PGD, and of two gray classes."""
    robust = PGD(threat=Linf(eps=EPS), steps=4, rel_step=0.5)
    named = {n: made(normalise=n) for n in ("none", "imagenet", "bytes")}
    return {**named, "robust": made(attack=robust), "two gray": made(2, 1)}


def by_name(found: list[Finding]) -> dict[str, Finding]:
    names = [f.name for f in found]
    assert len(set(names)) == len(names), "one finding per name"
    assert set(names) <= set(FINDINGS)
    return {f.name: f for f in found}


def bad(found: list[Finding]) -> list[str]:
    return [f.name for f in found if f.level in ("fault", "warning")]


def infinite(z: Tensor, x: Tensor) -> Tensor:
    return z / 0


def relabelled(labels: Callable[[Tensor], Tensor]) -> Callable[[Splits], Splits]:
    def plant(data: Splits) -> Splits:
        test = Split(data.test.images, labels(data.test.labels))
        return Splits(data.train, data.val, test, data.class_names, data.checksum)

    return plant
