"""The record of what was tried where nobody says how a network is fed."""

from pydantic import BaseModel, ConfigDict


class InputCheck(BaseModel):
    """Ways to feed a network whose normalisation or orders nobody says, tried on clean images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
