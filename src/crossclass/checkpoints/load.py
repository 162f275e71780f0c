"""Loads what a target names: a run folder (`RUN`, `RUN@best.test`), a checkpoint file, or anyone's weights.

For a foreign file the network is `Source.model`, or recognized by the names and shapes in the file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor

from crossclass import models
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.checkpoints.card import Card, file_sha256, has_card, load_checkpoint
from crossclass.checkpoints.file_formats import SUFFIXES
from crossclass.checkpoints.foreign_weights import Aspect, NormalisedBy, load_foreign, other_classes
from crossclass.checkpoints.other_formats import known_folder
from crossclass.checkpoints.run_folder import RunFolder, split_target
from crossclass.checkpoints.shards import file_in, is_folder_of_weights
from crossclass.core.config import Settings
from crossclass.core.device import to_device
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.overrides import Changes, changes_of, override
from crossclass.core.runtime import Runtime
from crossclass.core.torch_state import usual_torch_state
from crossclass.core.trust import names_of_code, require_consent, trusting
from crossclass.data import AnyData, Npz, Splits
from crossclass.data.channels import ONE_OF_THREE, one_channel, require_gray, with_channels_of


class Weights(Settings):
    """Which part of a foreign file is the network."""

    container: str = ""
    """Its dotted name, such as `state_dict_ema`, `model.ema`, `0` of a list or the prefix `student`."""


class Source(Settings):
    """Where the network and the images of a checkpoint come from; a checkpoint of a run needs none of it."""

    model: models.AnyModel | None = None
    """The network of a foreign file; unset: recognized by the names and shapes in the file."""
    data: AnyData | None = None
    """The images; unset: those of the run, where they lay when it was trained."""
    weights: Weights = Weights()
    """Which part of a foreign file is the network; unset: the one that fits."""
    changes: dict[str, Any] = Field(default={})
    """Settings to change by path, such as `{"data.path": DIR, "model.width": 32}`."""

    def of(self, part: str) -> dict[str, Any]:
        """What is given for `model` or `data`, by path."""
        whole = getattr(self, part)
        return ({} if whole is None else {part: whole}) | changes_of(self.changes, part)

    @property
    def container(self) -> str:
        """The part of a foreign file that was asked for; empty if none was."""
        return override(self.replace(changes={}), changes_of(self.changes, "weights")).weights.container


@dataclass(frozen=True)
class Identity:
    """Which weights these are, on which images they are measured, and how they were read."""

    checkpoint: str
    """`best.val`, `last`, or the name of the file without its ending."""
    data: str
    model: str
    normalise: dict[str, list[float]]
    source: str | None
    """The file's name; None for a network in memory."""
    sha256: str | None
    """Of the file's bytes; None for a network in memory."""
    run: str = ""
    """The name of the run folder; empty for a file that belongs to none."""
    epoch: int | None = None
    chosen_by: str | None = None
    loaded: list[str] = field(default_factory=list)
    """How a foreign file was read."""
    published: dict[str, Any] | None = None
    """What the author of the network says of its inputs, and where."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A network that can be measured, with what is known about it."""

    model: models.Classifier
    """On the device, in eval mode."""
    splits: Splits
    about: Identity
    threats: tuple[AnyThreat, ...]
    """The perturbations that it is attacked with by default."""
    file_normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation that a foreign file carries."""
    normalised_by: NormalisedBy = "run"
    other_data: bool = False
    """Whether the images may be others than the network was trained on: a file of others, or other data."""
    usual: str = "none"
    """The name of the normalisation that is usual for such images."""
    settings: models.AnyModel | None = None
    """The network of a foreign file."""
    given: frozenset[str] = frozenset()
    """Those of its settings that the user gave."""
    warnings: tuple[str, ...] = ()
    """Where what is done to the images is not what the author of the network says."""
    obeyed: bool = False
    """Whether the network gets the images as they are given: a better way is said, and not taken."""

    @property
    def guessed(self) -> frozenset[Aspect]:
        """What neither the user nor the file nor the network says."""
        if self.obeyed:
            return frozenset()
        of_images: tuple[Aspect, ...] = ("channel order", "orientation", "brightness", "class order")
        of_constants: tuple[Aspect, ...] = ("normalisation", "range")
        of_network: tuple[Aspect, ...] = ("architecture",)
        return frozenset(
            (of_images if self.other_data else ())
            + (of_constants if self.normalised_by in ("guess", "library") else ())
            + (of_network if self.settings is not None else ())
        )

    @property
    def name(self) -> str:
        """The checkpoint, and the run or file it is of."""
        return f"{self.about.checkpoint} of {self.about.run}" if self.about.run else self.about.checkpoint


def checkpoint_files(targets: Sequence[str]) -> list[Path]:
    """The files of targets: of a run folder `best.val` (or `best.test`) and `last`. Raises UserError."""
    return [path for target in targets for path in _files(target)]


def load_checkpoints(
    targets: Sequence[str],
    source: Source = Source(),
    runtime: Runtime | None = None,
    *,
    allow_partial: bool = False,
) -> Iterator[LoadedCheckpoint]:
    """Load the networks that targets name, one after the other, each with its images.

    Args:
        targets: Run folders, `RUN@checkpoint`, or files of weights.
        source: The network and images of foreign files, and changes of the images of runs.
        runtime: The device.
        allow_partial: Leave weights that a foreign file lacks at random values.

    Raises:
        UserError: A file is missing or damaged, does not fit its network, or needs images that nobody gave.
    """
    runtime = runtime or Runtime()
    read: dict[str, Splits] = {}

    def images(data: AnyData, where: str) -> Splits:
        """Read once, however many checkpoints are measured on them."""
        key = data.digest() + str(getattr(data, "path", ""))
        if key not in read:
            read[key] = data().to(runtime.torch_device)
        if len(read[key].test) == 0:
            raise UserError(f"{where}: the data hold no test images; give some with data.path=DIR")
        return read[key]

    files = checkpoint_files(targets)
    if source.of("model") and all(map(has_card, files)):
        setting = next(iter(source.of("model")))
        raise UserError(f"{files[0]} says itself which model it is; '{setting}' is for files of others")
    container = source.container
    if container and all(map(has_card, files)):
        raise UserError(f"{files[0]} holds one network; 'weights.container' is for files of others")
    for path in files:
        tensors, card = load_checkpoint(path) if has_card(path) else ({}, None)
        data = _data(path, card, source)
        splits = images(data, str(path))
        threats: tuple[AnyThreat, ...] = (Linf(),)
        notes = list[str]()
        normalisation, usual = None, "none"
        network: models.AnyModel | None = None
        given = frozenset[str]()
        by: NormalisedBy = "run"
        warnings: tuple[str, ...] = ()
        if card is not None:
            if card.channels == 1 and splits.test.images.shape[1] == 3:
                require_gray(splits, str(path))
                splits, notes = one_channel(splits), [ONE_OF_THREE]
            _check_fit(card, splits, path)
            model = _build(path, tensors, card)
            models.look_for_head(model, splits.test.images)
            about = replace(identity(card, path, data, model), loaded=notes)
            if card.threat not in (None, Linf()):
                threats = (card.threat, Linf())
        else:
            named = source.of("model")
            try:
                foreign, splits, note = with_channels_of(
                    lambda s: load_foreign(path, s, named, allow_partial, container),  # noqa: B023
                    splits,
                )
            except UserError as e:
                if len(files) < 2 or not {"model", "model.kind"} & set(named):
                    raise
                raise UserError(
                    f"{e}; model=... is of all files of a call: for two networks make two calls, and give "
                    "both results to crossclass report"
                ) from e
            model, normalisation = foreign.model, foreign.normalisation
            by, usual = foreign.normalised_by, foreign.usual
            network, given, warnings = foreign.settings, foreign.given, foreign.warnings
            about = Identity(
                checkpoint=path.stem,
                data=describe_data(data),
                model=models.describe(foreign.settings, len(splits.class_names)),
                normalise=constants(model),
                source=path.name,
                sha256=file_sha256(path),
                loaded=[*foreign.notes, *([note] if note else [])],
                published=foreign.published.to_dict() if foreign.published else None,
            )
        model = to_device(model, runtime.torch_device, runtime.memory_format)
        other = card is None or _are_others(data, card, splits)
        yield LoadedCheckpoint(
            model, splits, about, threats, normalisation, by, other, usual, network, given, warnings
        )


def load_second(
    target: str, data: Changes, model: Changes, runtime: Runtime, *, allow_partial: bool = False
) -> LoadedCheckpoint:
    """A network beside the one that the settings are about: recognised by its file, else of the same kind.

    It may be of another architecture. Which part of its file it is, and how it is fed, is not said by them.

    Args:
        target: The run or the file.
        data: Settings of the images.
        model: Settings of the first network and of its file, such as `model.kind`.
        runtime: The device.
        allow_partial: As in `load_checkpoints`.

    Raises:
        UserError: It is neither recognised nor fits the network that the settings name.
    """
    try:
        return next(
            load_checkpoints([target], Source(changes=dict(data)), runtime, allow_partial=allow_partial)
        )
    except UserError as first:
        of_the_first = ("weights", "model.normalise", "model.head", "model.saliency")
        alike = {k: v for k, v in model.items() if k not in of_the_first and k.split(".")[0] != "weights"}
        if not {"model", "model.kind"} & set(alike):
            raise
        try:
            source = Source(changes={**data, **alike})
            return next(load_checkpoints([target], source, runtime, allow_partial=allow_partial))
        except UserError as second:
            if str(second) == str(first):
                raise first from None
            raise UserError(
                f"{target} is no network that is built in, nor the one that model=... names: {second}"
            ) from second


@usual_torch_state()
def load_model(path: Path, *, trust: bool = False) -> tuple[models.Classifier, Card]:
    """The network of a run's checkpoint, in eval mode, with its card.

    `trust` lets the card name code that is imported and run. Raises UserError.
    """
    tensors, card = load_checkpoint(path)
    with trusting(everything=trust):
        return _build(path, tensors, card), card


def _build(path: Path, tensors: Mapping[str, Tensor], card: Card) -> models.Classifier:
    require_consent(names_of_code(card.model.to_dict()), str(path))
    return models.rebuild(card.model, tensors, card.classes, card.channels, card.size)


def identity(card: Card, path: Path, data: AnyData, model: models.Classifier) -> Identity:
    """Which checkpoint of a run this is."""
    return Identity(
        checkpoint=card.checkpoint,
        data=describe_data(data),
        model=models.describe(card.model, card.classes),
        normalise=constants(model),
        source=path.name,
        sha256=file_sha256(path),
        run=path.parent.name if _env(path, card) else "",
        epoch=card.epoch,
        chosen_by=card.chosen_by,
    )


_SIZES = ("n_train", "n_val", "n_test")


def describe_data(data: AnyData) -> str:
    """The kind of a data set, its numbers of images, whether a part was drawn, and its label noise."""
    plain = data.to_dict()
    sizes = [f"{k}={plain[k]}" for k in _SIZES if plain.get(k) is not None]
    if any(plain.get(k) for k in _SIZES) and plain.get("balanced", False) is not False:
        sizes.append(f"class-balanced, subset_seed={plain['subset_seed']}")
    if plain.get("label_noise"):
        sizes.append(f"label_noise={plain['label_noise']:g} of the training labels")
    return f"{plain['kind']} ({', '.join(sizes)})" if sizes else str(plain["kind"])


def _files(target: str) -> list[Path]:
    path, (folder, which) = Path(os.path.expanduser(target)), split_target(target)
    if path.is_file():
        return [path]
    if is_folder_of_weights(path):
        return [file_in(path)]
    if path.is_dir() and not (path / "config.yaml").is_file():
        other = known_folder(path, [p.name for p in path.iterdir()])
        if other is not None:
            raise other
    if folder.suffix in SUFFIXES and not folder.is_dir():
        raise UserError(f"there is no checkpoint {target}")
    there = RunFolder.at(folder).checkpoints()
    chosen = [which] if which else [*[b for b in ("best.val", "best.test") if b in there][:1], "last"]
    for name in chosen:
        if name not in there:
            hint = did_you_mean(name, there) if there else "; train it first"
            raise UserError(f"{folder} has no checkpoint '{name}'{hint}")
    return [RunFolder(folder).checkpoint(name) for name in chosen]


def _env(path: Path, card: Card) -> dict[str, Any] | None:
    """env.json beside a checkpoint, if both are of one run; a file may have been copied elsewhere."""
    env: dict[str, Any] = RunFolder(path.parent).read("env.json") or {}
    return env if card.digest is not None and env.get("digest") == card.digest else None


def _data(path: Path, card: Card | None, source: Source) -> AnyData:
    """The images for a file: those of its run, where they lay, with what the source changes."""
    given = source.of("data")
    base = card.data if card is not None else None
    if base is None:
        if not given:
            if path.suffix == ".json":
                raise UserError(
                    f"{path} holds results, no network; crossclass report {path} shows it, crossclass table "
                    f"{path} prints it, each beside others too"
                )
            raise UserError(
                f"nothing says which images {path} is for; give data.path=DIR (train.npz and test.npz) or "
                "data.kind=cifar10 data.path=DIR"
            )
        base = None if {"data", "data.kind"} & set(given) else Npz()
    elif card is not None and hasattr(base, "path") and (env := _env(path, card)):
        base = base.replace(path=env.get("data_path") or base.path)
    data = override(Source(data=base), given).data
    assert data is not None
    return data


def _are_others(data: AnyData, card: Card, splits: Splits) -> bool:
    """Whether the images are of another kind than those that a run was trained on, or are other files."""
    trained_on = card.data
    if trained_on is None or trained_on.kind != data.kind:
        return True
    checksum = getattr(trained_on, "checksum", None)
    return checksum is not None and checksum != splits.checksum


def constants(model: models.Classifier) -> dict[str, list[float]]:
    """The constants that a model normalises with, as plain numbers."""
    return {k: [round(v, 4) for v in getattr(model, k).flatten().tolist()] for k in ("mean", "std")}


def _check_fit(card: Card, splits: Splits, path: Path) -> None:
    """Raises UserError if a checkpoint is for other classes or channels than the data have."""
    channels, classes = splits.test.images.shape[1], len(splits.class_names)
    if card.classes != classes:
        raise other_classes(path, card.classes, splits)
    if card.channels != channels:
        raise UserError(
            f"{path} is for images of {card.channels} channels, the data have {channels}; give its own "
            "data with data.path=DIR"
        )
