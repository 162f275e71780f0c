"""Pre-activation residual networks for small images (He et al. 2016b), as in locuslab/robust_overfitting.

PreActResNet-18 has a 3x3 stem of 64 channels, four stages of two basic blocks, a last batch norm and ReLU,
and mean pooling (11.17 M parameters). `Residual` and `add_stages` are shared with `ResNet`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from crossclass.data.base import PerChannel
from crossclass.models.base import Classifier, Model, Size, conv1x1, space_mean

BLOCKS: dict[int, tuple[int, ...]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Blocks in each of the four stages, by depth (He et al. 2016a, table 1)."""


class Residual(Model):
    """The settings that residual networks have in common."""

    depth: Literal[18, 34, 50] = 18
    """18 and 34 use basic blocks, 50 bottlenecks; also the number of blocks per stage."""
    blocks: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1, max_length=6)
    """Blocks in each stage, if not those of the depth: (1, 1, 1) is three stages of one."""
    width: PositiveInt = 64
    """Channels of the stem and first stage; every stage doubles them."""
    stem: PositiveInt = 3
    """Kernel of the first convolution."""
    stem_stride: PositiveInt = 1
    """Stride of the first convolution."""

    def __str__(self) -> str:
        default = self.blocks in (None, BLOCKS[self.depth])
        shape = f"-{self.depth}" if default else f" {'-'.join(map(str, self.stages))}"
        bottleneck = ", bottlenecks" if not default and self.depth == 50 else ""
        return f"{type(self).__name__}{shape}{bottleneck}, width {self.width}"

    @property
    def stages(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        return self.blocks or BLOCKS[self.depth]

    def stem_layer(self, channels: int) -> nn.Conv2d:
        """The first convolution: as many pixels as a padded 3x3 with this stride, whatever the kernel."""
        return nn.Conv2d(channels, self.width, self.stem, self.stem_stride, (self.stem - 1) // 2, bias=False)


class PreActResNet(Residual):
    """Pre-activation ResNet of any depth, width and number of stages (He et al. 2016b)."""

    kind: Literal["preactresnet"] = "preactresnet"
    last_norm: bool = True
    """Whether batch norm and ReLU follow the last block (not in tml-epfl/understanding-fast-adv-training)."""
    shortcut_input: Literal["activated", "raw"] = "activated"
    """What the 1x1 convolution beside a basic block takes: ReLU(BN(x)), or the block's input x.

    `raw` in locuslab/fast_adversarial, tml-epfl/understanding-fast-adv-training and RobustBench's networks
    without last batch norm; `activated` in locuslab/robust_overfitting and kuangliu/pytorch-cifar. Names and
    shapes of the weights are the same.
    """

    def __str__(self) -> str:
        parts = {", no last batch norm": not self.last_norm, ", raw shortcuts": self.shortcut_input == "raw"}
        return super().__str__() + "".join(text for text, holds in parts.items() if holds)

    @model_validator(mode="after")
    def _basic(self) -> "PreActResNet":
        if self.shortcut_input == "raw" and self.depth == 50:
            raise ValueError("shortcut_input=raw is for basic blocks; bottlenecks (depth=50) take activated")
        return self

    def not_in_shapes(self) -> Mapping[str, tuple[Any, ...]]:
        """What shortcuts take: both kinds of basic blocks are published (see `shortcut_input`)."""
        return {} if self.depth == 50 else {"shortcut_input": ("activated", "raw")}

    def __call__(
        self, classes: int, channels: int, mean: PerChannel, std: PerChannel, size: Size = 32
    ) -> Classifier:
        """The network, freshly initialised from torch's global stream; it takes images of any size."""
        return PreActResNetModule(self, classes, channels, mean, std)


class _Basic(nn.Module):
    expansion = 1
    raw_shortcut = False

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.shortcut = _shortcut(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(x if self.raw_shortcut else out)
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + residual


class _RawShortcut(_Basic):
    raw_shortcut = True


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.shortcut = _shortcut(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.conv3(F.relu(self.bn3(out)))
        return out + residual


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv1x1(inputs, outputs, stride))


def add_stages(net: nn.Module, settings: Residual, block: Any) -> int:
    """Add `layer1`, `layer2`, ... to a network; returns the channels of the last one.

    `block(inputs, planes, stride)` makes a block, which gives `planes * block.expansion` channels.
    """
    inputs = settings.width
    for stage, count in enumerate(settings.stages):
        layers: list[nn.Module] = []
        for i in range(count):
            planes = settings.width * 2**stage
            layers.append(block(inputs, planes, 2 if stage > 0 and i == 0 else 1))
            inputs = planes * block.expansion
        net.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
    return inputs


class PreActResNetModule(Classifier):
    """The network of `PreActResNet`; parameter names follow the well-known CIFAR implementations."""

    renames: ClassVar[tuple[tuple[str, str], ...]] = ((r"^(linear|fc)\.", "head."),)
    unused: ClassVar[tuple[str, ...]] = (r"^model_preact_hl1\.",)  # tml-epfl's copies of the first layers

    def __init__(
        self, settings: PreActResNet, classes: int, channels: int, mean: PerChannel, std: PerChannel
    ) -> None:
        super().__init__(mean, std)
        self.conv1 = settings.stem_layer(channels)
        basic = _RawShortcut if settings.shortcut_input == "raw" else _Basic
        features = add_stages(self, settings, _Bottleneck if settings.depth == 50 else basic)
        self._stages = len(settings.stages)
        self.bn = nn.BatchNorm2d(features) if settings.last_norm else nn.Identity()
        self.relu = nn.ReLU() if settings.last_norm else nn.Identity()
        self.head = nn.Linear(features, classes)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Mean over space after the last batch norm and ReLU (then non-negative), [n, d]."""
        out = self.conv1(self.normalise(x))
        for stage in range(self._stages):
            out = getattr(self, f"layer{stage + 1}")(out)
        return space_mean(self.relu(self.bn(out)))

    def saliency_layer(self) -> nn.Module:
        """The last block: the residual stream before the last batch norm and ReLU."""
        block: nn.Module = getattr(self, f"layer{self._stages}")[-1]
        return block
