"""What a person sees while something takes long; everything goes to stderr, so stdout is for results."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from crossclass.core.launch_environment import is_main_process
from crossclass.core.progress import duration

if TYPE_CHECKING:
    from crossclass.analysis.records import EpochRow
    from crossclass.cli.remaining_time import RemainingTime


class ProgressDisplay:
    """Bars on a terminal, plain lines elsewhere; of several processes only the first says anything."""

    def __init__(self, label: str, bars: Any = None) -> None:
        self.label, self.bars = label, bars
        self.task = bars.add_task(label, total=None) if bars else None
        self.remaining: RemainingTime | None = None
        """Of the run whose epochs are shown, if one is."""
        self.latest = ""

    def step(self, what: str, done: int, total: int) -> None:
        """Move the bar."""
        if self.bars:
            self.bars.update(
                self.task,
                description=" ".join([self.label] * (self.bars.console.width >= 60) + [what, self.latest]),
                completed=done,
                total=total,
            )

    def row(self, row: "EpochRow") -> None:
        """The line of a finished epoch, with its warnings."""
        epochs = self.remaining.run.epochs if self.remaining else None
        train = row.train_clean if row.train_robust is None else row.train_robust
        cas = row.get("cas")
        parts = [
            f"epoch {row.epoch:3}" + (f"/{epochs}" if epochs else ""),
            f"lr {row.lr:<7.4g}",
            f"train {_percent(train)}",
            f"test clean {_percent(row.get('test_clean'))}",
            f"robust {_percent(row.get('test_robust'))}",
            "CAS   - " if cas is None else f"CAS {cas:5.2f}",
        ]
        self.latest = f"after epoch {row.epoch}"
        if self.remaining:
            left = duration(self.remaining.after(row))
            parts.append(f"{left} left")
            self.latest += f"/{epochs}, {left} left"
        self.log("  ".join(parts))
        for warning in row.warnings:
            self.log(f"  warning: {warning}")

    def log(self, text: str) -> None:
        """One line of news."""
        if not is_main_process():
            return
        if self.bars:
            self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)


def _percent(share: float | None) -> str:
    return "  -  " if share is None else f"{100 * share:4.1f} %"


@contextmanager
def progress_display(label: str) -> Iterator[ProgressDisplay]:
    """Show the progress of a job."""
    if not sys.stderr.isatty() or not is_main_process():
        yield ProgressDisplay(label)
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.percentage:3.0f} %"),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield ProgressDisplay(label, bars)
