"""One table of many runs: a row for each setting, with means over its seeds, intervals and conditions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from crossclass.analysis.frames import to_frame
from crossclass.analysis.measured_runs import MeasuredRun, measured_runs
from crossclass.analysis.metrics import METRICS, Metric
from crossclass.analysis.records import Measurement
from crossclass.analysis.setting_names import ABSENT, differing, is_pooled, value_of, with_parts, words
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.yaml_reader import parse_fraction

LEVEL = 0.95
"""Of the intervals over seeds; those over images have their own, stored with them."""
USUAL = ("clean", "robust", "cas")
"""The metrics of a table that names none."""


class Conditions(NamedTuple):
    """What a number was measured with; numbers of different conditions are never averaged."""

    attack: str
    attributed: str
    """Which images attributions are of, if not all."""
    data: str
    n: int | None
    split: str | None
    checksum: str | None
    chosen_by: str | None
    """The part on which the best checkpoint was chosen."""
    eps: float | None = None
    steps: int | None = None


class Cell(NamedTuple):
    """A number of a row: the mean over its runs."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    """Runs that it is the mean of."""


@dataclass(frozen=True)
class TableRow:
    """All runs of one setting that were measured alike."""

    name: str
    """The common label of the runs."""
    settings: dict[str, Any]
    """What differs between rows, by short name; a setting that these runs do not have is missing."""
    runs: tuple[MeasuredRun, ...]
    conditions: Conditions
    cells: dict[tuple[str, str], Cell]
    """By the checkpoint (`best`, `last`, or empty for a file) and the key of the metric."""
    values: dict[tuple[str, str], list[float | None]]
    """The numbers that `cells` are means of, one for each run."""


@dataclass(frozen=True, repr=False)
class TableOfRuns:
    """Many runs as a table. `rows` holds the numbers; `to_pandas` and `crossclass table` write them."""

    settings: list[str]
    """Short names of what differs."""
    named: bool
    """Whether the rows have names that say more than the settings."""
    checkpoints: list[str]
    metrics: list[Metric]
    rows: list[TableRow]
    pool: tuple[str, ...]
    missing: dict[str, str]
    """Runs without results, in words, and why."""
    doubled: dict[str, str]
    """Folders of runs that are the same as another one, and which; they are counted once."""

    @property
    def telling(self) -> list[str]:
        """The settings that tell rows apart: all, or those in which rows of one name differ."""
        if not self.named:
            return self.settings
        values: dict[tuple[str, str], set[str]] = {}
        for row in self.rows:
            for name in self.settings:
                values.setdefault((row.name, name), set()).add(words(row.settings.get(name, ABSENT)))
        return [s for s in self.settings if any(len(v) > 1 for (_, name), v in values.items() if name == s)]

    @property
    def differing_conditions(self) -> list[str]:
        """In which fields of `Conditions` the rows differ."""
        fields = ("attack", "attributed", "data", "n", "split", "checksum", "chosen_by")
        return [f for f in fields if len({getattr(row.conditions, f) for row in self.rows}) > 1]

    def __repr__(self) -> str:
        runs = sum(len(row.runs) for row in self.rows)
        said = ", ".join(self.telling) or "nothing"
        return f"<table of {runs} runs in {len(self.rows)} rows; different: {said}; see to_pandas()>"

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary for each row; accuracies are in [0, 1]."""
        columns = [_column([row.settings.get(name, ABSENT) for row in self.rows]) for name in self.settings]
        out = []
        for i, row in enumerate(self.rows):
            flat: dict[str, Any] = {"run": row.name}
            flat |= {name: column[i] for name, column in zip(self.settings, columns, strict=True)}
            flat["seeds" if self.pool == ("seed",) else "runs"] = len(row.runs)
            for at in self.checkpoints:
                for m in self.metrics:
                    cell, key = row.cells.get((at, m.key)), "_".join(filter(None, (m.key, at)))
                    flat[key] = cell and cell.mean
                    flat |= {f"{key}_low": cell and cell.low, f"{key}_high": cell and cell.high}
            c = row.conditions
            flat["interval"] = "t over runs" if len(row.runs) > 1 else "over images"
            flat |= {"eval_attack": c.attack, "eval_eps": c.eps, "eval_steps": c.steps, "eval_n": c.n}
            flat |= {"eval_split": c.split, "eval_data": c.data, "best_chosen_on": c.chosen_by}
            out.append(flat)
        return out

    def to_pandas(self) -> Any:
        """One row per setting, with the columns of `table out=FILE.csv`. Raises UserError without pandas."""
        return to_frame(self.records())


