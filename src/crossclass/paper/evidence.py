"""What is kept of a finished run: every number that figures, tables and claims need, without weights.

    <results>/runs/<label>-<digest>/  config.yaml  the whole run
                                      env.json     versions and device, without paths
                                      metrics.csv  one line per epoch; matrices.json C of the checked epochs
                                      measure.json the full evaluation of best and last
                                      clean.json, saliency.json ...  from `extra_measurements`

A study can be trained in several sittings and on several machines, for nothing else of a run is needed.
Matrices of many classes are kept for the full evaluation alone.
"""

import csv
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from crossclass.analysis.records import Comparison, EpochRow, Measurement, ResultFile
from crossclass.analysis.result_files import load_results, write_results
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.config import read_flat
from crossclass.core.errors import UserError
from crossclass.core.files import json_text, write_atomic

LARGE = 20
"""More classes than these keep no matrix per epoch, and no instance-wise one."""
_PRIVATE = ("data_path",)


@dataclass(frozen=True)
class Evidence:
    """The numbers of one finished run."""

    folder: Path
    env: dict[str, Any]
    rows: list[EpochRow]
    """One per epoch; `C` is there where an epoch was checked and the classes are few."""
    results: ResultFile
    """The full evaluation of best.val, best.test and last, and what differs between best and last."""
    extras: dict[str, Any] = field(default_factory=dict)
    """Further measurements by name (`extra_measurements`)."""
    lr_milestones: Sequence[int] = ()
    """Epochs after which the learning rate fell."""

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.env["seed"])

    @property
    def best(self) -> Measurement:
        """The measured checkpoint that the validation part chose, else the test part."""
        return self._measured("best.val", "best.test")

    @property
    def last(self) -> Measurement:
        """The measured last checkpoint."""
        return self._measured("last")

    @property
    def comparison(self) -> Comparison | None:
        """Best minus last on the same images, with intervals; None where they are one checkpoint."""
        return next(iter(self.results.comparisons), None)

    def _measured(self, *names: str) -> Measurement:
        for name in names:
            with suppress(KeyError):
                return self.results.of(name)
        raise UserError(
            f"{self.folder / 'measure.json'} does not hold {' or '.join(names)}; measure it again"
        )

    def checked(self) -> list[EpochRow]:
        """The epochs that were checked on test images."""
        return [r for r in self.rows if r.metrics.get("test_robust") is not None]

    def at(self, share: float) -> EpochRow:
        """The checked epoch nearest to a share of the paper's schedule (the earlier of two equally near)."""
        wanted = self._epoch(share)
        return min(self.checked(), key=lambda r: (abs(r.epoch - wanted), r.epoch))

    def late(self) -> list[EpochRow]:
        """The checked epochs after the paper's first drop of the learning rate, its half of the schedule."""
        return [r for r in self.checked() if r.epoch > self._epoch(0.5)]

    def _epoch(self, share: float) -> float:
        """Where in this run a share of the paper's schedule lies.

        The paper drops the learning rate at 50 and 75 %. In a schedule with two drops elsewhere a share is
        counted within its phase: 35 % is at 70 % of what comes before the first drop.
        """
        last, drops = max(r.epoch for r in self.rows), list(self.lr_milestones)
        knots = [0, *drops, last] if len(drops) == 2 else [0, 0.5 * last, 0.75 * last, last]
        return float(np.interp(share, (0, 0.5, 0.75, 1), knots))


def keep(folder: RunFolder, into: Path, extras: dict[str, Any]) -> Evidence:
    """Write the numbers of a finished run below `into`, and read them back.

    `extras` are further measurements by name. Raises UserError if the run is not finished.
    """
    if not folder.done:
        raise UserError(f"{folder.path} is not finished; train it to its end first")
    results = load_results(folder.path / "measure.json")
    kept, rows = into / folder.path.name, folder.rows()
    env = {k: v for k, v in (folder.read("env.json") or {}).items() if k not in _PRIVATE}
    write_atomic(kept / "config.yaml", folder.config())
    _write(kept / "env.json", env)
    write_results(kept / "measure.json", _slim(results))
    matrices = {str(r["epoch"]): _rounded(r["C"]) for r in rows if r.get("C") and len(r["C"]) <= LARGE}
    _write(kept / "matrices.json", matrices, indent=None)
    for name, content in extras.items():
        _write(kept / f"{name}.json", content)
    write_atomic(
        kept / "metrics.csv", (folder.path / "metrics.csv").read_text("utf-8")
    )  # last: it marks the end
    return read(kept)


def read(folder: Path) -> Evidence:
    """The evidence in a folder. Raises UserError if a file is missing or damaged."""
    env, results = _json(folder / "env.json"), _results(folder / "measure.json")
    rows = _rows(folder / "metrics.csv", _json(folder / "matrices.json"))
    config = folder / "config.yaml"
    milestones = read_flat(_text(config), str(config)).get("lr_milestones") or ()
    known = {"env", "measure", "matrices"}
    extras = {p.stem: _json(p) for p in sorted(folder.glob("*.json")) if p.stem not in known}
    return Evidence(folder, env, rows, results, extras, tuple(milestones))


def complete(folder: Path, extras: Sequence[str] = ()) -> bool:
    """Whether a folder holds the evidence of a run, with these extras."""
    return all((folder / name).is_file() for name in ("metrics.csv", *(f"{e}.json" for e in extras)))


def _slim(results: ResultFile) -> ResultFile:
    """Without the large matrices that no figure shows."""
    return results.model_copy(
        update={
            "results": [_slim_matrices(r, ("C",)) for r in results.results],
            "comparisons": [_slim_matrices(c, ()) for c in results.comparisons],  # best minus last, both kept
        }
    )


def _slim_matrices(record: Any, kept: Sequence[str]) -> Any:
    if max(map(len, record.matrices.values()), default=0) <= LARGE:
        return record
    return record.model_copy(update={"matrices": {k: _rounded(record.matrices[k], 2) for k in kept}})


def _rounded(C: list[list[float | None]], digits: int = 4) -> list[list[float | None]]:
    return [[None if v is None else round(v, digits) for v in row] for row in C]


def _write(path: Path, content: Any, indent: int | None = 1) -> None:
    write_atomic(path, json_text(content, indent) + "\n")


def _unreadable(path: Path) -> UserError:
    what = "damaged" if path.exists() else "missing"
    return UserError(f"{path} is {what}; delete its folder to have it made again from the run")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise _unreadable(path) from e


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as e:
        raise _unreadable(path) from e


def _results(path: Path) -> ResultFile:
    try:
        return load_results(path)
    except UserError as e:
        raise _unreadable(path) from e


def _rows(path: Path, matrices: dict[str, Any]) -> list[EpochRow]:
    try:
        cells = csv.DictReader(_text(path).splitlines())
        rows = [{column: _value(cell) for column, cell in row.items()} for row in cells]
        return [EpochRow(**row, C=matrices.get(str(row["epoch"]))) for row in rows]
    except (csv.Error, KeyError, TypeError, ValidationError) as e:
        raise _unreadable(path) from e


def _value(cell: str | None) -> Any:
    if not cell:
        return None
    try:
        return json.loads(cell)  # a number is written as JSON writes it
    except json.JSONDecodeError:
        return cell
