"""Pre-activation residual networks for small images (He et al. 2016b), as in Rice 2020 and the paper.

The default is PreActResNet-18: a 3x3 stem of 64 channels, four stages of two basic blocks, a last
batch norm and ReLU, mean pooling (11.17 M parameters). Width, stages and the stem's stride are
settings, so that the same network is thin enough for a laptop.
"""

from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from crossclass.models.base import Classifier, Model, Normalise, conv1x1, last_block, space_mean

BLOCKS: dict[int, tuple[int, ...]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Blocks in each of the four stages, by depth (He et al. 2016a, table 1)."""


class PreActResNet(Model):
    """PreActResNet of any depth, width and number of stages."""

    kind: Literal["preactresnet"] = "preactresnet"
    depth: Literal[18, 34, 50] = 18
    """18 and 34 use basic blocks, 50 bottlenecks; also the number of blocks per stage."""
    blocks: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1, max_length=6)
    """Blocks in each stage, if not those of the depth: (1, 1, 1) is three stages of one."""
    width: PositiveInt = 64
    """Channels of the stem and first stage; every stage doubles them."""
    stem: PositiveInt = 3
    """Kernel of the first convolution."""
    stem_stride: PositiveInt = 1
    normalise: Normalise = "cifar10"
    """Constants that the model normalises with; `data` takes those of the training part."""

    def __str__(self) -> str:
        default = self.blocks in (None, BLOCKS[self.depth])
        shape = f"-{self.depth}" if default else f" {'-'.join(map(str, self.blocks or ()))}"
        bottleneck = ", bottlenecks" if not default and self.depth == 50 else ""
        return f"{type(self).__name__}{shape}{bottleneck}, width {self.width}"

    def __call__(
        self, classes: int, channels: int, mean: tuple[float, ...], std: tuple[float, ...], size: int = 32
    ) -> Classifier:
        """The network, freshly initialised from torch's global stream; it takes images of any size."""
        return PreActResNetModule(self, classes, channels, mean, std)


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.shortcut = _shortcut(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + residual


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


class PreActResNetModule(Classifier):
    """The network of `PreActResNet`; parameter names follow the well-known CIFAR implementations."""

    renames: ClassVar[tuple[tuple[str, str], ...]] = ((r"^(linear|fc)\.", "head."),)

    def __init__(
        self,
        settings: PreActResNet,
        classes: int,
        channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__(mean, std)
        block = _Bottleneck if settings.depth >= 50 else _Basic
        blocks = settings.blocks or BLOCKS[settings.depth]
        stem, width = settings.stem, settings.width
        # as many pixels as a padded 3x3 at stride 1, half as many at stride 2, whatever the kernel
        padding = (stem - 1) // 2
        self.conv1 = nn.Conv2d(channels, width, stem, settings.stem_stride, padding, bias=False)
        stages: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(blocks):
            planes = width * 2**stage
            layers: list[nn.Module] = []
            for i in range(count):
                layers.append(block(inputs, planes, 2 if stage > 0 and i == 0 else 1))
                inputs = planes * block.expansion
            stages.append(nn.Sequential(*layers))
            self.add_module(f"layer{stage + 1}", stages[-1])
        self._stages = len(stages)
        self.bn = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.head = nn.Linear(inputs, classes)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Mean over space after the last batch norm and ReLU: non-negative, [n, d]."""
        out = self.conv1(self.normalise(x))
        for stage in range(self._stages):
            out = getattr(self, f"layer{stage + 1}")(out)
        return space_mean(self.relu(self.bn(out)))

    def saliency_layer(self) -> nn.Module:
        """The last block: the residual stream before the last batch norm and ReLU."""
        return last_block(getattr(self, f"layer{self._stages}"))
