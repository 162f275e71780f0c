"""What an alarm says."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Alarm:
    """One thing that went wrong in a run, when, and the numbers that show it."""

    name: str
    epoch: int
    """The checked epoch in which it was raised."""
    since: int
    """The epoch from which it holds: of the best checkpoint for what builds up, else the same."""
    evidence: str
    level: Literal["alarm", "note"] = "alarm"
    last_good: int | None = None
    """The last checked epoch before the trouble, to go back to; none if there was none."""

    def __str__(self) -> str:
        when = f"since epoch {self.since}" if self.since < self.epoch else f"in epoch {self.epoch}"
        return f"{self.name.replace('-', ' ')} {when}: {self.evidence}"


def percent(value: float | None) -> str:
    """A fraction as `12.3 %`, or `-`."""
    return "-" if value is None else f"{100 * value:.1f} %"
