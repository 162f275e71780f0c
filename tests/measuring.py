"""Result files as flat objects, one per checkpoint, and what differs under the key `comparison`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossclass.analysis import measure as measuring
from crossclass.analysis.measure import Measure
from crossclass.analysis.records import ResultFile, flat_comparison, flat_measurement, load_results
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
    return flat(measuring.measure(targets, *measure_settings(read.changes), runtime, **more))


def flat(found: ResultFile) -> list[dict[str, Any]]:
    """One object per checkpoint, then one per comparison."""
    compared = [{"comparison": flat_comparison(c)} for c in found.comparisons]
    return [*map(flat_measurement, found.results), *compared]


def read(path: Path) -> list[dict[str, Any]]:
    """A result file as flat objects."""
    return flat(load_results(path))
