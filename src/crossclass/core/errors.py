"""What goes wrong by a user's doing is said in one sentence: what, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 2000


class UserError(ValueError):
    """A mistake of the user's; the command line prints its one sentence and exits with code 2.

    Names in files and settings may hold line breaks, or what a terminal would obey: they become blanks.
    They may also be very long: of more than `LONGEST` characters the middle is left out.
    """

    def __init__(self, sentence: str = "") -> None:
        if len(sentence) > LONGEST:
            half = LONGEST // 2 - 5
            sentence = f"{sentence[:half]} [...] {sentence[-half:]}"
        super().__init__("".join(c if c.isprintable() else " " for c in sentence))

    in_every_process = False
    """Whether all of the processes that run together raise it, so that the first alone needs to print it."""


class BusyError(UserError):
    """Another process is at it; wait for it, or do something else meanwhile."""


def first_line(e: BaseException) -> str:
    """The first line of what an exception says, without its full stop."""
    return (str(e).strip().splitlines() or [""])[0].rstrip(".")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a near miss, else the known names, to be put behind a sentence."""
    known = sorted(set(known))
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(known)}" if known else ""
