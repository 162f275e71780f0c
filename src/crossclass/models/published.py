"""How the author of a network, or of its weights, says that images are fed to it.

timm writes it into `pretrained_cfg` of its networks (config.json on the Hub), torchvision into the transforms
of its weights, transformers into preprocessor_config.json. All become constants for images in [0, 1].
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from torch import nn

from crossclass.core.errors import UserError
from crossclass.data.base import PerChannel, Statistics
from crossclass.models.external_model import HF, ExternalModel, Torchvision
from crossclass.models.hub import downloaded

BESIDE = ("preprocessor_config.json", "config.json")
"""Files beside a file of weights that may say it."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to images in [0, 1] before a network, and who says so."""

    mean: PerChannel
    std: PerChannel
    source: str
    size: tuple[int, int] | None = None
    """Height and width, in pixels."""
    more: dict[str, Any] = field(default_factory=dict)
    """What else is known, such as `crop_pct` and `interpolation`; nothing is done with it."""

    @property
    def constants(self) -> Statistics:
        """Mean and standard deviation."""
        return self.mean, self.std

    def to_dict(self) -> dict[str, Any]:
        """For the conditions of a measurement."""
        out = {"source": self.source, "mean": list(self.mean), "std": list(self.std)}
        return out | ({"size": list(self.size)} if self.size else {}) | self.more


def published(settings: ExternalModel, net: nn.Module, channels: int) -> Preprocessing | None:
    """What the library that a network is from says; none if it does not, or for other channels.

    Args:
        settings: Of the network.
        net: The network itself, without our normalisation.
        channels: Of the images.
    """
    cfg = next((c for m in net.modules() if (c := getattr(m, "pretrained_cfg", None))), None)
    found = _of_timm(cfg, f"pretrained_cfg of {settings}")
    if found is None and isinstance(settings, Torchvision):
        found = _of_torchvision(settings)
    if found is None and isinstance(settings, HF):
        try:
            path = downloaded(settings.repo, BESIDE[0])
        except UserError:  # not every repository has one
            return None
        found = _read(path, f"{BESIDE[0]} of {settings.repo}")
    return found if found and len(found.mean) in (1, channels) else None


def published_beside(path: Path, channels: int) -> Preprocessing | None:
    """What preprocessor_config.json, or timm's config.json, beside a file of weights says."""
    for name in BESIDE:
        found = _read((path if path.is_dir() else path.parent) / name, f"{name} beside the file")
        if found and len(found.mean) in (1, channels):
            return found
    return None


def _read(path: Path, source: str) -> Preprocessing | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    return _of_timm(config.get("pretrained_cfg"), source) or _of_preprocessor(config, source)


def _of_timm(cfg: Any, source: str) -> Preprocessing | None:
    def value(name: str) -> Any:
        return cfg.get(name) if isinstance(cfg, Mapping) else getattr(cfg, name, None)

    constants = _constants(value("mean"), value("std")) if cfg else None
    if constants is None:
        return None
    more = {n: v for n in ("crop_pct", "interpolation") if isinstance(v := value(n), int | float | str)}
    return Preprocessing(*constants, source, _pair(value("input_size")), more)


def _of_torchvision(settings: Torchvision) -> Preprocessing | None:
    try:
        import torchvision

        every = torchvision.models.get_model_weights(settings.name)
        weights = getattr(every, (settings.weights or "DEFAULT").split(".")[-1])
        transforms = weights.transforms()
    except Exception:  # older versions know no weights, some networks have none
        return None
    constants = _constants(getattr(transforms, "mean", None), getattr(transforms, "std", None))
    if constants is None:
        return None
    return Preprocessing(
        *constants, f"the transforms of {settings}'s weights {weights.name}", _pair(transforms.crop_size)
    )


def _of_preprocessor(config: Mapping[str, Any], source: str) -> Preprocessing | None:
    """The image processors of transformers: rescaled (unless told otherwise), then normalised."""
    if "image_mean" not in config and "do_normalize" not in config:
        return None
    mean: PerChannel = (0.0,)
    std: PerChannel = (1.0,)
    if config.get("do_normalize", True):
        constants = _constants(config.get("image_mean"), config.get("image_std"))
        if constants is None:
            return None
        mean, std = constants
    factor = config.get("rescale_factor") or 1 / 255
    if not isinstance(factor, int | float) or not isfinite(factor) or factor <= 0:
        return None
    scale = 255 * float(factor) if config.get("do_rescale", True) else 255.0  # bytes are what is rescaled
    if config.get("rescale_offset") and config.get("do_rescale", True):
        mean = tuple(m + 1 for m in mean)
    if abs(scale - 1) > 1e-3:
        mean, std = tuple(v / scale for v in mean), tuple(v / scale for v in std)
    size = config.get("crop_size") if config.get("do_center_crop") else config.get("size")
    return Preprocessing(mean, std, source, _pair(size))


def _constants(mean: Any, std: Any) -> Statistics | None:
    """Mean and standard deviation, if both are usable numbers."""
    both = tuple((v,) if isinstance(v, int | float) else v for v in (mean, std))
    if not all(isinstance(v, Sequence) and 0 < len(v) <= 64 for v in both) or len(both[0]) != len(both[1]):
        return None
    if not all(isinstance(x, int | float) and isfinite(x) for v in both for x in v) or min(both[1]) <= 0:
        return None
    return tuple(map(float, both[0])), tuple(map(float, both[1]))


def _pair(size: Any) -> tuple[int, int] | None:
    """Height and width from 224, [224], [3, 224, 224], {height, width} or {shortest_edge}."""
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        size = (size.get("height", edge), size.get("width", edge))
    if isinstance(size, int):
        size = (size, size)
    if not isinstance(size, Sequence) or not size or not all(isinstance(s, int) for s in size):
        return None
    return int(size[-2:][0]), int(size[-1])
