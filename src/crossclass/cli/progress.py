"""What a person sees while something takes long; everything goes to stderr, so stdout is for results."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from crossclass.core.launch_environment import is_main_process
from crossclass.core.progress import duration

if TYPE_CHECKING:
    from crossclass.analysis.records import EpochRow
    from crossclass.cli.remaining_time import RemainingTime

SILENCE = 30.0
"""Seconds after the last line until there is one about how far the work is, where there are no bars."""
SHORT = 5.0
"""The same where something else has begun."""
SHARE = 0.02
"""Of the time since the start, if that is longer than `SILENCE`: the log of a week need not be long."""


class ProgressDisplay:
    """Bars on a terminal, plain lines elsewhere; of several processes only the first says anything."""

    def __init__(self, label: str, bars: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.label, self.bars, self.clock = label, bars, clock
        self.task = bars.add_task(label, total=None) if bars else None
        self.remaining: RemainingTime | None = None
        """Of the run whose epochs are shown, if one is."""
        self.latest = ""
        self.now = ("", 0, 0)
        self.stepped = False
        """Whether something was done since the last epoch."""
        self.start = self.said = clock()

    def step(self, what: str, done: int, total: int) -> None:
        """Move the bar, or say how far the work is if nothing was said for a while."""
        before, self.now, self.stepped = self.now[0], (what, done, total), True
        if self.bars:
            self.bars.update(
                self.task,
                description=" ".join([self.label] * (self.bars.console.width >= 60) + [what, self.latest]),
                completed=done,
                total=total,
            )
        else:
            self.tick(begins=what != before)

    def tick(self, *, begins: bool = False) -> None:
        """Say how far the work is if nothing was said for a while."""
        what, done, total = self.now
        passed = self.clock() - self.start
        silence = (SHORT if begins else SILENCE) * max(1.0, SHARE * passed / SILENCE)
        if what and self.clock() - self.said >= silence:
            far = f" {done} of {total}" if total > 1 else ""
            since = self.latest or f"{duration(passed)} so far"
            self.log(f"{self.label}: {far.strip() if what == self.label and far else what + far}, {since}")

    def row(self, row: "EpochRow") -> None:
        """The line of a finished epoch, with its warnings; those before a resume only tell the time left."""
        stepped, self.stepped = self.stepped, False
        if not stepped:
            if self.remaining:
                self.remaining.after(row)
            return
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
        self.said = self.clock()
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
        display, ended = ProgressDisplay(label), threading.Event()

        def watch() -> None:
            while not ended.wait(1.0):
                display.tick()

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield display
        finally:
            ended.set()
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
