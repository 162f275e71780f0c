"""How long work reports how far it is: functions that it calls, a bar for people, and what does nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from crossclass.core.launch_environment import is_main_process

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far, and out of how many."""
Log = Callable[[str], None]
"""Called with one line for the person who waits."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def shown(progress: Progress | bool | None = None) -> Iterator[Progress]:
    """A function to report progress to, which moves a bar if somebody watches.

    Args:
        progress: A function, which is taken as it is; True, a bar; False, none; None, a bar in a notebook and
            where stderr is a terminal.
    """
    if callable(progress):
        yield progress
        return
    notebook = _notebook()
    watched = notebook is not None or sys.stderr.isatty() if progress is None else progress
    if not watched or not is_main_process():
        yield silent
    elif notebook is not None:
        yield from _in_notebook(notebook)
    else:
        yield from _on_terminal()


def _notebook() -> Any:
    """IPython's module for display if this is a notebook; a terminal's IPython is none."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython import display  # type: ignore[import-not-found,unused-ignore]

    return display


def _in_notebook(display: Any) -> Iterator[Progress]:
    """A bar of the browser, which needs no widgets."""
    handle, last = display.display(display.HTML(""), display_id=True), ("", -1)

    def step(what: str, done: int, total: int) -> None:
        nonlocal last
        percent = 100 * done // max(1, total)
        if (what, percent) != last:
            last = what, percent
            bar = f'<progress value="{done}" max="{total}"></progress>'
            handle.update(display.HTML(f"{bar} {what}: {done} of {total}"))

    try:
        yield step
    finally:
        handle.update(display.HTML(""))


def _on_terminal() -> Iterator[Progress]:
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.errors import LiveError

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.percentage:3.0f} %"),
        rich_progress.TimeRemainingColumn(),
    )
    bars = rich_progress.Progress(*columns, console=Console(stderr=True), transient=True)
    try:
        bars.start()
    except LiveError:  # whoever calls shows a bar already
        yield silent
        return
    try:
        task = bars.add_task("", total=None)
        yield lambda what, done, total: bars.update(task, description=what, completed=done, total=total)
    finally:
        bars.stop()


def duration(seconds: float) -> str:
    """`40 s`, `3 min` or `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
