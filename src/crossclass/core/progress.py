"""How long work reports how far it is: two functions that it calls, and those that do nothing."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far, and out of how many."""
Log = Callable[[str], None]
"""Called with one line for the person who waits."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def duration(seconds: float) -> str:
    """`40 s`, `3 min` or `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
