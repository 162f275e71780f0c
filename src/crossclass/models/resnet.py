"""Post-activation residual networks for small images (He et al. 2016a), as in kuangliu/pytorch-cifar.

ResNet-18, -34 and -50 with a 3x3 stem of 64 channels without max pooling, four stages and mean pooling.
`pool=4` averages over 4x4 windows and flattens instead, as the paper's code does: on 64x64 images ResNet-18
then has 512 * 2 * 2 = 2048 features, which Tiny-ImageNet very likely used. With `blocks=[3,3,3] width=16` it
is a ResNet-20 with 1x1 convolutions as shortcuts.
"""

from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from crossclass.core.errors import UserError
from crossclass.data.base import PerChannel
from crossclass.models.base import Classifier, Size, conv1x1, sides, space_mean
from crossclass.models.preactresnet import Residual, add_stages


class ResNet(Residual):
    """ResNet of any depth, width and number of stages (He et al. 2016a)."""

    kind: Literal["resnet"] = "resnet"
    pool: Literal["mean"] | PositiveInt = "mean"
    """`mean` over all space, or the side of the windows that are averaged before flattening."""

    def __call__(
        self, classes: int, channels: int, mean: PerChannel, std: PerChannel, size: Size = 32
    ) -> Classifier:
        """The network, freshly initialised from torch's global stream.

        Mean pooling takes images of any size; otherwise `size` fixes the number of features. Raises
        UserError if the last map is smaller than a pooling window.
        """
        return ResNetModule(self, classes, channels, mean, std, size)


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = _shortcut(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.shortcut = _shortcut(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.shortcut(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class ResNetModule(Classifier):
    """The network of `ResNet`; parameter names follow the well-known CIFAR implementations."""

    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^(linear|fc)\.", "head."),
        (r"\.downsample\.", ".shortcut."),
    )

    def __init__(
        self, settings: ResNet, classes: int, channels: int, mean: PerChannel, std: PerChannel, size: Size
    ) -> None:
        super().__init__(mean, std)
        self.conv1 = settings.stem_layer(channels)
        self.bn1 = nn.BatchNorm2d(settings.width)
        inputs = add_stages(self, settings, _Bottleneck if settings.depth == 50 else _Basic)
        padding = (settings.stem - 1) // 2
        last = []
        for side in sides(size):
            left = (side + 2 * padding - settings.stem) // settings.stem_stride + 1
            for _ in settings.stages[1:]:
                left = (left + 1) // 2  # a padded 3x3 at stride 2 rounds up
            last.append(left)
        self._stages, self._pool, windows = len(settings.stages), settings.pool, 1
        if self._pool != "mean":
            windows = (last[0] // self._pool) * (last[1] // self._pool)
            if windows == 0:
                raise UserError(
                    f"model.pool={self._pool} is larger than the last map, which is {last[0]}x{last[1]} for "
                    f"images of {sides(size)[0]}x{sides(size)[1]}; use model.pool=mean"
                )
        self.head = nn.Linear(inputs * windows, classes)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The last map, pooled: non-negative, [n, d]; windows are flattened channel by channel."""
        out = F.relu(self.bn1(self.conv1(self.normalise(x))))
        for stage in range(self._stages):
            out = getattr(self, f"layer{stage + 1}")(out)
        if self._pool == "mean":
            return space_mean(out)
        return F.avg_pool2d(out, self._pool).flatten(1)

    def saliency_layer(self) -> nn.Module:
        """The last block."""
        block: nn.Module = getattr(self, f"layer{self._stages}")[-1]
        return block
