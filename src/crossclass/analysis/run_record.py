"""The record of a run: what its folder says, read without torch."""

import json
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from crossclass.analysis.frames import to_frame
from crossclass.analysis.records import (
    EpochRow,
    ResultFile,
    as_array,
    columns,
    first_error,
    metric_columns,
)
from crossclass.analysis.result_files import load_results, read_json
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.yaml_reader import read_yaml

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, repr=False)
class RunRecord:
    """What a run folder says: settings, environment, epochs and the evaluation at its end."""

    folder: Path
    config: dict[str, Any]
    env: dict[str, Any]
    rows: list[EpochRow]
    results: ResultFile
    """Of `measure.json`; empty while the run is in progress."""
    done: bool
    failure: dict[str, Any] = field(default_factory=dict)
    """Why the run stopped, if its loss was not finite."""

    def __repr__(self) -> str:
        state = "finished" if self.done else "not finished"
        last = repr(self.rows[-1]).strip("<>") if self.rows else "no epoch"
        return f"<run {self.folder.name}: {state}, {last}>"

    def __getitem__(self, column: str) -> "NDArray[np.float64]":
        """A column of metrics.csv as an array [epochs], NaN where it was not measured.

        Such as `run["epoch"]`, `run["test_robust"]`, `run["cas"]`. Raises UserError for an unknown column.
        """
        if column not in columns():
            raise UserError(f"a run has no column '{column}'{did_you_mean(column, columns())}")
        return as_array([row.get(column) for row in self.rows])

    @property
    def C(self) -> "NDArray[np.float64]":  # noqa: N802 - the paper's symbol
        """C on test images after each epoch, [epochs, K, K]; NaN for epochs in which it was not measured."""
        K = next((len(row.C) for row in self.rows if row.C is not None), 0)
        unknown: list[list[float | None]] = [[None] * K] * K
        return as_array([unknown if row.C is None else row.C for row in self.rows])

    def _repr_html_(self) -> str:
        """What a notebook shows: the run in a line, and its evaluation."""
        text = escape(repr(self))
        return f"<p>{text}</p>{self.results._repr_html_() if self.results.results else ''}"

    def to_pandas(self) -> Any:
        """One row per epoch, with the columns of metrics.csv. Raises UserError without pandas."""
        return to_frame([{c: r.get(c) for c in columns()} for r in self.rows])


def load_run(folder: Path | str) -> RunRecord:
    """Read a run folder. Raises UserError if it is none, has no epoch yet, or a file of it is damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file, no run folder" if folder.is_file() else "no such folder"
        raise UserError(f"{folder}: {what}; give the folder of a run, such as runs/NAME")
    config, events, measured = (folder / name for name in ("config.yaml", "events.jsonl", "measure.json"))
    if not config.exists() and not events.exists():
        inside = sorted(p.parent for p in folder.glob("*/config.yaml"))
        hint = f"such as {inside[0]}" if inside else "one that 'crossclass train' has made"
        raise UserError(f"{folder}: not a run folder (no config.yaml); give {hint}")
    done = (folder / "DONE").exists()
    rows = read_epochs(events, done)
    failure = _object(folder / "failure.json")
    if not rows:
        why = f" ({failure['evidence']})" if failure.get("evidence") else ""
        raise UserError(f"{folder}: the run has no epochs yet{why}; train it with 'crossclass train'")
    results = load_results(measured) if measured.exists() else ResultFile()
    return RunRecord(folder, _yaml(config), _object(folder / "env.json"), rows, results, done, failure)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path.read_text("utf-8"), [], str(path)) if path.exists() else {}
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not valid YAML; restore the file") from e


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: not what a run writes there; restore or delete the file")
    return content


def read_epochs(path: Path, done: bool) -> list[EpochRow]:
    """The epochs in an events.jsonl, none if there is no file.

    Of a run that is not `done` the last line may be cut off. Raises UserError for a line that is no epoch.
    """
    if not path.exists():
        return []
    rows: dict[int, EpochRow] = {}  # a resumed run may write an epoch again
    lines = path.read_text("utf-8", errors="replace").split("\n")
    for n, line in enumerate(lines, 1):
        try:
            if line.strip():
                row = EpochRow.model_validate(json.loads(line, parse_constant=lambda _: None))
                for column in metric_columns():
                    if not isinstance(row.metrics.get(column), int | float | None):
                        raise ValueError(f"'{column}' is not a number")
                rows[row.epoch] = row
        except ValueError as e:  # ValidationError is one too
            if n == len(lines) and not done:
                break  # the run is writing this line now
            why = first_error(e) if isinstance(e, ValidationError) else str(e)
            raise UserError(f"{path}, line {n}: not an epoch of a run ({why}); restore the line") from e
    return [rows[epoch] for epoch in sorted(rows)]
