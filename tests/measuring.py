"""Result files as flat objects, one per checkpoint, and what differs under the key `comparison`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossclass.analysis import measure as measuring
from crossclass.analysis.measure import Measure
from crossclass.analysis.records import ResultFile
from crossclass.analysis.result_files import load_results
from crossclass.checkpoints.load import Source
from crossclass.cli.arguments import read_arguments
from crossclass.cli.measure import measure_settings
from crossclass.core.runtime import Runtime


def measure(
    targets: Sequence[str], changes: Sequence[str], runtime: Runtime, **more: Any
) -> list[dict[str, Any]]:
    """What `crossclass measure` writes about targets under `path=value` texts."""
    read = read_arguments(changes, Measure, Source)
    assert not read.targets
    return flat(measuring.measure(targets, *measure_settings(read.changes, Measure()), runtime, **more))


def flat(found: ResultFile) -> list[dict[str, Any]]:
    """One object per checkpoint, then one per comparison."""
    results, comparisons = ([r.to_dict() for r in part] for part in (found.results, found.comparisons))
    for r in results:
        r |= r["matrices"] | r["data"] | _named(r["checkpoint"]) | {"data": r["data"]["name"]}
    for c in comparisons:
        c |= c["matrices"] | c["data"] | {"of": c["of"] and list(map(_named, c["of"]))}
    return [*results, *({"comparison": c} for c in comparisons)]


def _named(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {"checkpoint": checkpoint["name"], **{k: checkpoint[k] for k in ("run", "epoch", "chosen_by")}}


def read(path: Path) -> list[dict[str, Any]]:
    """A result file as flat objects."""
    return flat(load_results(path))
