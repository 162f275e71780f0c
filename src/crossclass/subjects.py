"""What a target on the command line stands for: whose model, on whose images, against which ball.

A target is a run folder (`RUN`, `RUN@best.test`), a checkpoint of ours, or anyone's file of weights.
For a stranger's file the network is `model=...`, or recognised by the names and shapes in the file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crossclass import checkpoint, matching, models, weights
from crossclass.data import AnyData, Npz, Splits
from crossclass.errors import UserError, did_you_mean
from crossclass.importing import ask_trust
from crossclass.recipes import Run
from crossclass.runtime import Runtime
from crossclass.settings import Settings, load_yaml, override, split_assignment
from crossclass.store import RunFolder
from crossclass.threat import AnyThreat, Linf


@dataclass(frozen=True)
class Subject:
    """A model that can be measured, with what is known about it."""

    model: models.Classifier
    """On the device, in eval mode."""
    splits: Splits
    about: dict[str, Any]
    """`checkpoint, run, epoch, chosen_by, data, model, normalise, loaded`: plain, for the JSON files."""
    threats: tuple[AnyThreat, ...]
    """The balls it is measured under unless told otherwise."""
    file_normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and std that a stranger's file carries."""

    @property
    def name(self) -> str:
        """What to call it beside others: the checkpoint, and the run or file it is of."""
        return f"{self.about['checkpoint']} of {self.about['run']}" if self.about["run"] else self.file

    @property
    def file(self) -> str:
        """The checkpoint's own name."""
        return str(self.about["checkpoint"])


class Source(Settings):
    """Where a stranger's model and images come from; what stands in a run folder needs none of it."""

    model: models.AnyModel | None = None
    """Unset: recognised by the names and shapes in the file."""
    data: AnyData | None = None


def subjects(
    targets: Sequence[str],
    changes: Sequence[str] = (),
    runtime: Runtime | None = None,
    *,
    trust: bool = False,
    allow_partial: bool = False,
) -> Iterator[Subject]:
    """The models that targets stand for, one after the other; `changes` are `data.` and `model` texts.

    Raises UserError. `trust` reads pickles and imports code named in files; `allow_partial` leaves
    weights that the file lacks at random values.
    """
    runtime = runtime or Runtime()
    shared: dict[str, Splits] = {}

    def images(data: AnyData, where: str) -> Splits:
        """Read once, however many checkpoints are measured on them."""
        key = data.digest() + str(getattr(data, "path", ""))
        if key not in shared:
            shared[key] = data().to(runtime.place)
        if len(shared[key].test) == 0:
            raise UserError(f"{where}: the data hold no test images; give some with data.path=DIR")
        return shared[key]

    for target in targets:
        found = _files(target)
        if found is None:
            path = Path(target)
            splits = images(data := _data(changes, path), target)
            yield _stranger(path, data, splits, changes, runtime, trust, allow_partial)
            continue
        files, run = found
        _only_data(changes, target)
        for path in files:
            tensors, card = checkpoint.load(path)
            if "model" not in card:
                raise UserError(f"{path} holds no model (a resume state?); give best.val, best.test or last")
            data = _run_data(run, path, changes)
            splits = images(data, str(path))
            _fits(card, splits, path)
            model = runtime.placed(_ours(tensors, card, path, trust))
            assert isinstance(model, models.Classifier)
            about = identity(card, path.parent.name if run else "", data, model)
            threat = run.threat if run else Linf()
            yield Subject(model, splits, about, (threat,) if threat == Linf() else (threat, Linf()))


def load_model(path: Path, *, trust: bool = False) -> tuple[models.Classifier, dict[str, Any]]:
    """A model of ours from its checkpoint file, in eval mode, with its card; raises UserError."""
    tensors, card = checkpoint.load(path)
    if "model" not in card:
        raise UserError(f"{path} holds no model (a resume state?); give best.val, best.test or last")
    return _ours(tensors, card, path, trust), card


