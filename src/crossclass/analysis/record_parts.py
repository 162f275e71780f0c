"""The parts of a record that are no numbers: which weights, which images, which head, and how they are fed."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all records: frozen, and with names as they are written."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data as it is written to JSON."""
        out: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return out


class CheckpointRef(Record):
    """Which weights were measured."""

    name: str
    """`best.val`, `last`, or the name of a file without its ending."""
    sha256: str | None = None
    """Of the file's bytes; null in files from before it was kept."""
    source: str | None = None
    """The file name; never a folder of this machine."""
    run: str = ""
    """The name of the run folder; empty for a file that belongs to none."""
    epoch: int | None = None
    chosen_by: str | None = None
    """The part on which the checkpoint was chosen: `val`, `test` or null."""

    @property
    def title(self) -> str:
        """The name, with its run where there is one."""
        return f"{self.name} of {self.run}" if self.run else self.name


class DataRef(Record):
    """Which images were used; null is unknown."""

    name: str | None = None
    checksum: str | None = None
    n: int | None = None
    split: str | None = None


class Head(Record):
    """Where the weights W of the attribution come from."""

    layer: str
    """The name of the linear layer in the network."""
    matches_logits: bool | None = None
    """Whether g(x) @ W.T + b is what the network returns for the first batch; null: not checked."""


class InputCheck(Record):
    """Ways to feed a network whose normalisation or orders nobody says, tried on clean images."""

    n: int
    """Images on which the way that was taken was tried; those that were dropped early saw fewer."""
    split: str
    taken: str
    """The normalisation by its name, and an order of channels or sides that differs from the images'."""
    accuracies: dict[str, float]
    """The last round: the way that was taken first, then its alternatives."""
    as_loaded: str
    accuracy_as_loaded: float
    class_of_output: list[int] | None = None
    """The class meant by each output of the file, where the head was put into another order."""
    forward_passes: int = 0
    """Of one image, which the check has cost."""
