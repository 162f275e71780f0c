"""The page of a result file of `measure`: each checkpoint under its conditions, then the comparisons."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crossclass.analysis.metrics import Metric
from crossclass.analysis.records import ResultFile
from crossclass.report import comparison, measurement
from crossclass.report.comparison import ComparisonView
from crossclass.report.downloads import download
from crossclass.report.measurement import MeasurementView


@dataclass(frozen=True)
class ResultsView:
    """What the page says about one file."""

    path: Path
    file: ResultFile
    index: int
    """Tells its anchors from those of other files."""

    @cached_property
    def measurements(self) -> list[MeasurementView]:
        """Its checkpoints, in the order of the file."""
        return measurement.views(self.file.results, f"result-{self.index}")

    @cached_property
    def comparisons(self) -> list[ComparisonView]:
        """What differs between two of them."""
        file = self.file
        return comparison.views(file.comparisons, file.results, self.path.parent, f"comparison-{self.index}")

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that any of its checkpoints has."""
        return measurement.measured_metrics(self.file.results)

    @property
    def download(self) -> tuple[str, str]:
        """The name of the file and its data URL."""
        return download(self.path)
