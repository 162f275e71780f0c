"""Networks as strangers write them: a head among other layers, logits in a wrapping, tokens."""

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from crossclass import models
from crossclass.models import Python, Wrapped

IMAGES = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """The head is registered first and is neither the only linear layer nor the last registered."""

    def __init__(self, classes: int = 4, width: int = 6, **parts: nn.Module) -> None:
        super().__init__()
        self.top = nn.Linear(width, classes)
        self.conv = nn.Conv2d(3, 5, 3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.hidden = nn.Linear(5, width)
        self.unused = nn.Linear(7, classes)
        for name, part in parts.items():
            setattr(self, name, part)

    def body(self, x: Tensor) -> Tensor:
        return torch.tanh(self.hidden(self.relu(self.conv(x)).mean(dim=(2, 3))))

    def forward(self, x: Tensor) -> object:
        return self.top(self.body(x))


def variant(forward, **parts):
    """A factory of a `Net` with another forward."""
    return lambda: type("Variant", (Net,), {"forward": forward})(**parts)


@dataclass
class Output:
    loss: None
    logits: Tensor


class Tokens(nn.Module):
    """A transformer of one block with `lead` tokens in front and a 2x2 or other row of patches."""

    def __init__(self, lead: int = 1, side: int = 2, norm: str = "norm1") -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 8 // side, 8 // side)
        self.first = nn.Parameter(torch.randn(1, lead, 8))
        self.add_module(norm, nn.LayerNorm(8))
        self.mix, self.norm = nn.Linear(lead + side**2, lead + side**2), nn.LayerNorm(8)
        self.drop, self.head, self.norm_name = nn.Dropout(0.9), nn.Linear(8, 4), norm

    def forward(self, x: Tensor) -> Tensor:
        t = torch.cat((self.first.expand(len(x), -1, -1), self.patch(x).flatten(2).mT), dim=1)
        t = t + self.drop(self.mix(getattr(self, self.norm_name)(t).mT).mT)
        return self.head(self.norm(t)[:, 0])


def making(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Wrapped]:
    """Make a foreign model from a factory; settings by keyword."""

    def make(factory, size: int = 8, classes: int = 4, **settings: object) -> Wrapped:
        module = types.ModuleType("somebodys")
        module.factory = factory
        monkeypatch.setitem(sys.modules, "somebodys", module)
        images = IMAGES.repeat(1, 1, size // 8, size // 8)
        return models.build(Python(call="somebodys:factory", **settings), images, classes, 0).eval()

    return make
