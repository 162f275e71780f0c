"""Model families; each is a frozen object of settings that makes a `Classifier`."""

from collections.abc import Mapping

import torch
from jaxtyping import UInt8
from torch import Tensor

from crossclass.errors import UserError
from crossclass.models.classifier import STATISTICS, Classifier, MeanStd
from crossclass.models.preactresnet import PreActResNet
from crossclass.streams import stream_seed

AnyModel = PreActResNet
"""One family so far; a second makes it `Annotated[A | B, Field(discriminator="kind")]`."""


def build(settings: AnyModel, images: UInt8[Tensor, "n c h w"], classes: int, seed: int) -> Classifier:
    """The network for such images, initialised from a stream of its own.

    `images` are the training part: normalise=data takes its statistics, the others check the channels.
    """
    mean, std = _statistics(settings, images)
    channels = images.shape[1]
    if len(mean) not in (1, channels):
        raise UserError(
            f"model.normalise has {len(mean)} channels, the images have {channels}; use model.normalise=data"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, 0, 0, "init"))
        return settings(classes, channels, mean, std, images.shape[-1])


def rebuild(
    settings: AnyModel, tensors: Mapping[str, Tensor], classes: int, channels: int, size: int = 32
) -> Classifier:
    """The network of a checkpoint of ours, in eval mode; raises UserError if the tensors do not fit."""
    width = tensors["mean"].numel() if "mean" in tensors else 1
    with torch.random.fork_rng(devices=[]):
        model = settings(classes, channels, (0.0,) * width, (1.0,) * width, size)
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as e:
        raise UserError("the checkpoint's tensors do not fit the model that its card describes") from e
    return model.eval()


def _statistics(
    settings: AnyModel, images: UInt8[Tensor, "n c h w"]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if isinstance(settings.normalise, MeanStd):
        return settings.normalise.mean, settings.normalise.std
    if settings.normalise != "data":
        return STATISTICS[settings.normalise]
    values = images.double() / 255
    mean, std = values.mean(dim=(0, 2, 3)), values.std(dim=(0, 2, 3), correction=0)
    return tuple(mean.tolist()), tuple(std.clamp(min=1e-3).tolist())


__all__ = ["STATISTICS", "AnyModel", "Classifier", "MeanStd", "PreActResNet", "build", "rebuild"]
