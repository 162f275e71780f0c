"""The numbers of a validation that alarms read, out of the rows of any run."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossclass.analysis.binomial import upper_tail
from crossclass.analysis.metrics import Part
from crossclass.analysis.records import EpochRow
from crossclass.core.errors import UserError

Row = EpochRow | Mapping[str, Any]
"""An epoch of any run, with its numbers under the names of `EpochRow`."""


CHANCE = 1e-3
"""How often the best check of a network that guesses may count as above chance."""


def pack(right: np.ndarray) -> str:
    """Which images are right, as text for a row (`watched_correct`): one bit each, in base64."""
    return base64.b64encode(np.packbits(np.asarray(right, dtype=bool)).tobytes()).decode()


@dataclass(frozen=True)
class Check:
    """One validated epoch: numbers of the watched part. Accuracies are fractions in [0, 1]."""

    epoch: int
    part: Part
    n: int
    """Images behind `robust`."""
    robust: float
    """Accuracy under `attack`."""
    attack: str
    """The name of the validation's attack, such as PGD-20."""
    train: float | None
    """Training robust accuracy; None for a run that is not adversarial, or that did not log it."""
    fgsm: float | None
    """Accuracy under one full step from x, on `fgsm_n` images."""
    fgsm_gap: float | None
    """`fgsm` minus accuracy under `attack` on the same images."""
    fgsm_n: int
    cosine: float | None
    """Mean cosine of input gradients at x and at x + eta."""
    cas: float | None
    """None also where at most half of the classes are predicted."""
    predicted_classes: int | None
    largest_share: float | None
    """Share of the images that go to the most frequent class."""
    lr: float | None = None
    correct: bytes | None = None
    """Which of the `n` images are right under `attack`, one bit each; None in rows of older runs."""

    @property
    def standard_error(self) -> float:
        """Binomial standard error of `robust`."""
        return math.sqrt(self.robust * (1 - self.robust) / self.n)

    def above_chance(self, classes: int, of: int) -> bool:
        """Whether `robust` is more than guessing among so many classes; `of` as in `exceeds_chance`."""
        return self.exceeds_chance(self.robust, classes, of)

    def exceeds_chance(self, accuracy: float, classes: int, of: int) -> bool:
        """Whether guessing reaches an accuracy on so many images less often than CHANCE, in `of` checks.

        The exact binomial test; `of` is the number of checks that the best one was chosen from (Bonferroni).
        """
        right = math.floor(accuracy * self.n + 1e-9)
        return of * upper_tail(right, self.n, 1 / classes) < CHANCE

    @property
    def part_name(self) -> str:
        """`validation` or `test`."""
        return "validation" if self.part == "val" else "test"


def trends(rows: Sequence[Row]) -> dict[str, float | None]:
    """The last row beside the others: `robust_gap` (train minus watched) and `cas_since_peak`.

    CAS of a predictor that uses at most half of the classes is no peak and has no change. None where the
    row was not checked.
    """
    part, row = watched(rows), rows[-1]
    robust, train, cas = row.get(f"{part}_robust"), row.get("train_robust"), _cas(row, part)
    usable = [c for r in rows if (c := _cas(r, part)) is not None]
    gap = None if robust is None or train is None else train - robust
    return {"robust_gap": gap, "cas_since_peak": None if cas is None else cas - max(usable)}


def watched(rows: Sequence[Row]) -> Part:
    """The part that the rows were checked on: validation, or test where nothing was held out."""
    return "val" if any(r.get("val_robust") is not None for r in rows) else "test"


def checks(rows: Sequence[Row], n: int | None = None) -> list[Check]:
    """The checked epochs; `n` for rows without `watched_n`. Raises UserError if neither says it."""
    part = watched(rows)
    return [_check(row, part, n) for row in rows if row.get(f"{part}_robust") is not None]


def _check(row: Row, part: Part, n: int | None) -> Check:
    images = row.get("watched_n") or n
    if not images:
        raise UserError(
            f"the row of epoch {row['epoch']} does not say how many images were checked (watched_n); pass n"
        )
    return Check(
        epoch=row["epoch"],
        part=part,
        n=images,
        robust=row[f"{part}_robust"],
        attack=str(row.get("watched_attack") or "PGD").partition(",")[0],
        train=row.get("train_robust"),
        fgsm=row.get("watched_fgsm"),
        fgsm_gap=row.get("fgsm_gap"),
        fgsm_n=row.get("fgsm_n") or images,
        cosine=row.get("gradient_cosine"),
        cas=_cas(row, part),
        predicted_classes=row.get("watched_predicted_classes"),
        largest_share=row.get("watched_largest_share"),
        lr=row.get("lr"),
        correct=base64.b64decode(bits) if (bits := row.get("watched_correct")) else None,
    )


def _cas(row: Row, part: str) -> float | None:
    """CAS of the watched part, unless at most half of the classes are predicted: it means little then."""
    unusable = predicts_few(row, "watched_predicted_classes")
    return None if unusable else row.get("val_cas" if part == "val" else "cas")


def percent(value: float | None) -> str:
    """A fraction as `12.3 %`, or `-`."""
    return "-" if value is None else f"{100 * value:.1f} %"


def predicts_few(row: Row, key: str = "predicted_classes") -> bool:
    """Whether at most half of the classes are predicted, by the count under `key`: CAS means little then."""
    predicted, classes = row.get(key), len(row.get("classwise_robust") or row.get("C") or ())
    return predicted is not None and 2 * predicted <= classes
