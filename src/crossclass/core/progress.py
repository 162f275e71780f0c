"""What a person sees while something takes long; everything goes to stderr, so stdout is for results."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from crossclass.core.launcher import is_main_process

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far, and out of how many."""
Log = Callable[[str], None]
"""Called with one line for the person who waits."""


@runtime_checkable
class Columns(Protocol):
    """The row of an epoch, by the names of its columns; None for a column that it lacks."""

    def __getitem__(self, key: str, /) -> Any: ...

    def get(self, key: str, /) -> Any:
        """The value of a column, or None."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class ProgressDisplay:
    """Progress for people: bars on a terminal, plain lines elsewhere; everything goes to stderr.

    Of several processes that run together only the first says anything.
    """

    def __init__(self, label: str, epochs: int | None, bars: Any) -> None:
        self.label, self.epochs, self.bars = label, epochs, bars
        self.task = bars.add_task(label, total=None) if bars else None
        self.spent, self.rows = 0.0, 0
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

    def log(self, text: str) -> None:
        """One line of news."""
        self._print(text)

    def row(self, row: Columns) -> None:
        """The line of a finished epoch, with its warnings."""
        epoch, percent = row["epoch"], lambda v: "  -  " if v is None else f"{100 * v:4.1f} %"
        self.spent += (row.get("seconds") or 0) + (row.get("check_seconds") or 0)  # also of a resumed run
        self.rows += 1
        train = row["train_robust"] if row.get("train_robust") is not None else row.get("train_clean")
        eta = self.spent / self.rows * ((self.epochs or epoch) - epoch)
        parts = [
            f"epoch {epoch:3}/{self.epochs}" if self.epochs else f"epoch {epoch:3}",
            f"lr {row['lr']:<7.4g}",
            f"train {percent(train)}",
            f"test clean {percent(row.get('test_clean'))}",
            f"robust {percent(row.get('test_robust'))}",
            f"CAS {'  - ' if row.get('cas') is None else format(row['cas'], '5.2f')}",
        ]
        parts += [f"{duration(eta)} left"] if self.epochs else []
        left = f"/{self.epochs}, {duration(eta)} left" if self.epochs else ""
        self.latest = f"after epoch {epoch}{left}"
        self._print("  ".join(parts))
        for warning in row.get("warnings") or []:
            self._print(f"  warning: {warning}")

    def _print(self, text: str) -> None:
        if not is_main_process():
            return
        if self.bars:
            self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_display(label: str, epochs: int | None = None) -> Iterator[ProgressDisplay]:
    """Show the progress of a job of that many epochs."""
    if not sys.stderr.isatty() or not is_main_process():
        yield ProgressDisplay(label, epochs, None)
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.percentage:3.0f} %"),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield ProgressDisplay(label, epochs, bars)


def duration(seconds: float) -> str:
    """`40 s`, `3 min` or `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