def identity(card: dict[str, Any], run: str, data: AnyData, model: models.Classifier) -> dict[str, Any]:
    """Which checkpoint of ours an object is about: its run and name, its epoch and what chose it."""
    return {
        "checkpoint": card["checkpoint"],
        "run": run,
        "epoch": card["epoch"],
        "chosen_by": card["chosen_by"],
        "data": describe(data),
        "model": models.describe(models.settings_of(card["model"]), card["classes"]),
        "normalise": normalisation(model),
        "loaded": [],
    }


def describe(data: AnyData) -> str:
    """A data set in a few words."""
    plain = data.plain()
    sizes = [f"{k}={plain[k]}" for k in ("n_train", "n_val", "n_test") if plain.get(k) is not None]
    return f"{plain['kind']} ({', '.join(sizes)})" if sizes else str(plain["kind"])


def normalisation(model: models.Classifier) -> dict[str, list[float]]:
    """The constants that a model normalises with, as plain numbers."""
    return {k: [round(v, 4) for v in getattr(model, k).flatten().tolist()] for k in ("mean", "std")}


def _ours(
    tensors: dict[str, torch.Tensor], card: dict[str, Any], path: Path, trust: bool
) -> models.Classifier:
    ask_trust(card["model"], str(path), trust)
    settings = models.settings_of(card["model"])
    size = card.get("size", 32)  # cards of earlier versions: nets that take any size
    return models.rebuild(settings, tensors, card["classes"], card["channels"], size)


def _files(target: str) -> tuple[list[Path], Run | None] | None:
    """Checkpoints of ours that a target names, with their run where it is known; None for strangers."""
    place, at, which = target.partition("@")
    path = Path(target)
    if path.is_file():
        if not checkpoint.is_ours(path):
            return None
        return [path], _run_of(path.parent)
    folder = Path(place)
    if folder.suffix in weights.SUFFIXES and not folder.is_dir():
        raise UserError(f"there is no checkpoint {target}")
    there = RunFolder.at(folder).checkpoints()
    chosen = [which] if at else [*[b for b in ("best.val", "best.test") if b in there][:1], "last"]
    for name in chosen:
        if name not in there:
            hint = did_you_mean(name, there) if there else "; train it first"
            raise UserError(f"{folder} has no checkpoint '{name}'{hint}")
    return [RunFolder(folder).checkpoint(name) for name in chosen], _run_of(folder)


def _run_of(folder: Path) -> Run | None:
    if not (folder / "config.yaml").exists():
        return None
    return load_yaml(Run, RunFolder.at(folder).config(), str(folder / "config.yaml"))


def _run_data(run: Run | None, path: Path, changes: Sequence[str]) -> AnyData:
    if run is None:
        return _data(changes, path)
    data, env = run.data, RunFolder.at(path.parent).read("env.json") or {}
    if hasattr(data, "path") and env.get("data_path"):
        data = data.but(path=env["data_path"])
    return override(data, [c.removeprefix("data.") for c in changes if c.startswith("data.")])


def _only_data(changes: Sequence[str], target: str) -> None:
    for change in changes:
        if change.partition("=")[0].split(".")[0] == "model":
            raise UserError(f"{target} says itself which model it is; '{change}' is for files of others")


def _data(changes: Sequence[str], path: Path) -> AnyData:
    """The images for a file that says nothing about its data; `data.path=DIR` implies npz."""
    wanted = [c for c in changes if c.partition("=")[0].split(".")[0] == "data"]
    if not wanted:
        raise UserError(
            f"nothing says which images {path} is for; give data.path=DIR (train.npz and test.npz) or "
            "data.kind=cifar10 data.path=DIR"
        )
    kinds = [c for c in wanted if c.partition("=")[0] in ("data.kind", "data")]
    data = override(Source(data=None if kinds else Npz()), wanted).data
    assert data is not None
    return data