def table_of_runs(
    paths: Iterable[Path | str] | Path | str,
    *,
    pool: Sequence[str] = ("seed",),
    rows: Literal["settings", "runs"] = "settings",
    metrics: Sequence[str] = USUAL,
) -> TableOfRuns:
    """A table of run folders, of all runs below folders, and of result files.

    Args:
        paths: One path or several.
        pool: Settings over which is averaged, by their last word or whole path.
        rows: `runs` has a row for each run.
        metrics: Keys of the list of metrics.

    Raises:
        UserError: A path is none of these, or there is no such metric.

    Example:
        table_of_runs("runs").to_pandas()
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    return table(measured_runs(several), pool, rows, metrics)


def table(
    runs: Sequence[MeasuredRun],
    pool: Sequence[str] = ("seed",),
    rows: Literal["settings", "runs"] = "settings",
    metrics: Sequence[str] = USUAL,
) -> TableOfRuns:
    """`table_of_runs` of what has been read already."""
    pooled = tuple(pool) if rows == "settings" else ()
    every = dict(enumerate(with_parts([run.settings for run in runs])))
    names = differing([settings for settings in every.values() if settings], pooled)
    known = {i: _settings(settings, names) for i, settings in every.items()}
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], _Replicate]] = {}
    missing, doubled = dict[str, str](), dict[str, str]()
    any_data = any(is_pooled(path, pooled) and path.startswith("data.") for s in every.values() for path in s)
    for i, run in enumerate(runs):
        alone = () if run.settings else (i,)  # whether another file is the same network, nobody says
        same = tuple(
            sorted((p, str(v)) for p, v in every[i].items() if is_pooled(p, pooled) or _is_content(p))
        )
        if not run.results:
            missing[_in_words(run, known[i], every[i], pooled)] = run.missing or "not measured"
        for conditions, at in _alike(run.results, any_data).items():
            setting = tuple((name, words(value)) for name, value in known[i].items())
            group = groups.setdefault((run.name, setting, alone, conditions), {})
            first = group.setdefault((same, alone), _Replicate(run, known[i], at))
            if first.run is not run and first.run.title != run.title:
                doubled[run.title] = first.run.title
    chosen = _metrics(metrics, runs)
    made = [_row([*group.values()], Conditions(*key[-1]), chosen) for key, group in groups.items() if group]
    order = {name: _order([row.settings.get(name, ABSENT) for row in made]) for name in names}
    made.sort(key=lambda row: [order[name][words(row.settings.get(name, ABSENT))] for name in names])
    seen = {at for row in made for at, _ in row.cells}
    return TableOfRuns(
        settings=list(names),
        named=len({row.name for row in made}) > 1 or not names,
        checkpoints=[at for at in ("best", "last") if at in seen] + sorted(seen - {"best", "last"}),
        metrics=chosen,
        rows=made,
        pool=pooled,
        missing=missing,
        doubled=doubled,
    )


class _Replicate(NamedTuple):
    """One of the runs of a row."""

    run: MeasuredRun
    settings: dict[str, Any]
    at: dict[str, Measurement]
    """What was measured, by checkpoint."""


def _seed(one: _Replicate) -> float:
    return number_of(one.run.settings.get("seed")) or 0.0


def _is_content(path: str) -> bool:
    return path.rpartition(".")[2] in ("checksum", "fingerprint")


def _settings(run: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found = {name: value_of(run, paths) for name, paths in names.items()}
    return {name: value for name, value in found.items() if value is not ABSENT}


def _in_words(
    run: MeasuredRun, known: Mapping[str, Any], settings: Mapping[str, Any], pool: Sequence[str]
) -> str:
    """A run by what differs, with its seed."""
    seeds = {path: value for path, value in settings.items() if is_pooled(path, pool)}
    said = [f"{name} {words(value)}" for name, value in {**known, **seeds}.items()]
    return ", ".join(said if known else [run.name, *said])


def _alike(results: Sequence[Measurement], any_data: bool) -> dict[Conditions, dict[str, Measurement]]:
    """The measurements of a run by their conditions, then by checkpoint; of best ones that of validation."""
    out: dict[Conditions, dict[str, Measurement]] = {}
    for r in sorted(results, key=lambda r: r.checkpoint.chosen_by == "test"):
        name = r.checkpoint.name if r.checkpoint.run else ""
        at = "best" if name.startswith("best.") else name
        out.setdefault(_conditions(r, any_data), {}).setdefault(at, r)
    return {
        c._replace(chosen_by=at["best"].checkpoint.chosen_by if "best" in at else None): at
        for c, at in out.items()
    }


def _conditions(r: Measurement, any_data: bool) -> Conditions:
    c, subset = r.conditions, r.conditions.get("attribution_subset", "all")
    return Conditions(
        attack=r.attack or "attack not recorded",
        attributed="" if subset == "all" else f"attributions of {subset} images only",
        data="" if any_data else r.data.name or "",
        n=r.data.n,
        split=r.data.split,
        checksum=None if any_data else r.data.checksum,
        chosen_by=None,
        eps=number_of(c.get("eps")),
        steps=c.get("steps"),
    )


def _metrics(keys: Sequence[str], runs: Sequence[MeasuredRun]) -> list[Metric]:
    """The metrics by key; one that only the files know has its key for a label. Raises UserError."""
    known = {m.key: m for m in METRICS}
    stored = {key for run in runs for r in run.results for key in r.metrics} - known.keys()
    known |= {key: Metric(key, key, "", lambda _: None) for key in stored}
    for key in keys:
        if key not in known:
            raise UserError(f"metrics: there is no number '{key}'{did_you_mean(key, known)}")
    return [known[key] for key in dict.fromkeys(keys)]


def _row(replicates: Sequence[_Replicate], conditions: Conditions, metrics: Sequence[Metric]) -> TableRow:
    cells, values = dict[tuple[str, str], Cell](), dict[tuple[str, str], list[float | None]]()
    for at in dict.fromkeys(at for one in replicates for at in one.at):
        for m in metrics:
            measured = [one.at.get(at) for one in replicates]
            each = [_number(r, m.key) for r in measured]
            found = [value for value in each if value is not None]
            if not found:
                continue
            values[at, m.key] = each
            ends = measured[0].intervals.ends(m.key) if measured[0] and measured[0].intervals else None
            of_images = (None, None) if ends is None or len(replicates) > 1 else ends
            cells[at, m.key] = mean_over_runs(found) if len(found) > 1 else Cell(found[0], *of_images)
    first = replicates[0]
    return TableRow(
        first.run.name, first.settings, tuple(one.run for one in replicates), conditions, cells, values
    )


def _number(r: Measurement | None, key: str) -> float | None:
    if r is None or (key == "robust" and not r.attacked):
        return None
    value = r.metrics.get(key)
    return float(value) if isinstance(value, int | float) else None


def mean_over_runs(values: Sequence[float]) -> Cell:
    """The mean of two or more runs with its t interval at `LEVEL`.

    It is that of other seeds on the same test images: other images are not in it.
    """
    from scipy.special import stdtrit

    n, mean = len(values), fmean(values)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * stdev(values) / math.sqrt(n)
    return Cell(mean, mean - half, mean + half, n)


def number_of(value: Any) -> float | None:
    """A setting as a number, `8/255` too; None for what is none."""
    try:
        value = parse_fraction(value)
    except ValueError:
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _order(values: Sequence[Any]) -> dict[str, tuple[int, float]]:
    """By its words where each value of a setting stands: numbers by size, others as they come."""
    unique = dict.fromkeys(map(words, values))
    numbers = {words(value): number_of(value) for value in values}
    return {
        word: (1, float(i)) if (number := numbers[word]) is None else (0, number)
        for i, word in enumerate(unique)
    }


def _column(values: Sequence[Any]) -> list[Any]:
    """The values of a setting as numbers where all are, else as texts; None where there is none."""
    numbers = [number_of(value) for value in values]
    absent = [value is ABSENT or value is None for value in values]
    if all(a or n is not None for a, n in zip(absent, numbers, strict=True)):
        whole = all(n is None or isinstance(v, int) for n, v in zip(numbers, values, strict=True))
        return [n if n is None or not whole else int(n) for n in numbers]
    return [None if a else words(value) for a, value in zip(absent, values, strict=True)]
