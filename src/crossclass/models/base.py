"""f(x) = W g(normalise(x)): every model takes images in [0, 1] and shows its `features` and its `head`.

Normalisation belongs to the model (its mean and std are buffers in the state dict), so 8/255 means
8/255 for everyone, and nobody can normalise twice or with another data set's constants.
"""

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from pydantic import BeforeValidator, model_validator
from torch import Tensor, nn

from crossclass.core.config import Settings
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.plugins import kind_of, members
from crossclass.data import AnyData
from crossclass.data.base import PerChannel, Statistics


def statistics() -> dict[str, Statistics]:
    """Constants that `model.normalise` knows by name: those of the data sets, of ImageNet, and `none`."""
    sets = {kind_of(d).replace("_", ""): d.statistics for d in members(AnyData) if d.statistics}
    return {**sets, "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "none": ((0.0,), (1.0,))}


class MeanStd(Settings):
    """Normalisation by given constants, one value per channel or one for all."""

    mean: PerChannel
    """What is subtracted, per channel, in [0, 1]."""
    std: PerChannel
    """By what is divided, per channel."""

    @model_validator(mode="after")
    def _usable(self) -> "MeanStd":
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError("mean and std need equally many values, one per channel")
        if min(self.std) <= 0:
            raise ValueError("every std must be positive")
        return self


def _known(value: object) -> object:
    if isinstance(value, str) and value != "data" and value not in (names := statistics()):
        raise ValueError(
            f"no such normalisation{did_you_mean(value, (*names, 'data'))}; or give mean and std"
        )
    return value


Normalise = Annotated[str | MeanStd, BeforeValidator(_known)]
"""A name of `statistics()`, `data` (those of the training part), or given constants."""


Size = int | tuple[int, int]
"""Height and width of images in pixels; one number where they are equal."""


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def size_of(images: Shaped[Tensor, "n c h w"]) -> Size:
    """The size of images."""
    h, w = images.shape[-2:]
    return h if h == w else (h, w)


class Model(Settings):
    """Base of the model families: settings that are called for a network.

    A new family defines `__call__` and `__str__` and is registered by `register(AnyModel, MyFamily)`.
    """

    kind: str
    normalise: Normalise = "cifar10"
    """Constants that the model normalises with; `data` takes those of the training part."""

    shorthand: ClassVar[str | None] = None
    """The setting that stands behind the kind in `model=kind:VALUE`, such as `name`."""
    replaced: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"container": "of several networks in a file, weights.container=NAME chooses one"}
    )

    def __call__(
        self, classes: int, channels: int, mean: PerChannel, std: PerChannel, size: Size = 32
    ) -> "Classifier":
        """A freshly initialised network for images of `channels` and this height and width in pixels."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def not_in_shapes(self) -> Mapping[str, tuple[Any, ...]]:
        """Settings that names and shapes of the weights do not show, with the values to try for a file."""
        return {}

    def load_pretrained(self, model: "Classifier") -> None:
        """Put pretrained weights in where the settings ask for them; only a new run calls this."""

    def __str__(self) -> str:
        return self.kind


class Classifier(nn.Module):
    """Images [n, c, h, w] in [0, 1] to logits [n, k]; `features` [n, d] and a linear `head` are exposed."""

    mean: Tensor
    std: Tensor
    head: nn.Linear
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()
    """(pattern, replacement) pairs that turn parameter names of other code into these, applied in order."""
    unused: ClassVar[tuple[str, ...]] = ()
    """Patterns of names that other people's files carry although their network never uses them."""

    def __init__(self, mean: PerChannel, std: PerChannel) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def normalise(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """(x - mean) / std, the model's own."""
        mean, std = self.mean, self.std
        if x.device.type == "cpu":
            # One channel at a time a CPU takes five times as long, in both directions: spread over an image,
            # in the layout of x, the constants give the same bits.
            layout = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
            mean, std = (v.expand(1, *x.shape[1:]).contiguous(memory_format=layout) for v in (mean, std))
        return (x - mean) / std

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """g(x), the input of the head."""
        raise NotImplementedError(f"{type(self).__name__} must define features(x)")

    def outputs(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Features and logits of one forward pass."""
        g = self.features(x)
        return g, self.head(g)

    def saliency_layer(self) -> nn.Module:
        """Where Grad-CAM looks by default: the last module whose output still has a map of the image."""
        raise NotImplementedError(f"{type(self).__name__} must define saliency_layer()")

    def as_map(self, activation: Tensor) -> Float[Tensor, "n d h w"]:
        """The output of `saliency_layer` as a map; transformers reshape their tokens here."""
        return activation

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits W g(x) + b."""
        logits: Tensor = self.head(self.features(x))
        return logits


def load_pretrained(net: nn.Module, tensors: Mapping[str, Tensor], heads: Container[str], what: str) -> None:
    """Copy pretrained tensors into a network; only those named in `heads` may differ, and then stay fresh.

    Raises UserError, which begins with `what`, if others are missing or have another shape.
    """
    own = net.state_dict()
    wrong = [n for n in own if n not in tensors or tensors[n].shape != own[n].shape]
    body = [n for n in wrong if n not in heads]
    if body:
        raise UserError(
            f"{what}: {body[0]} differs ({len(body)} in all); give the model the settings of that network"
        )
    net.load_state_dict({n: own[n] if n in wrong else tensors[n] for n in own})


class SubsampledConv(nn.Conv2d):
    """A strided 1x1 convolution as subsampling and an unstrided one: the same function and weights."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k u v"]:
        """The convolution of every stride-th pixel."""
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else None
        down, across = self.stride
        part = x[:, :, ::down, ::across].contiguous(memory_format=layout or torch.contiguous_format)
        return nn.functional.conv2d(part, self.weight, self.bias)


def subsample_first(net: nn.Module) -> None:
    """Make the strided 1x1 convolutions of a network with fewer than 8 input channels subsample first.

    On CPUs without AVX-512, oneDNN's gradient with respect to their weights is written outside of its memory
    (torch 2.11 and 2.13, channels-last, one thread: "corrupted size", "double free"). Function, weights and
    names stay as they are.
    """
    for module in net.modules():
        if type(module) is not nn.Conv2d or module.padding not in ((0, 0), "valid") or module.groups > 1:
            continue
        if module.kernel_size == (1, 1) and max(module.stride) > 1 and module.in_channels < 8:
            module.__class__ = SubsampledConv


def conv1x1(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    """A 1x1 convolution without bias, as residual networks have in their shortcuts."""
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    subsample_first(conv)
    return conv


def space_mean(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
    """Mean over space, whose gradient comes back in the layout of x.

    Torch's own returns it contiguous, and with channels-last activations the next operator then takes several
    times as long (torch 2.13). The bits are the same either way.
    """
    if x.stride(1) == 1:
        return x.permute(0, 2, 3, 1).mean(dim=(1, 2))
    return x.mean(dim=(2, 3))
