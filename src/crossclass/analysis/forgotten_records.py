"""What is written down of the features that two classes share at the best checkpoint and not at the last."""

from pydantic import BaseModel, ConfigDict


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class PairFeature(_Stored):
    """What one feature does for a pair of classes, each number at the first and at the second checkpoint."""

    k: int
    """Its number, counted from 0."""
    C: tuple[float, float]
    """What it adds to C of the pair."""
    i: tuple[float, float]
    """What it adds to the logit of class i on images of class i, on average."""
    j: tuple[float, float]
    """The same for class j."""


class SharedPair(_Stored):
    """Two classes that share at the first checkpoint, and the features that carry it."""

    i: int
    j: int
    C: tuple[float, float]
    """At the first and at the second checkpoint."""
    features: list[PairFeature]
    """Those that carry most at the first, the largest first, and those that lost most."""


class ForgottenFeature(_Stored):
    """A feature that adds less to CAS at the second checkpoint than at the first."""

    k: int
    share: tuple[float, float]
    """What it adds to CAS at each checkpoint."""
    lost: float
    """Its share at the first minus that at the second, over pairs of classes that share at both."""
    lost_interval: tuple[float, float] | None = None
    """95 %, over test images."""
    effective_classes: float
    """For how many classes it counts at the first: 1 is one class, K is all alike."""
    classes: list[tuple[int, float, float]]
    """The classes for which it counts most at the first, and what it adds to their logits at each."""


class SharedAndForgotten(_Stored):
    """Which features carried the sharing at the first of two checkpoints of a run, and were forgotten."""

    width: int
    """How many features there are."""
    half: int
    """So few features carry half of what all positive shares add to CAS at the first checkpoint."""
    lost: float
    """The sum of what all features lost, over pairs of classes that share at both."""
    changed_sign: float
    """The rest of the difference of CAS: of pairs that share at one checkpoint only."""
    features: list[ForgottenFeature]
    """Those that lost most, the largest loss first."""
    pairs: list[SharedPair]
    """The pairs that share most at the first checkpoint, the largest C first."""
    more_pairs: int = 0
    """How many other pairs share at the first checkpoint."""
