"""Seconds of training to a robust accuracy, from the metrics of stored runs: the table of docs/records.md."""

import csv
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parents[1] / "results"
LEVELS = (20, 30, 40, 45, 50)
"""Percent of robust accuracy."""


class Record(NamedTuple):
    """A run whose checks are PGD-20 in l_inf 8/255 on 1,000 test images."""

    metrics: str
    """One file, or a pattern for several seeds."""
    device: str
    network: str
    images: int
    recipe: str


_H200 = "one H200, bf16, torch 2.11"
_CPU = "2 CPU cores (AMD EPYC, Zen 4), bf16 crafting"
_THIN = "PreActResNet, 3 blocks, width 32"
RECORDS = (
    Record("h200/metrics.csv", _H200, "PreActResNet-18", 49000, "PGD-10 AT, batch 128, 43 epochs"),
    Record(
        "h200/pgd3/metrics.csv",
        _H200,
        "PreActResNet-18",
        49000,
        "PGD-3 AT, label smoothing 0.4, average of weights, batch 512, 83 epochs",
    ),
    Record("spine-cifar10/seed*.csv", _CPU, _THIN, 1000, "PGD-7 AT, batch 64, 60 epochs, three seeds"),
)


def seconds_to(metrics: Path, percent: float) -> float | None:
    """Seconds of all epochs up to the first check with at least this robust test accuracy, or None."""
    seconds = 0.0
    with metrics.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            seconds += float(row["seconds"])
            if row["test_robust"] and float(row["test_robust"]) >= percent / 100:
                return seconds
    return None


def table() -> str:
    """The records as a table, those with most training images first."""
    heads = " | ".join(f"{level} %" for level in LEVELS)
    rows = [f"| device | network | training images | recipe | {heads} |", "|---" * (4 + len(LEVELS)) + "|"]
    for r in sorted(RECORDS, key=lambda r: -r.images):
        files = sorted(RESULTS.glob(r.metrics))
        cells = " | ".join(_cell([seconds_to(file, level) for file in files]) for level in LEVELS)
        link = f"[{r.recipe}](../{files[0].relative_to(RESULTS.parent).as_posix()})"
        rows.append(f"| {r.device} | {r.network} | {r.images:,} | {link} | {cells} |")
    return "\n".join(rows) + "\n"


def _cell(times: list[float | None]) -> str:
    found = sorted(t for t in times if t is not None)
    if len(found) < len(times):
        return f"{len(found)} of {len(times)} seeds" if found else "-"
    ends = sorted({f"{found[0]:,.0f}", f"{found[-1]:,.0f}"}, key=lambda t: float(t.replace(",", "")))
    return " to ".join(ends) + " s"
