"""What a page shows of many runs at once: the table of their settings, and any number against any setting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from crossclass.analysis.measured_runs import MeasuredRun
from crossclass.analysis.metrics import METRICS, Metric
from crossclass.analysis.setting_names import ABSENT, words
from crossclass.analysis.table_of_runs import USUAL, TableOfRuns, number_of, table
from crossclass.report import run_table
from crossclass.report.figures import rows
from crossclass.report.format import sentence
from crossclass.report.plots.style import RUNS


@dataclass(frozen=True)
class ManyRuns:
    """The table of many runs with all metrics that they have."""

    whole: TableOfRuns

    @cached_property
    def table(self) -> TableOfRuns:
        """The usual columns."""
        return replace(self.whole, metrics=[m for m in self.whole.metrics if m.key in USUAL])

    @property
    def title(self) -> str:
        """How many there are."""
        return f"{sum(len(row.runs) for row in self.whole.rows)} runs in {len(self.whole.rows)} rows"

    @property
    def heads(self) -> list[str]:
        """The columns that tell rows apart."""
        return run_table.row_heads(self.table)[0]

    @property
    def columns(self) -> list[tuple[str, Metric]]:
        """Checkpoint and metric of each column of numbers."""
        return [(at, m) for m in self.table.metrics for at in self.table.checkpoints]

    @property
    def number_heads(self) -> list[str]:
        """The heads of the columns of numbers."""
        return [
            run_table.metric_head(m, at) + (" (%)" if m.unit == "accuracy" else "") for at, m in self.columns
        ]

    @property
    def body(self) -> list[tuple[list[str], int, list[tuple[str, str]]]]:
        """Of each row what tells it apart, the number of its runs, and numbers with their intervals."""
        out = []
        for cells, row in zip(run_table.row_heads(self.table)[1], self.table.rows, strict=True):
            texts = [run_table.cell_text(row.cells.get((at, m.key)), m) for at, m in self.columns]
            parts = [text.partition(" ") for text in texts]
            out.append((cells, len(row.runs), [(value, ends) for value, _, ends in parts]))
        return out

    @property
    def notes(self) -> list[str]:
        """What the numbers are, and what is not in the table; what CAS means, the page says itself."""
        return [note for note in run_table.notes(self.table) if note != run_table.CAUTION]

    @property
    def plot(self) -> dict[str, Any] | None:
        """What `plot.js` reads: every number of every run, and means with intervals; None for one row."""
        t = self.whole
        heads, texts = run_table.row_heads(t)
        if len(t.rows) < 2 or not heads:
            return None
        settings = [name for name in ["run", *t.settings] if name in heads]
        more = [name for name in heads if name not in settings]
        numbers = [
            (at, m) for m in t.metrics for at in t.checkpoints if any((at, m.key) in r.cells for r in t.rows)
        ]
        each = []
        for row, text in zip(t.rows, texts, strict=True):
            for i, run in enumerate(row.runs):
                seed = run.settings.get("seed")
                values = [row.values.get((at, m.key), [None] * len(row.runs))[i] for at, m in numbers]
                each.append([run.title, *text, seed, *values])
        keys = [" ".join(filter(None, (m.key, at))) for at, m in numbers]
        return {
            **rows(["folder", *heads, "seed", *keys], each),
            "settings": [_axis(t, name, heads.index(name), texts) for name in settings],
            "more": [heads.index(name) for name in more],
            "numbers": [_number(at, m) for at, m in numbers],
            "means": [
                [texts[j], [row.cells.get((at, m.key), (None,))[:3] for at, m in numbers]]
                for j, row in enumerate(t.rows)
            ],
            "colours": RUNS,
        }


def _axis(t: TableOfRuns, name: str, column: int, texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """One setting: where its values stand, by their words."""
    values = {words(row.settings.get(name, ABSENT)) or "-": row.settings.get(name, ABSENT) for row in t.rows}
    at = {text: number_of(value) for text, value in values.items()}
    unique = list(dict.fromkeys(text[column] for text in texts))
    numeric = name != "run" and all(v is not None for v in at.values())
    places = at if numeric else {text: float(i) for i, text in enumerate(unique)}
    return {"name": name, "column": column, "numeric": numeric, "places": places}


def _number(at: str, m: Metric) -> dict[str, Any]:
    label = f"{sentence(m.label)}{f', {at}' if at else ''}"
    return {"label": label + (" (%)" if m.unit == "accuracy" else ""), "percent": m.unit == "accuracy"}


def many_runs(runs: Sequence[MeasuredRun]) -> ManyRuns:
    """The table of runs with every metric that at least one of them has."""
    there = {
        key for run in runs for r in run.results for key, value in r.metrics.items() if value is not None
    }
    keys = [m.key for m in METRICS if m.key in there] or list(USUAL)
    return ManyRuns(table(runs, metrics=keys or USUAL))