def _stranger(
    path: Path,
    data: AnyData,
    splits: Splits,
    changes: Sequence[str],
    runtime: Runtime,
    trust: bool,
    allow_partial: bool,
) -> Subject:
    """Anyone's file of weights in the network that was named, or that the file describes."""
    tree = weights.read(path, trust)
    wanted = [c for c in changes if c.partition("=")[0].split(".")[0] == "model"]
    named = [c for c in wanted if c.partition("=")[0] in ("model", "model.kind")]
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
        raise UserError(_classes(path, seen.classes, classes))
    said: list[str] = [] if named or seen is None else [f"recognised as {models.describe(settings, classes)}"]
    given = any(split_assignment(c)[0].startswith("model.normalise") for c in wanted)
    pictures = splits.train.images if len(splits.train) else splits.test.images
    built = settings if given else settings.but(normalise="none")
    model = models.build(built, pictures, classes, 0)
    target = model.net if isinstance(model, models.Wrapped) else model
    assert isinstance(target, nn.Module)
    fit = matching.load(
        target, tree, allow_partial=allow_partial, where=str(path), closest=_closest(seen) if seen else ""
    )
    said += [str(fit), *(model.notes if isinstance(model, models.Wrapped) else ())]
    if not given:
        said.append(_normalise(model, target, fit, classes, channels, size))
    model = runtime.placed(model.eval())  # type: ignore[assignment]
    about = {
        "checkpoint": path.stem,
        "run": "",
        "epoch": None,
        "chosen_by": None,
        "data": describe(data),
        "model": models.describe(settings, classes),
        "normalise": normalisation(model),
        "loaded": said,
    }
    carried = fit.normalisation[:2] if fit.normalisation else None
    return Subject(model, splits, about, (Linf(),), carried)


def _normalise(
    model: models.Classifier, target: nn.Module, fit: matching.Fit, classes: int, channels: int, size: int
) -> str:
    """Choose the normalisation that nobody gave, put it into the model and say which and why."""
    own = target is not model and weights.normalisation(dict(target.state_dict()))
    if own:
        return f"the network normalises itself ({', '.join(own[2])}); nothing is put in front of it"
    if {"mean", "std"} <= set(fit.state) and target is model:
        return "normalisation: the file's own"
    if fit.normalisation is not None:
        mean, std, names = fit.normalisation
        why = f"read from the file ({', '.join(names)})"
    else:
        name = _usual(classes, size) if channels == 3 else "none"
        (mean, std), why = models.STATISTICS[name], f"{name}, the usual one for such images"
    for buffer, values in (("mean", mean), ("std", std)):
        setattr(model, buffer, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))
    return f"normalisation: {why}; `doctor` tries the others, model.normalise=... sets it"


def _usual(classes: int, size: int) -> str:
    if size >= 128:
        return "imagenet"
    return {(10, 32): "cifar10", (100, 32): "cifar100", (200, 64): "tinyimagenet"}.get(
        (classes, size), "none"
    )


def _recognised(tree: dict[str, Any]) -> models.Recognised | None:
    """The built-in network that some candidate of the file describes best."""
    best: models.Recognised | None = None
    for candidate in weights.candidates(tree):
        for _, tensors in weights.peelings(candidate.tensors):
            seen = models.recognise(tensors)
            if seen is not None and (best is None or seen.share > best.share):
                best = seen
            if best is not None and best.share == 1:
                return best
    return best


def _closest(seen: models.Recognised) -> str:
    return f"{models.describe(seen.settings, seen.classes)} ({seen.share:.0%} of its parameters fit)"


def _fits(card: dict[str, Any], splits: Splits, path: Path) -> None:
    channels, classes = splits.test.images.shape[1], len(splits.class_names)
    if card["classes"] != classes:
        raise UserError(_classes(path, card["classes"], classes))
    if card["channels"] != channels:
        raise UserError(
            f"{path} is for images of {card['channels']} channels, the data have {channels}; give its own "
            "data with data.path=DIR"
        )


def _classes(path: Path, head: int, data: int) -> str:
    return (
        f"{path} tells {head} classes apart, the data have {data}; give its own data with data.path=DIR (a "
        "class without images still needs its name in class_names)"
    )
