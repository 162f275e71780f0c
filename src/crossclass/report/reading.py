"""What lies on the disk, read and checked: run folders and the results of `measure`."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import yaml

from crossclass.analysis.records import flat_comparison, flat_measurement, load_results
from crossclass.core.errors import UserError

Plain: TypeAlias = dict[str, Any]

_SCALARS = re.compile(r"((train|val|test)_)?(clean|robust|cas)|cas_.*|lr|.*seconds|predicted_.*|n.*mass")


class Run(NamedTuple):
    """A run folder as plain data."""

    folder: Path
    config: Plain
    env: Plain
    rows: list[Plain]
    measures: list[Plain]
    comparisons: list[Plain]
    done: bool
    failure: Plain = {}  # noqa: RUF012 - read only
    """Why the run stopped, if its loss was no number."""


class Results(NamedTuple):
    """A file of `measure`: checkpoints under their conditions, and what differs between two of them."""

    path: Path
    measures: list[Plain]
    comparisons: list[Plain]


def read_run(folder: Path) -> Run:
    """The folder of a run as plain data; raises UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a run, such as runs/NAME")
    config, events = folder / "config.yaml", folder / "events.jsonl"
    if not config.exists() and not events.exists():
        inside = sorted(p.parent for p in folder.glob("*/config.yaml"))
        hint = f"such as {inside[0]}" if inside else "one that 'crossclass train' has made"
        raise UserError(f"{folder}: not a run folder (no config.yaml); give {hint}")
    done = (folder / "DONE").exists()
    rows = _rows(events, done) if events.exists() else []
    failure = _json(folder / "failure.json", {})
    if not rows:
        why = f" ({failure['evidence']})" if failure.get("evidence") else ""
        raise UserError(f"{folder}: the run has no epochs yet{why}; train it with 'crossclass train'")
    try:
        settings = yaml.safe_load(config.read_text("utf-8")) if config.exists() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{config}: not valid YAML; restore the file") from e
    settings = settings if isinstance(settings, dict) else {}
    measured = _measured(folder / "measure.json")
    return Run(folder, settings, _json(folder / "env.json", {}), rows, *measured, done, failure)


def read_results(path: Path) -> Results:
    """A file that `measure` wrote; raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; write it with 'crossclass measure ... out={path.name}'")
    if not _is_text(path):
        raise UserError(
            f"{path}: not a result of measure; if it is a checkpoint, 'crossclass measure {path.name} ... "
            "out=result.json' first, and report that"
        )
    measures, comparisons = _measured(path)
    if not measures:
        raise UserError(f"{path}: holds no measured checkpoint; write it anew with 'crossclass measure'")
    return Results(path, measures, comparisons)


def _is_text(path: Path) -> bool:
    try:
        return path.read_bytes()[:1].strip() in (b"", b"[", b"{") and bool(path.read_text("utf-8"))
    except ValueError:
        return False


def _measured(path: Path) -> tuple[list[Plain], list[Plain]]:
    """The checkpoints of a result file, and its comparisons, each on one level of keys."""
    if not path.exists():
        return [], []
    found = load_results(path)
    return [flat_measurement(r) for r in found.results], [flat_comparison(c) for c in found.comparisons]


def _json(path: Path, empty: Any) -> Any:
    try:
        text = path.read_text("utf-8") if path.exists() else None
        data = empty if text is None else json.loads(text, parse_constant=lambda _: None)
    except ValueError as e:
        raise UserError(f"{path}: not valid JSON ({e}); restore or delete the file") from e
    if type(data) is not type(empty) or any(isinstance(data, list) and type(m) is not dict for m in data):
        raise UserError(f"{path}: not what a run writes there; restore or delete the file")
    return data


def _rows(path: Path, done: bool) -> list[Plain]:
    rows: dict[int, Plain] = {}  # a resumed run may write an epoch again
    lines = path.read_text("utf-8", errors="replace").split("\n")
    for n, line in enumerate(lines, 1):
        try:
            if line.strip():
                row = _checked(json.loads(line, parse_constant=lambda _: None))
                rows[row["epoch"]] = row
        except ValueError as e:
            if n == len(lines) and not done:
                break  # the run is writing this line just now
            raise UserError(f"{path}, line {n}: not an epoch of a run ({e}); mend the line") from e
    return [rows[epoch] for epoch in sorted(rows)]


def _checked(row: Any) -> Plain:
    if not isinstance(row, dict) or type(row.get("epoch")) is not int:
        raise ValueError("no whole number 'epoch'")
    for key, value in row.items():
        if _SCALARS.fullmatch(key) and not isinstance(value, int | float | None):
            raise ValueError(f"'{key}' is not a number")
    C = row.get("C") or []
    if not isinstance(C, list) or any(not isinstance(c, list) or len(c) != len(C) for c in C):
        raise ValueError("'C' is not a square matrix")
    return row
