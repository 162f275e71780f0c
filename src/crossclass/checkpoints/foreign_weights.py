"""A network with the weights of any file: the network that was named, or the built-in one that fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

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
from crossclass.models.base import sides
from crossclass.models.external_model import ExternalModel
from crossclass.models.published import Preprocessing, published, published_beside

Aspect = Literal[
    "normalisation", "range", "channel order", "orientation", "brightness", "class order", "architecture"
]
"""What of a network and of its inputs and outputs may be guessed."""
NormalisedBy = Literal["user", "network", "file", "beside", "library", "run", "guess"]
"""Who says how the images are normalised; `beside`: a file beside the weights, `library`: that of the
network, whose own weights these may not be; `guess`: nobody."""


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
    normalised_by: NormalisedBy
    usual: str
    """The name of the normalisation that is usual for such images."""
    given: frozenset[str]
    """The settings of the network that the user gave, such as `shortcut_input`."""
    published: Preprocessing | None = None
    """What the author says of its inputs."""
    warnings: tuple[str, ...] = ()
    """Where what is done is not what the author says."""


class _Named(Settings):
    model: models.AnyModel | None = None


def load_foreign(
    path: Path, splits: Splits, given: Changes, allow_partial: bool, container: str = ""
) -> ForeignNetwork:
    """Load a file into the network that was named, or that the file describes.

    Args:
        path: The file of weights.
        splits: The images, which say the number of classes and channels.
        given: Settings of the network by path, such as `{"model.kind": "vit"}`.
        allow_partial: Leave a few weights that the file lacks at random values.
        container: The part of the file to read, by its dotted name; empty: the one that fits best.

    Raises:
        UserError: The file cannot be read, fits no network that is built in, or not the one that was named.
    """
    tree: dict[str, Any] = file_formats.read(path)
    if container:
        tree = state_dicts.select(tree, container, str(path))
    closest = _closest_built_in(tree, len(splits.class_names))
    in_words = ""
    if closest is not None:
        described = models.describe(closest.settings, closest.classes)
        in_words = f"{described} ({closest.share:.0%} of its parameters fit)"
    named = "model" in given or "model.kind" in given
    if not named and (closest is None or (closest.share < 1 and not allow_partial)):
        hint = f"; the closest built-in is {in_words}" if closest else ""
        raise UserError(
            f"{path} is no network that is built in{hint}; name yours with model=python:MODULE:FUNCTION, or "
            "a kind with model.kind=..."
        )
    base = None if named or closest is None else closest.settings
    settings = override(_Named(model=base), given).model
    assert settings is not None
    if not named and not container:
        _require_one(tree, len(splits.class_names), path)
    classes, channels = len(splits.class_names), splits.test.images.shape[1]
    if closest is not None and closest.share == 1 and closest.classes != classes:
        raise other_classes(path, closest.classes, splits)
    notes = [] if named else [f"recognized as {models.describe(settings, classes)}"]
    normalised = "normalise" in _names(given)
    images = splits.train.images if len(splits.train) else splits.test.images
    model = models.build(settings if normalised else settings.replace(normalise="none"), images, classes, 0)
    target = model.net if isinstance(model, models.Wrapped) else model
    assert isinstance(target, nn.Module)
    fit = match_state_dict.load(
        target,
        tree,
        allow_partial=allow_partial,
        where=str(path),
        closest=in_words,
        check=partial(_require_trained, model, path, splits, allow_partial),
    )
    if container:
        notes.append(f"weights.container={container}")
    notes.append(str(fit))
    usual = _usual(classes, models.size_of(splits.test.images)) if channels == 3 else "none"
    said = published_beside(path, channels)
    if said is None and isinstance(model, models.Wrapped) and isinstance(settings, ExternalModel):
        said = published(settings, model.net, channels)
    by: NormalisedBy = "user"
    if not normalised:
        by, note = _normalise(model, target, fit, usual, said)
        notes.append(note)
    warnings: tuple[str, ...] = ()
    if said is not None:
        if by in ("user", "file") and _unlike(model, said):
            warnings = (f"{_constants_of(said)}; another normalisation is set, and taken",)
        if said.size is not None and said.size != (there := tuple(splits.test.images.shape[2:])):
            wanted, given_size = (" x ".join(map(str, size)) for size in (said.size, there))
            notes.append(f"{said.source} says images of {wanted}; these are {given_size} and are not resized")
    if fit.partial:
        warnings = (*warnings, f"--allow-partial: {fit.lost}")
    models.look_for_head(model, images)
    notes += model.notes if isinstance(model, models.Wrapped) else ()
    carried = fit.normalisation[:2] if fit.normalisation else None
    return ForeignNetwork(model.eval(), settings, notes, carried, by, usual, _names(given), said, warnings)


def other_classes(path: Path, head: int, splits: Splits) -> UserError:
    """The error for a file whose number of classes is not that of the data."""
    data, labels = len(splits.class_names), [part.labels for part in (splits.train, splits.val, splits.test)]
    from_1 = head == data - 1 and not any(bool((part == 0).any()) for part in labels)
    why = " (no image of class 0: do labels begin at 1?)" if from_1 else ""
    return UserError(
        f"{path} tells {head} classes apart, the data have {data}{why}; give its own data with data.path=DIR "
        "(a class without images still needs its name in class_names)"
    )


def _require_trained(
    model: models.Classifier, path: Path, splits: Splits, allow_partial: bool, fit: Fit
) -> None:
    """Raise UserError for a head of other classes, and for a partial load that leaves it, or most, random."""
    heads, target = models.head_weights(model), model.net if isinstance(model, models.Wrapped) else model
    classes = len(splits.class_names)
    for name, theirs, own in fit.mismatched:
        columns = own.index(classes) if name in heads and len(theirs) == len(own) and classes in own else None
        if columns is not None and theirs[columns] != classes:
            raise other_classes(path, theirs[columns], splits)
    if not allow_partial:
        return  # every difference is refused
    left = {*fit.missing, *(name for name, _, _ in fit.mismatched)}
    if lost := sorted(heads & left):
        raise UserError(
            f"{path} holds no weights for the head of {_kind(model)} ({', '.join(lost)}), which would stay "
            "random; choose the model that the file describes"
        )
    sizes = {n: p.numel() for n, p in target.named_parameters()}
    random = sum(size for name, size in sizes.items() if name in left)
    if fit.state and 2 * random > sum(sizes.values()):
        raise UserError(
            f"{path} leaves {random / sum(sizes.values()):.0%} of the weights of {_kind(model)} random; "
            "choose the model that the file describes"
        )


def _kind(model: models.Classifier) -> str:
    return model.name if isinstance(model, models.Wrapped) else type(model).__name__


def _normalise(
    model: models.Classifier, target: nn.Module, fit: Fit, usual: str, said: Preprocessing | None
) -> tuple[NormalisedBy, str]:
    """Choose the normalisation that the user did not give, put it into the model; who says it, and a note."""
    own = target is not model and state_dicts.normalisation(dict(target.state_dict()))
    if own:
        names = ", ".join(own[2])
        return "network", f"the network normalises itself ({names}); nothing is put in front of it"
    if {"mean", "std"} <= set(fit.state) and target is model:
        return "file", "normalisation: the file's own"
    by: NormalisedBy = "guess" if fit.normalisation is None else "file"
    if fit.normalisation is not None:
        mean, std, named = fit.normalisation
        why = f"normalisation: read from the file ({', '.join(named)})"
    elif said is not None:
        by = "beside" if said.source.endswith("beside the file") else "library"
        mean, std = said.constants
        why = f"normalisation: {_constants_of(said)}"
    else:
        mean, std = models.statistics()[usual]
        why = f"normalisation: nobody says it, and {usual} is the usual one for such images"
    for buffer, values in (("mean", mean), ("std", std)):
        setattr(model, buffer, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))
    return by, f"{why}; model.normalise=... sets it"


def _constants_of(said: Preprocessing) -> str:
    mean, std = ([round(v, 4) for v in values] for values in said.constants)
    return f"{said.source} says mean {mean}, std {std} (of images in [0, 1])"


def _unlike(model: models.Classifier, said: Preprocessing) -> bool:
    """Whether the model normalises otherwise; one constant stands for all channels."""
    pairs = zip((model.mean, model.std), said.constants, strict=True)
    return any(bool(((v.flatten() - v.new_tensor(w)).abs() > 2e-3).any()) for v, w in pairs)


def _names(given: Changes) -> frozenset[str]:
    """The settings that are given, by `model.normalise=...` as well as by `model={normalise: ...}`."""
    whole = given.get("model")
    inside = whole if isinstance(whole, dict) else getattr(whole, "model_fields_set", ())
    return frozenset([*inside, *(path.split(".")[1] for path in given if "." in path)])


def _usual(classes: int, size: models.Size) -> str:
    if max(sides(size)) >= 128:
        return "imagenet"
    alike = (kind_of(d).replace("_", "") for d in members(AnyData) if d.shape == (classes, size))
    return next(alike, "none")


def _closest_built_in(tree: dict[str, Any], classes: int) -> models.Recognized | None:
    """The built-in network that names and shapes in the file fit best; of equals the one for the data."""
    best: models.Recognized | None = None
    for _, seen in _recognized(tree):
        if best is None or seen.share > best.share:
            best = seen
        if seen.share == 1 and seen.classes == classes:
            return seen
    return best


def _recognized(tree: dict[str, Any]) -> Iterator[tuple[str, models.Recognized]]:
    """What parts of the file look like, under their dotted names, the likeliest parts first."""
    for candidate in state_dicts.candidates(tree):
        for prefix, tensors in state_dicts.strip_prefixes(candidate.tensors):
            seen = models.recognize(tensors)
            if seen is not None:
                yield ".".join([*([candidate.where] if candidate.where else []), *prefix]), seen


def _require_one(tree: dict[str, Any], classes: int, path: Path) -> None:
    """Raise UserError if a file holds networks of several kinds, of which no more than one is for the data.

    Networks of one kind, such as averaged weights, are told apart where they are loaded.
    """
    kinds: dict[tuple[models.AnyModel, int], str] = {}
    for where, seen in _recognized(tree):
        if seen.share == 1:
            kinds.setdefault((seen.settings, seen.classes), where)
    fitting = {kind: where for kind, where in kinds.items() if kind[1] == classes} or kinds
    if len(fitting) > 1:
        named = sorted((where, models.describe(*kind)) for kind, where in fitting.items())
        there = ", ".join(f"{where or 'its top'} ({what})" for where, what in named)
        raise UserError(
            f"{path} holds {len(fitting)} networks of different kinds: {there}; choose one with "
            f"weights.container={next(where for where, _ in named if where)}"
        )
