"""Model families: frozen settings that make a `Classifier`.

`build` makes one for images, `rebuild` one from the tensors of a checkpoint. Each built-in family is a file;
`external` names networks that other code defines, which `wrapper` turns into a `Classifier`.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated

import torch
from jaxtyping import UInt8
from pydantic import BeforeValidator
from torch import Tensor

from crossclass.core.errors import UserError, did_you_mean, first_line
from crossclass.core.plugins import Family, kind_of, members
from crossclass.core.rng import isolated_rng, stream_seed
from crossclass.data import as_float
from crossclass.data.base import Statistics
from crossclass.models.base import (
    Classifier as Classifier,
    MeanStd as MeanStd,
    Model as Model,
    Normalise as Normalise,
    Size as Size,
    size_of as size_of,
    statistics as statistics,
)
from crossclass.models.external_model import (
    HF as HF,
    Python as Python,
    Timm as Timm,
    Torchvision as Torchvision,
)
from crossclass.models.preactresnet import PreActResNet as PreActResNet
from crossclass.models.recognize import Recognized as Recognized, recognize as recognize
from crossclass.models.resnet import ResNet as ResNet
from crossclass.models.saved_state import load_saved
from crossclass.models.variants import (
    Variant as Variant,
    variants_of as variants_of,
    with_weights_of as with_weights_of,
)
from crossclass.models.vit import ViT as ViT
from crossclass.models.wideresnet import WideResNet as WideResNet
from crossclass.models.wrapper import Wrapped as Wrapped


def from_text(value: object) -> object:
    """Plain settings for a kind, or for `kind:VALUE` such as `python:MODULE:FUNCTION` or `timm:NAME`.

    What is not text is left to pydantic; any other text raises ValueError with what it may mean.
    """
    if not isinstance(value, str):
        return value
    kind, sign, rest = value.partition(":")
    shorthands = {kind_of(m): m.shorthand for m in members(AnyModel)}
    if kind in shorthands and not sign:
        return {"kind": kind}
    if rest and (name := shorthands.get(kind)) is not None:
        return {"kind": kind, name: rest}
    if rest and ":" not in rest and kind not in shorthands and not get_close_matches(kind, shorthands):
        factory = f"python:{kind.removesuffix('.py').replace('/', '.')}:{rest}"
        raise ValueError(f"no such model; did you mean '{factory}'?")
    words = {"call": "MODULE:FUNCTION"}
    shown = [f"{k}:{words.get(name, name.upper())}" if name else k for k, name in shorthands.items()]
    raise ValueError(f"no such model{did_you_mean(value, shown)}")


AnyModel = Annotated[
    Model,
    Family(PreActResNet, ResNet, WideResNet, ViT, Python, Timm, Torchvision, HF),
    BeforeValidator(from_text),
]


def describe(settings: AnyModel, classes: int) -> str:
    """One line for messages: 'PreActResNet-18, width 64, 10 classes'."""
    return f"{settings}, {classes} classes"


def build(settings: AnyModel, images: UInt8[Tensor, "n c h w"], classes: int, seed: int) -> Classifier:
    """The network for such images, initialised from a stream of its own, or from its pretrained weights.

    `images` are the training part: normalise=data takes its statistics, the others check the channels.
    """
    mean, std = normalisation(settings.normalise, images)
    with isolated_rng(stream_seed(seed, 0, 0, "init"), torch.device("cpu")):
        model = settings(classes, images.shape[1], mean, std, size_of(images))
        settings.load_pretrained(model)
    return model


Constants = str | MeanStd | Sequence[Sequence[float]]
"""A normalisation in a call: a name such as `cifar10` or `data`, or (mean, std), a value for each channel."""


def normalisation(chosen: Constants, images: UInt8[Tensor, "n c h w"]) -> Statistics:
    """Mean and standard deviation per channel for such images; `data` takes theirs.

    Raises UserError for an unknown name, and for constants of other channels.
    """
    if isinstance(chosen, str) and chosen not in (names := (*statistics(), "data")):
        raise UserError(f"there is no normalisation '{chosen}'{did_you_mean(chosen, names)}")
    if chosen == "data":
        mean, std = channel_statistics(images)
    elif isinstance(chosen, str):
        mean, std = statistics()[chosen]
    else:
        given = chosen if isinstance(chosen, MeanStd) else MeanStd(mean=chosen[0], std=chosen[1])
        mean, std = given.mean, given.std
    if len(mean) not in (1, channels := images.shape[1]):
        raise UserError(
            f"model.normalise has {len(mean)} channels, the images have {channels}; use model.normalise=data"
        )
    return mean, std


def rebuild(
    settings: AnyModel, tensors: Mapping[str, Tensor], classes: int, channels: int, size: Size = 32
) -> Classifier:
    """The network of a checkpoint of ours, in eval mode; raises UserError if the tensors do not fit.

    Nothing pretrained is fetched: all weights are in the checkpoint.
    """
    width = tensors["mean"].numel() if "mean" in tensors else 1
    try:
        with torch.random.fork_rng(devices=[]):
            model = settings(classes, channels, (0.0,) * width, (1.0,) * width, size)
    except (RuntimeError, MemoryError) as e:  # a card may ask for more than there is memory
        raise UserError(f"the model that the card describes cannot be made ({first_line(e)})") from e
    try:
        load_saved(model, tensors)
    except RuntimeError as e:
        raise UserError("the checkpoint's tensors do not fit the model that its card describes") from e
    if isinstance(model, Wrapped):
        model.choose_head()
        model.take_closest_head()  # nobody could name another for a run that is trained
    return model.eval()


def look_for_head(model: Classifier, images: UInt8[Tensor, "n c h w"]) -> None:
    """Let a network of others look for its head again, on real images, with the weights that it now has."""
    if isinstance(model, Wrapped):
        some = as_float(images[:: max(1, len(images) // 64)])
        model.choose_head(some.to(model.mean.device))


def head_weights(model: Classifier) -> frozenset[str]:
    """The names of the head's tensors in the network itself (`net` of a `Wrapped`)."""
    if isinstance(model, Wrapped):
        return model.head_weights
    names = (n for n, module in model.named_modules() if module is model.head)
    return frozenset(f"{name}.{part}" for name in names for part in dict(model.head.named_parameters()))


def channel_statistics(images: UInt8[Tensor, "n c h w"], block: int = 4096) -> Statistics:
    """Mean and standard deviation (at least 0.001) of each channel in [0, 1], of at least one image.

    From counts of the 256 values, a block of images at a time: as doubles a large data set fills the memory.
    """
    values, channels = torch.arange(256, dtype=torch.float64) / 255, images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for part in images.split(block):
        for c in range(channels):
            counts[c] += torch.bincount(part[:, c].flatten().cpu(), minlength=256)
    share = counts / counts.sum(dim=1, keepdim=True)
    mean = share @ values
    std = (share * (values - mean[:, None]).square()).sum(dim=1).sqrt()
    return tuple(mean.tolist()), tuple(std.clamp(min=1e-3).tolist())
