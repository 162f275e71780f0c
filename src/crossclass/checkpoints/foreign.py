"""Anyone's file of weights, in the network that was named or that the file describes."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from crossclass import models
from crossclass.attacks.norms import Linf
from crossclass.checkpoints import formats, matching
from crossclass.checkpoints.loaded import (
    Identity,
    LoadedCheckpoint,
    Source,
    describe,
    file_sha256,
    normalisation,
    not_the_classes,
)
from crossclass.core.errors import UserError
from crossclass.core.family import kind_of, members
from crossclass.core.overrides import Changes, changes_of, override
from crossclass.core.runtime import Runtime
from crossclass.data import AnyData, Splits


def stranger(
    path: Path,
    data: AnyData,
    splits: Splits,
    changes: Changes,
    runtime: Runtime,
    allow_partial: bool,
) -> LoadedCheckpoint:
    """Anyone's file of weights in the network that was named, or that the file describes."""
    tree = formats.read(path)
    wanted = changes_of(changes, "model")
    named = "model" in wanted or "model.kind" in wanted
    seen = _recognised(tree)
    if not named and (seen is None or seen.share < 1) and not allow_partial:
        closest = f"; the closest built-in is {_closest(seen)}" if seen else ""
        raise UserError(
            f"{path} is no network that is built in{closest}; name yours with "
            "model=python:module:factory, or a kind with model.kind=..."
        )
    settings = override(Source(model=None if named or seen is None else seen.settings), wanted).model
    assert settings is not None
    classes, (_, channels, *_, size) = len(splits.class_names), splits.test.images.shape
    if seen is not None and seen.share == 1 and seen.classes != classes:
        raise UserError(not_the_classes(path, seen.classes, classes))
    said: list[str] = [] if named or seen is None else [f"recognized as {models.describe(settings, classes)}"]
    given = any(_normalises(*change) for change in wanted.items())
    pictures = splits.train.images if len(splits.train) else splits.test.images
    built = settings if given else settings.replace(normalise="none")
    model = models.build(built, pictures, classes, 0)
    target = model.net if isinstance(model, models.Wrapped) else model
    assert isinstance(target, nn.Module)
    fit = matching.load(
        target, tree, allow_partial=allow_partial, where=str(path), closest=_closest(seen) if seen else ""
    )
    said += [str(fit), *(model.notes if isinstance(model, models.Wrapped) else ())]
    if not given:
        said.append(_normalise(model, target, fit, classes, channels, size))
    model = runtime.to_device(model.eval())  # type: ignore[assignment]
    told = Identity(
        checkpoint=path.stem,
        run="",
        epoch=None,
        chosen_by=None,
        data=describe(data),
        model=models.describe(settings, classes),
        normalise=normalisation(model),
        loaded=said,
        source=path.name,
        sha256=file_sha256(path),
    )
    carried = fit.normalisation[:2] if fit.normalisation else None
    return LoadedCheckpoint(model, splits, told, (Linf(),), carried)


def _normalise(
    model: models.Classifier, target: nn.Module, fit: matching.Fit, classes: int, channels: int, size: int
) -> str:
    """Choose the normalisation that nobody gave, put it into the model and say which and why."""
    own = target is not model and formats.normalisation(dict(target.state_dict()))
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
    return path.startswith("model.normalise") or (isinstance(value, dict) and "normalise" in value)


def _usual(classes: int, size: int) -> str:
    if size >= 128:
        return "imagenet"
    alike = (kind_of(d).replace("_", "") for d in members(AnyData) if d.shape == (classes, size))
    return next(alike, "none")


def _recognised(tree: dict[str, Any]) -> models.Recognized | None:
    """The built-in network that some candidate of the file describes best."""
    best: models.Recognized | None = None
    for candidate in formats.candidates(tree):
        for _, tensors in formats.strip_prefixes(candidate.tensors):
            seen = models.recognize(tensors)
            if seen is not None and (best is None or seen.share > best.share):
                best = seen
            if best is not None and best.share == 1:
                return best
    return best


def _closest(seen: models.Recognized) -> str:
    return f"{models.describe(seen.settings, seen.classes)} ({seen.share:.0%} of its parameters fit)"
