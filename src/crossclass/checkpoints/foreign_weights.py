"""Anyone's file of weights, in the network that was named or that the file describes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crossclass import models
from crossclass.checkpoints import file_formats, match_state_dict, state_dicts
from crossclass.checkpoints.match_state_dict import Fit
from crossclass.core.config import Settings
from crossclass.core.errors import UserError
from crossclass.core.overrides import Changes, override
from crossclass.core.plugins import kind_of, members
from crossclass.data import AnyData, Splits


@dataclass(frozen=True)
class ForeignNetwork:
    """A network with the weights of a foreign file."""

    model: models.Classifier
    """In eval mode, on the CPU."""
    settings: models.AnyModel
    notes: list[str]
    """How the file was read, for the person who asked."""
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Mean and standard deviation that the file carries."""


class _Named(Settings):
    model: models.AnyModel | None = None


def load_foreign(path: Path, splits: Splits, given: Changes, allow_partial: bool) -> ForeignNetwork:
    """Anyone's weights in the network that was named, or that the file describes.

    `given` are settings of the network by path, such as `{"model.kind": "vit"}`. Raises UserError.
    """
    tree = file_formats.read(path)
    named = {"model", "model.kind"} & set(given)
    seen = _recognised(tree)
    if not named and (seen is None or seen.share < 1) and not allow_partial:
        closest = f"; the closest built-in is {_closest(seen)}" if seen else ""
        raise UserError(
            f"{path} is no network that is built in{closest}; name yours with "
            "model=python:module:factory, or a kind with model.kind=..."
        )
    settings = override(_Named(model=None if named or seen is None else seen.settings), given).model
    assert settings is not None
    classes, (_, channels, *_, size) = len(splits.class_names), splits.test.images.shape
    if seen is not None and seen.share == 1 and seen.classes != classes:
        raise other_classes(path, seen.classes, classes)
    notes: list[str] = (
        [] if named or seen is None else [f"recognized as {models.describe(settings, classes)}"]
    )
    normalised = any(_normalises(*item) for item in given.items())
    images = splits.train.images if len(splits.train) else splits.test.images
    model = models.build(settings if normalised else settings.replace(normalise="none"), images, classes, 0)
    target = model.net if isinstance(model, models.Wrapped) else model
    assert isinstance(target, nn.Module)
    fit = match_state_dict.load(
        target, tree, allow_partial=allow_partial, where=str(path), closest=_closest(seen) if seen else ""
    )
    notes += [str(fit), *(model.notes if isinstance(model, models.Wrapped) else ())]
    if not normalised:
        notes.append(_normalise(model, target, fit, classes, channels, size))
    carried = fit.normalisation[:2] if fit.normalisation else None
    return ForeignNetwork(model.eval(), settings, notes, carried)


def other_classes(path: Path, head: int, data: int) -> UserError:
    """The error for a file that tells other classes apart than the data have."""
    return UserError(
        f"{path} tells {head} classes apart, the data have {data}; give its own data with data.path=DIR (a "
        "class without images still needs its name in class_names)"
    )


def _normalise(
    model: models.Classifier,
    target: nn.Module,
    fit: Fit,
    classes: int,
    channels: int,
    size: int,
) -> str:
    """Choose the normalisation that nobody gave, put it into the model and say which and why."""
    own = target is not model and state_dicts.normalisation(dict(target.state_dict()))
    if own:
        return f"the network normalises itself ({', '.join(own[2])}); nothing is put in front of it"
    if {"mean", "std"} <= set(fit.state) and target is model:
        return "normalisation: the file's own"
    if fit.normalisation is not None:
        mean, std, names = fit.normalisation
        why = f"read from the file ({', '.join(names)})"
    else:
        name = _usual(classes, size) if channels == 3 else "none"
        (mean, std), why = models.statistics()[name], f"{name}, the usual one for such images"
    for buffer, values in (("mean", mean), ("std", std)):
        setattr(model, buffer, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))
    return f"normalisation: {why}; `doctor` tries the others, model.normalise=... sets it"


def _normalises(path: str, value: Any) -> bool:
    """Whether a change says which normalisation it is to be: `model.normalise=` or `model={...}`."""
    return path.startswith("model.normalise") or (
        path == "model"
        and (
            "normalise" in value
            if isinstance(value, dict)
            else "normalise" in getattr(value, "model_fields_set", ())
        )
    )


def _usual(classes: int, size: int) -> str:
    if size >= 128:
        return "imagenet"
    alike = (kind_of(d).replace("_", "") for d in members(AnyData) if d.shape == (classes, size))
    return next(alike, "none")


def _recognised(tree: dict[str, Any]) -> models.Recognized | None:
    """The built-in network that some candidate of the file describes best."""
    best: models.Recognized | None = None
    for candidate in state_dicts.candidates(tree):
        for _, tensors in state_dicts.strip_prefixes(candidate.tensors):
            seen = models.recognize(tensors)
            if seen is not None and (best is None or seen.share > best.share):
                best = seen
            if best is not None and best.share == 1:
                return best
    return best


def _closest(seen: models.Recognized) -> str:
    return f"{models.describe(seen.settings, seen.classes)} ({seen.share:.0%} of its parameters fit)"
