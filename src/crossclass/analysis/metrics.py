"""The one list of numbers that describe a network: `METRICS`.

The columns of metrics.csv, the JSON keys of a measurement, the table on the console, the HTML page, the
comparison of two checkpoints, what a study collects and the documented table are all made from it. To add a
number, append one `Metric` here, or `register` it from your own code. Nothing here imports torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from crossclass.core.errors import UserError

if TYPE_CHECKING:
    from crossclass.analysis.evaluate import EvaluationPass
    from crossclass.analysis.intervals import Interval

Part = Literal["val", "test"]
Unit = Literal["accuracy", "score", "share", "correlation", "count"]
DIGITS = {"accuracy": 1, "score": 2, "share": 3, "correlation": 2, "count": 0}
"""Decimals with which a value of each unit is printed."""


@dataclass(frozen=True)
class Metric:
    """One number of a network on a set of images."""

    key: str
    """Its name in JSON and CSV; the difference of two checkpoints is `d_<key>`."""
    label: str
    """Its name on the console, the page and axes."""
    doc: str
    """One sentence for the documentation."""
    compute: "Callable[[EvaluationPass], int | float | None]"
    """From one evaluation pass; None where it is undefined."""
    unit: Unit = "score"
    """How it is printed: an `accuracy` in [0, 1] in percent, a `share` with three decimals."""
    direction: Literal["higher", "lower", "neither"] = "neither"
    """Which side is better. Neither for CAS, which a constant classifier maximises."""
    interval: "Callable[[EvaluationPass], Interval] | None" = None
    """Its confidence interval over images."""
    difference: "Callable[[EvaluationPass, EvaluationPass], Interval] | None" = None
    """The paired interval of first minus second, on the same images."""
    per_epoch: tuple[Part, ...] = ()
    """The parts on which it is computed after every epoch; leave empty what is expensive."""
    headline: bool = False
    """Whether it has a column of its own on the console and a tile on the page."""

    def column(self, part: Part) -> str:
        """Its column in metrics.csv: accuracies name the part, other numbers only the validation part."""
        return self.key if part == "test" and self.unit != "accuracy" else f"{part}_{self.key}"

    def text(self, value: int | float | None, *, signed: bool = False) -> str:
        """The value as it is printed: `51.3%`, `12.40`, `-` where there is none."""
        if value is None:
            return "-"
        plus = "+" if signed or self.unit == "correlation" else ""
        kind = "%" if self.unit == "accuracy" else "f"
        return f"{value:{plus}.{DIGITS[self.unit]}{kind}}"

    def span(self, ends: "tuple[float | None, float | None] | list[float] | None") -> str:
        """An interval as it is printed, in percent for an accuracy; empty where there is none."""
        if ends is None or None in ends:
            return ""
        factor, digits = (100, 1) if self.unit == "accuracy" else (1, DIGITS[self.unit])
        low, high = (f"{factor * v:.{digits}f}" for v in ends if v is not None)
        return f"[{low}, {high}]"

    def value(self, evaluation: "EvaluationPass") -> int | float | None:
        """`compute`, with None for what is not finite."""
        value = self.compute(evaluation)
        return value if value is not None and math.isfinite(value) else None


def _accuracy(kind: Literal["clean", "robust"], label: str, doc: str) -> Metric:
    return Metric(
        key=kind,
        label=label,
        doc=doc,
        compute=lambda p: p.accuracy(kind),
        unit="accuracy",
        direction="higher",
        interval=lambda p: _intervals().accuracy(getattr(p, kind) == p.labels, p.labels),
        difference=lambda a, b: _intervals().accuracy_difference(
            getattr(a, kind) == a.labels, getattr(b, kind) == b.labels
        ),
        per_epoch=("val", "test"),
        headline=True,
    )


def _intervals() -> Any:
    from crossclass.analysis import intervals  # it imports torch

    return intervals


def _invariant(kind: Literal["decision", "offer", "profile"], label: str, doc: str) -> Metric:
    return Metric(
        key=f"{kind}_cas",
        label=label,
        doc=f"{doc}; changes of the network that leave every prediction as it is leave this too.",
        compute=lambda p: p.invariants[kind].score,
        interval=lambda p: p.invariants[kind].interval,
    )


def _softmax(key: str, label: str, of: Literal["entropy", "wrong"], doc: str, unit: Unit) -> Metric:
    def compute(p: "EvaluationPass") -> float | None:
        values = getattr(p, of)
        return None if values is None else float(values.nanmean())

    doc = f"{doc}; over the adversarial images whose outputs are numbers."
    return Metric(key, label, doc, compute, unit=unit, per_epoch=("test",))


METRICS: list[Metric] = [
    _accuracy("clean", "clean accuracy", "Share of the images that are classified correctly."),
    _accuracy("robust", "robust accuracy", "Share of the adversarial images that are classified correctly."),
    Metric(
        "cas",
        "CAS",
        "Sum of the positive entries of C off its diagonal (eq. 7), between 0 and K(K-1).",
        lambda p: p.cas,
        interval=lambda p: _intervals().cas(*p.attributed),
        difference=lambda a, b: _intervals().cas_difference((a.features, a.W), (b.features, b.W), a.labels),
        per_epoch=("val", "test"),
        headline=True,
    ),
    Metric(
        "icas",
        "I-CAS",
        "CAS of the instance-wise matrix (section 5.3); it grows with the number of images per class.",
        lambda p: p.icas,
        interval=lambda p: _intervals().icas(p.neighbours, p.attributed[2]),
        difference=lambda a, b: _intervals().icas_difference(a.neighbours, b.neighbours, a.labels),
        headline=True,
    ),
    Metric(
        "cas_normalised",
        "CAS / max",
        "CAS divided by its largest possible value K(K-1).",
        lambda p: p.cas / p.largest_cas,
        unit="share",
        per_epoch=("test",),
    ),
    Metric(
        "icas_normalised",
        "I-CAS / max",
        "I-CAS divided by its largest possible value K(K-1).",
        lambda p: p.icas / p.largest_cas,
        unit="share",
    ),
    Metric(
        "negative_mass",
        "negative mass",
        "Sum of the negative entries of C off its diagonal, without their sign; CAS leaves them out.",
        lambda p: p.negative_mass,
        per_epoch=("test",),
    ),
    Metric(
        "all_pairs_cas",
        "all pairs",
        "CAS of the mean cosine over all pairs of images; near zero in adversarial training (section 5.3).",
        lambda p: p.all_pairs_cas,
    ),
    Metric(
        "sharing_confusion",
        "sharing and confusion",
        "Spearman's rank correlation over pairs of classes between C and how often the two are confused.",
        lambda p: p.sharing_confusion,
        unit="correlation",
    ),
    _invariant(
        "decision",
        "decision CAS",
        "CAS of the correlations of the classes' logits within classes (which logits move together)",
    ),
    _invariant(
        "offer",
        "offer CAS",
        "CAS of the cosines of centred class means under the features' covariance within classes (which "
        "classes the features put together)",
    ),
    _invariant(
        "profile",
        "profile CAS",
        "CAS of the cosines of the classes' centred mean logits (which classes are given alike logits)",
    ),
    Metric(
        "nc1",
        "NC1",
        "Neural collapse: spread of features within classes over that between them, tr(S_W S_B^+) / K.",
        lambda p: p.collapse.nc1,
        per_epoch=("test",),
    ),
    Metric(
        "nc2_norms",
        "NC2 norms",
        "Neural collapse: standard deviation over mean of the lengths of the centred class means.",
        lambda p: p.collapse.nc2_norms,
        unit="share",
        per_epoch=("test",),
    ),
    Metric(
        "nc2_angles",
        "NC2 angles",
        "Neural collapse: mean distance of the cosines of centred class means from -1 / (K - 1).",
        lambda p: p.collapse.nc2_angles,
        unit="share",
        per_epoch=("test",),
    ),
    Metric(
        "nc3",
        "NC3",
        "Neural collapse: distance of the centred head from the centred class means, both of norm 1.",
        lambda p: p.collapse.nc3,
        unit="share",
        per_epoch=("test",),
    ),
    _softmax(
        "logit_entropy",
        "logit entropy",
        "entropy",
        "Mean entropy of the softmax, in nats, between 0 and log K",
        "score",
    ),
    _softmax(
        "wrong_probability",
        "wrong probability",
        "wrong",
        "Mean of what the softmax gives to wrong classes",
        "share",
    ),
    Metric(
        "predicted_classes",
        "predicted classes",
        "Number of classes that are predicted at least once on the adversarial images.",
        lambda p: p.predicted_classes,
        unit="count",
        direction="higher",
        per_epoch=("test",),
    ),
    Metric(
        "sharing_auc",
        "AUC of planted pairs",
        "How well C tells pairs of classes that truly share a feature from the others (0.5 is chance).",
        lambda p: p.sharing_auc,
        direction="higher",
    ),
]
"""Every scalar that a measurement holds, in the order in which it is written."""


def metric(key: str) -> Metric:
    """The metric with this key; raises KeyError if there is none."""
    for m in METRICS:
        if m.key == key:
            return m
    raise KeyError(key)


def register_metric(new: Metric) -> Metric:
    """Add a metric in this process; it appears wherever the others do. Raises UserError for a key in use."""
    from crossclass.analysis.records import RESERVED

    if new.key in RESERVED or any(m.key == new.key for m in METRICS) or not new.key.isidentifier():
        raise UserError(f"the metric key '{new.key}' is taken or is no name; choose another key")
    METRICS.append(new)
    return new


def collapsed(share: float | None, predicted: int, classes: int) -> bool:
    """Whether a predictor is near-constant, so that CAS is near its maximum and means nothing.

    `share` is that of the most frequent class, `predicted` the number of classes that are predicted.
    """
    return (share is not None and share >= 0.8) or predicted <= max(1, classes // 4)
