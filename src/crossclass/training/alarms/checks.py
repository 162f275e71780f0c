"""The numbers of a check that alarms read, out of anyone's rows: new ones, old ones, published ones."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from crossclass.core.errors import UserError

Row = Mapping[str, Any]


class Check(NamedTuple):
    """What one checked epoch says of the watched part."""

    epoch: int
    part: str
    n: int
    robust: float
    attack: str
    train: float | None
    """Training robust accuracy; none for a run that is not adversarial, or that did not log it."""
    fgsm: float | None
    gap: float | None
    fgsm_n: int
    cosine: float | None
    cas: float | None
    predicted: int | None
    share: float | None
    said_collapsed: bool


def trends(rows: Sequence[Row]) -> dict[str, float | None]:
    """What the last row is beside the others: `robust_gap` (train minus watched) and `cas_since_peak`.

    CAS of a predictor that uses at most half of the classes is no peak and has no change. None where the
    row was not checked.
    """
    part, row = watched(rows), rows[-1]
    robust, train, cas = row.get(f"{part}_robust"), row.get("train_robust"), _cas(row, part)
    usable = [c for r in rows if (c := _cas(r, part)) is not None]
    gap = None if robust is None or train is None else train - robust
    return {"robust_gap": gap, "cas_since_peak": None if cas is None else cas - max(usable)}


def watched(rows: Sequence[Row]) -> Literal["val", "test"]:
    """The part that the rows were checked on: validation, or test where nothing was held out."""
    return "val" if any(r.get("val_robust") is not None for r in rows) else "test"


def checks(rows: Sequence[Row], n: int | None = None) -> list[Check]:
    """The checked epochs; `n` for rows without `watched_n`. Raises UserError if neither says it."""
    part = watched(rows)
    return [_check(row, part, n) for row in rows if row.get(f"{part}_robust") is not None]


def _check(row: Row, part: str, n: int | None) -> Check:
    images = row.get("watched_n") or n
    if not images:
        raise UserError(
            f"the row of epoch {row['epoch']} does not say how many images were checked (watched_n); pass n"
        )
    predicted = row.get("val_predicted")
    return Check(
        epoch=row["epoch"],
        part=part,
        n=images,
        robust=row[f"{part}_robust"],
        attack=str(row.get("watched_attack") or "PGD").partition(",")[0],
        train=row.get("train_robust"),
        fgsm=row.get("val_fgsm"),
        gap=row.get("fgsm_gap"),
        fgsm_n=row.get("fgsm_n") or images,
        cosine=row.get("gradient_cosine"),
        cas=_cas(row, part),
        predicted=row.get("predicted_classes") if predicted is None else predicted,  # older rows: on test
        share=row.get("val_share"),
        said_collapsed=row.get("val_share") is None and _said_collapsed(row),
    )


def _said_collapsed(row: Row) -> bool:
    """Rows from before `val_share` say it in words, about test images."""
    return any(str(w).startswith("predictor collapsed") for w in row.get("warnings") or ())


def _cas(row: Row, part: str) -> float | None:
    """CAS of the watched part, unless at most half of the classes are predicted: it says little then."""
    key = "val_predicted" if row.get("val_predicted") is not None else "predicted_classes"
    return None if few(row, key) else row.get("val_cas" if part == "val" else "cas")


def few(row: Row, key: str = "predicted_classes") -> bool:
    """Whether at most half of the classes are predicted, by the count under `key`: CAS says little then."""
    predicted, classes = row.get(key), len(row.get("classwise_robust") or row.get("C") or ())
    return predicted is not None and 2 * predicted <= classes
