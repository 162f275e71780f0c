"""Wide residual networks (Zagoruyko & Komodakis 2016), as in yaodongyu/TRADES and csdongxian/AWP.

WRN-depth-k has three groups of (depth - 4) / 6 pre-activation blocks with 16k, 32k and 64k channels, and 64k
features. Where a block changes the number of channels, batch norm and ReLU come before the shortcut as well.
"""

from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from crossclass.data.base import PerChannel
from crossclass.models.base import Classifier, Model, Size, conv1x1, space_mean


class WideResNet(Model):
    """Wide residual network WRN-depth-widen (Zagoruyko & Komodakis 2016)."""

    kind: Literal["wideresnet"] = "wideresnet"
    depth: int = Field(default=34, ge=10)
    """6n + 4 for n blocks in each of the three groups."""
    widen: PositiveInt = 10
    """Factor k on the 16, 32 and 64 channels."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations that are left out between the two convolutions of a block, in [0, 1)."""

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if (depth - 4) % 6:
            raise ValueError("the depth of a WideResNet is 6n + 4, such as 16, 28 or 34")
        return depth

    def __str__(self) -> str:
        return f"WideResNet-{self.depth}-{self.widen}"

    def __call__(
        self, classes: int, channels: int, mean: PerChannel, std: PerChannel, size: Size = 32
    ) -> Classifier:
        """The network, freshly initialised from torch's global stream; it takes images of any size."""
        return WideResNetModule(self, classes, channels, mean, std)


class _Block(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.drop = nn.Dropout(dropout)
        self.convShortcut = None if inputs == planes else conv1x1(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        residual = x if self.convShortcut is None else self.convShortcut(out)
        out = F.relu(self.bn2(self.conv1(out)))
        return residual + self.conv2(self.drop(out))


class _Group(nn.Module):
    def __init__(self, count: int, inputs: int, planes: int, stride: int, dropout: float) -> None:
        super().__init__()
        blocks = [_Block(inputs, planes, stride, dropout)]
        blocks += [_Block(planes, planes, 1, dropout) for _ in range(count - 1)]
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNetModule(Classifier):
    """The network of `WideResNet`; parameter names follow yaodongyu/TRADES."""

    renames: ClassVar[tuple[tuple[str, str], ...]] = ((r"^fc\.", "head."),)
    unused: ClassVar[tuple[str, ...]] = (r"^sub_block1\.",)
    """TRADES registers a further first group that its forward pass never enters."""

    def __init__(
        self, settings: WideResNet, classes: int, channels: int, mean: PerChannel, std: PerChannel
    ) -> None:
        super().__init__(mean, std)
        count, k, drop = (settings.depth - 4) // 6, settings.widen, settings.dropout
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.block1 = _Group(count, 16, 16 * k, 1, drop)
        self.block2 = _Group(count, 16 * k, 32 * k, 2, drop)
        self.block3 = _Group(count, 32 * k, 64 * k, 2, drop)
        self.bn1 = nn.BatchNorm2d(64 * k)
        self.relu = nn.ReLU()
        self.head = nn.Linear(64 * k, classes)
        for module in self.modules():  # He et al. 2015 with the fan-out, as in the original
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Mean over space after the last batch norm and ReLU: non-negative, [n, d]."""
        out = self.block3(self.block2(self.block1(self.conv1(self.normalise(x)))))
        return space_mean(self.relu(self.bn1(out)))

    def saliency_layer(self) -> nn.Module:
        """The last block of the last group."""
        return self.block3.layer[-1]
