"""Two networks of other people, as others bring them: a file of weights and twenty lines each.

    crossclass measure resnet4b.npz model=python:my_nets:resnet4b data.path=DIR out=result.json

Names and shapes are those of the files: akamaster/pytorch_resnet_cifar10 (ResNet-20, option-A
shortcuts) and Verified-Intelligence/alpha-beta-CROWN (resnet4b). Images are in [0, 1]; crossclass
normalises in front of the network (model.normalise), so nothing is normalised here.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: padded with zeros (option A), or a 1x1 convolution."""

    def __init__(self, inputs: int, planes: int, stride: int, *, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=not norm)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=not norm)
        self.bn1, self.bn2 = (nn.BatchNorm2d(planes), nn.BatchNorm2d(planes)) if norm else (None, None)
        self.stride, self.grows, self.shortcut = stride, planes - inputs, None
        if not norm and (stride > 1 or inputs != planes):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Images or maps in, maps out."""
        out = self.conv1(x)
        out = self.conv2(F.relu(self.bn1(out) if self.bn1 else out))
        out = self.bn2(out) if self.bn2 else out
        if self.shortcut:
            return F.relu(out + self.shortcut(x))
        short = x[:, :, :: self.stride, :: self.stride]
        return F.relu(out + F.pad(short, (0, 0, 0, 0, self.grows // 2, self.grows // 2)))


class ResNet20(nn.Module):
    """Three stages of three blocks with 16, 32 and 64 channels, mean pooling, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        for stage, (a, b, stride) in enumerate(widths, 1):
            blocks = [Block(a, b, stride, norm=True), *(Block(b, b, 1, norm=True) for _ in range(2))]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [n, 3, 32, 32] to logits [n, 10]."""
        out = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(out))).mean(dim=(2, 3)))


class ResNet4b(nn.Module):
    """A small residual net without batch norm and with two dense layers at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 2, 1)
        self.layer1 = nn.Sequential(Block(16, 32, 2, norm=False), Block(32, 32, 1, norm=False))
        self.layer2 = nn.Sequential(Block(32, 32, 2, norm=False), Block(32, 32, 1, norm=False))
        self.linear1, self.linear2 = nn.Linear(512, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [n, 3, 32, 32] to logits [n, 10]."""
        out = self.layer2(self.layer1(F.relu(self.conv1(x)))).flatten(1)
        return self.linear2(F.relu(self.linear1(out)))


def resnet20() -> nn.Module:
    """The factory to name: model=python:my_nets:resnet20."""
    return ResNet20()


def resnet4b() -> nn.Module:
    """The factory to name: model=python:my_nets:resnet4b."""
    return ResNet4b()
