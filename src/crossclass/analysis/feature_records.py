"""What `features` writes down: the features of a checkpoint, or of two of one run, with their numbers."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from crossclass.analysis.records import CheckpointRef, DataRef, Ends, Record
from crossclass.core.printable import printable

Why = Literal["shared", "specific", "pair", "forgotten", "pair forgotten"]
"""Why a feature is named: it adds most to CAS, counts for fewest classes, carries most of C of a pair, adds
less to CAS at the second checkpoint than at the first, or carries less of C of the pair there."""


class FeatureOfClass(Record):
    """What a feature adds, on average, to the logit of a class on the class's own images."""

    name: Annotated[str, AfterValidator(printable)] = Field(alias="class")
    a: float
    """At the (first) checkpoint."""
    b: float | None = None
    """At the second."""


class PartOfFeature(Record):
    """A planted part that a feature finds, on data that are drawn from known parts."""

    part: int
    classes: tuple[str, ...]
    """The classes that show it."""
    response: float
    """By how much the feature changes with one standard deviation of the part's strength."""
    share: float
    """Of the part in all that the feature finds."""


class PlantedParts(Record):
    """How the features of the first checkpoint fit to the planted parts."""

    pure: int
    """Features that find one part."""
    mixed: int
    """Features that find several."""
    dead: int
    """Features that are the same on all images; the rest finds no part."""
    parts: int
    """How many parts are planted."""
    parts_found: int
    """How many of them have a pure feature."""


class Feature(Record):
    """One feature, an input of the head."""

    k: int
    """Its number, counted from 0."""
    why: list[Why]
    share: float
    """What it adds to CAS; the shares of all features add up to CAS."""
    share_interval: Ends | None = None
    """95 %, over test images."""
    effective_classes: float
    """For how many classes it counts: 1 is one class, K is all alike."""
    mass: float
    """What it adds to the logits of the right classes, summed over classes."""
    pair: float | None = None
    """What it adds to C of the pair that was asked for."""
    share_second: float | None = None
    pair_second: float | None = None
    lost: float | None = None
    """Share at the first checkpoint minus share at the second, over pairs of classes that share at both."""
    lost_interval: Ends | None = None
    classes: tuple[FeatureOfClass, ...] = ()
    """The classes for which it counts most, the largest first."""
    parts: tuple[PartOfFeature, ...] = ()
    """The planted parts that it finds, the largest share first."""


class FeatureFile(Record):
    """What `features` writes."""

    model_config = ConfigDict(title="crossclass feature file")

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["features"] = "features"
    crossclass: str | None = None
    date: str | None = None
    made_by: str | None = None
    warnings: tuple[str, ...] = ()
    checkpoints: list[CheckpointRef]
    """One, or two of one run, of which the second is compared with the first."""
    data: DataRef = DataRef()
    attack: str | None = None
    conditions: dict[str, Any] = Field(default={})
    class_names: tuple[Annotated[str, AfterValidator(printable)], ...] = ()
    pair: tuple[str, str] | None = None
    pair_cosine: list[float] | None = None
    """C of the pair at each checkpoint."""
    cas: list[float]
    """CAS at each checkpoint."""
    robust: list[float]
    """Robust accuracy at each checkpoint."""
    changed_sign: float | None = None
    """What of the difference of CAS belongs to pairs that share at one checkpoint only; the rest is the sum
    of `lost` over all features."""
    width: int
    """How many features there are."""
    dead: int
    """How many add nothing to any class at the first checkpoint."""
    half: int
    """So few features carry half of what all positive shares add to CAS."""
    planted: PlantedParts | None = None
    """On data that are drawn from known parts."""
    features: list[Feature]
    sheet: str | None = None
    """The picture beside this file."""
