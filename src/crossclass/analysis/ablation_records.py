"""What `ablate` writes down: accuracy without sets of features, matched in two ways, and transplants."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from crossclass.analysis.records import CheckpointRef, DataRef, Ends, Record
from crossclass.core.printable import printable

Sort = Literal["shared", "specific", "random"]
"""Features that count for many classes first, those that count for few first, or in a random order."""
Finding = Literal["less", "more", "not decided"]
"""Whether shared features lose less or more than specific ones: where the interval leaves out 0."""

CALIBRATION = (
    "do not read a difference as a cause: on pictures whose parts are known, the method found which parts "
    "matter less in 3 of 4 networks at equal clean accuracy lost, and in 2 of 4 at equal mass, where it was "
    "wrong once; the sets removed hardly differed in the parts that they see"
)
"""What the test on `Shapes`, where the truth is planted, says of the method; it stands in every result."""
CALIBRATED = ("undecided", "undecided", "does not hold")
"""The verdicts that this sentence is about: those of results/ablation/calibration.json."""


class Lost(Record):
    """Accuracy lost, as a part of the images, with its 95 % interval."""

    value: float
    interval: Ends


class AblatedSet(Record):
    """The network without some features."""

    sort: Sort
    draw: int | None = None
    """Of random sets which draw."""
    count: int
    """How many features were removed: the first of the path."""
    mass: float
    """Their part of the attribution mass."""
    clean: float
    clean_interval: tuple[float, float]
    robust: float
    robust_interval: tuple[float, float]


class Matched(Record):
    """Sets of the three sorts that are alike in one respect."""

    by: Literal["mass", "clean"]
    """Alike in attribution mass, or in the clean accuracy that is lost."""
    level: float
    """Part of the mass, or of the images."""
    mass: dict[Sort, float] = Field(default={})
    """What whole features hold of the mass, where that is matched; of random sets the mean."""
    clean_lost: dict[Sort, Lost] = Field(default={})
    """Where mass is matched; else it is the level."""
    robust_lost: dict[Sort, Lost]
    random_range: tuple[float, float]
    """The smallest and the largest robust accuracy lost by a random set."""
    shared_minus_specific: Lost
    """Robust accuracy lost, paired by image."""
    shared_minus_random: Lost


class Summary(Record):
    """The robust accuracy lost by shared minus that by specific features, on average over all levels."""

    by: Literal["mass", "clean"]
    shared_minus_specific: Lost
    shared_minus_random: Lost
    finding: Finding


class AblatedCheckpoint(Record):
    """One network and what it loses without features."""

    checkpoint: CheckpointRef
    clean: float
    robust: float
    width: int
    """How many features there are."""
    dead: int
    """How many add nothing to any class; these are not removed."""
    shared: list[int]
    """The path from the most shared feature on: sets are the first of it."""
    specific: list[int]
    """The path from the most specific feature on."""
    sets: list[AblatedSet]
    matched: list[Matched]
    summaries: list[Summary]


class Transplant(Record):
    """Components of one checkpoint in place of another's, matched in attribution mass of the donor."""

    donor: str
    recipient: str
    mass: float
    robust: dict[Sort, float]
    clean: dict[Sort, float]
    shared_minus_specific: Lost
    """Difference of robust accuracy, paired by image."""
    random_range: tuple[float, float]


class AblationFile(Record):
    """What `ablate` writes."""

    model_config = ConfigDict(title="crossclass ablation file")

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["ablation"] = "ablation"
    crossclass: str | None = None
    date: str | None = None
    made_by: str | None = None
    calibration: str = CALIBRATION
    warnings: tuple[str, ...] = ()
    data: DataRef = DataRef()
    attack: str | None = None
    """Through the networks without features; that of `conditions` gave the attribution."""
    conditions: dict[str, Any] = Field(default={})
    draws: int
    class_names: tuple[Annotated[str, AfterValidator(printable)], ...] = ()
    checkpoints: list[AblatedCheckpoint]
    transplants: tuple[Transplant, ...] = ()
    figure: str | None = None
    """The picture beside this file."""
