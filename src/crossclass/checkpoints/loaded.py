"""A model that can be measured, what is known about it, and where its images come from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from crossclass import models
from crossclass.attacks.norms import AnyThreat
from crossclass.core.config import Settings
from crossclass.core.errors import UserError
from crossclass.core.overrides import Changes, changes_of, override
from crossclass.data import AnyData, Npz, Splits


@dataclass(frozen=True)
class Identity:
    """Which weights these are, on which images they are measured, and how they were read."""

    checkpoint: str
    """`best.val`, `last`, or the name of the file without its ending."""
    run: str
    """The name of the run folder; empty for a file that belongs to none."""
    epoch: int | None
    chosen_by: str | None
    data: str
    model: str
    normalise: dict[str, list[float]]
    loaded: list[str]
    source: str | None = None
    """The file's name."""
    sha256: str | None = None
    """Of the file's bytes."""


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model that can be measured, with what is known about it."""

    model: models.Classifier
    """On the device, in eval mode."""
    splits: Splits
    about: Identity
    threats: tuple[AnyThreat, ...]
    """The balls it is measured under unless told otherwise."""
    file_normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and std that a stranger's file carries."""

    @property
    def name(self) -> str:
        """What to call it beside others: the checkpoint, and the run or file it is of."""
        return f"{self.about.checkpoint} of {self.about.run}" if self.about.run else self.file

    @property
    def file(self) -> str:
        """The checkpoint's own name."""
        return self.about.checkpoint


class Source(Settings):
    """Where a stranger's model and images come from; what stands in a run folder needs none of it."""

    model: models.AnyModel | None = None
    """Unset: recognized by the names and shapes in the file."""
    data: AnyData | None = None


def data_of(changes: Changes, path: Path) -> AnyData:
    """The images for a file that says nothing about its data; `data.path` implies npz."""
    wanted = changes_of(changes, "data")
    if not wanted:
        raise UserError(
            f"nothing says which images {path} is for; give data.path=DIR (train.npz and test.npz) or "
            "data.kind=cifar10 data.path=DIR"
        )
    kind_given = "data" in wanted or "data.kind" in wanted
    data = override(Source(data=None if kind_given else Npz()), wanted).data
    assert data is not None
    return data


def describe(data: AnyData) -> str:
    """A data set in a few words."""
    plain = data.to_dict()
    sizes = [f"{k}={plain[k]}" for k in ("n_train", "n_val", "n_test") if plain.get(k) is not None]
    return f"{plain['kind']} ({', '.join(sizes)})" if sizes else str(plain["kind"])


def normalisation(model: models.Classifier) -> dict[str, list[float]]:
    """The constants that a model normalises with, as plain numbers."""
    return {k: [round(v, 4) for v in getattr(model, k).flatten().tolist()] for k in ("mean", "std")}


def not_the_classes(path: Path, head: int, data: int) -> str:
    """What is said of a file for other classes than the data have."""
    return (
        f"{path} tells {head} classes apart, the data have {data}; give its own data with data.path=DIR (a "
        "class without images still needs its name in class_names)"
    )
