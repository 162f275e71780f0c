"""Names of files and numbers as text: each is taken as it is written, or refused."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from crossclass.cli.arguments import assign
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.data import Npz
from crossclass.models import Python
from crossclass.training.run import Run

from .door import Door

NAMES = (
    "set #2|on|off|no|007|08|1e3|12:30:45|null|None|@d|%d|[a|{x|- x|&a|*a|!t|a=b|a: b|2026-01-01|'q'|\"|a,b|"
    "x@last"
)
PIECES = [*" #=:,@~-'\"[]{}&*!%|>?\\\t\n0189eE+_./xaé\udcff"]


def names(luck: Random) -> Iterator[str]:
    """Names as people and their tools give them, then drawn ones."""
    yield from NAMES.split("|")
    while True:
        yield "".join(luck.choice(PIECES) for _ in range(luck.choice((1, 2, 3, 5, 8, 300))))


def name_of_a_file(place: Path, name: str) -> str:
    """A path and a text on the command line, and a text through the YAML of its run."""
    if not name.startswith(("~", "./~")) and name not in ("null", "Null", "NULL"):
        path = assign(Run(data=Npz()), [f"data.path={name}"]).data.path  # type: ignore[union-attr]
        if path != Path(name):
            raise AssertionError(f"{name!r} was read as {path}")
    run = Run(model=Python(arguments={"x": name, name: "y"}))
    if name.isprintable() and load_yaml(Run, run.yaml(), "f") != run:
        raise AssertionError(f"{name!r} does not survive its YAML")
    return name


def numbers(luck: Random) -> Iterator[str]:
    """Whole numbers with zeros, signs, exponents and what other readers take for numbers."""
    yield from [
        "008",
        "010",
        "0100",
        "+8",
        "-0",
        "1e3",
        "1_000",
        "0x10",
        "0o10",
        "1:30",
        ".5",
        "5.",
        "inf",
        "nan",
        "yes",
        "on",
        "true",
        "null",
        "~",
        "8/255",
    ]
    yield str(2**63)
    while True:
        yield "".join(luck.choice("00123456789+-_.eE:/x ") for _ in range(luck.choice((1, 2, 3, 4, 8, 40))))


def number(place: Path, text: str) -> int:
    """A seed, from the command line and from a file: both the same, and what decimal digits say."""
    found: list[int | None] = []
    for read in (lambda: assign(Run(), [f"seed={text}"]), lambda: load_yaml(Run, f"seed: {text}\n", "f")):
        try:
            found.append(read().seed)
        except UserError:
            found.append(None)
    typed = found[0]
    plain = text.strip().removeprefix("+")
    if plain.isascii() and plain.isdecimal() and int(plain) < 2**63 and typed != int(plain):
        raise AssertionError(f"seed={text!r} was read as {typed}")
    if typed is None:
        raise UserError("refused")
    if found[1] not in (typed, None):
        raise AssertionError(f"seed={text!r} is {typed} on a command line and {found[1]} in a file")
    if not (float(text) == typed):
        raise AssertionError(f"seed={text!r} was read as {typed}")
    return typed


DOORS = {"names of files": Door(names, name_of_a_file), "numbers as text": Door(numbers, number)}
