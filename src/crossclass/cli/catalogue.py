"""Everything that has a name and every setting, for `list`, `show`, `--help` and completion.

It is read from `catalogue.json`, which `write_catalogue.py` makes of the code: importing torch takes seconds.
"""

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from crossclass.core.errors import UserError, did_you_mean

PATH = Path(__file__).with_name("catalogue.json")
_COMMENTS_AT = 36
"""Column of the comments behind settings; longer lines push theirs to the right."""


ONLY_IN_PYTHON = ("attack_changes", "changes")
"""Settings that say what is typed otherwise on a command line."""


class Catalogue(NamedTuple):
    """What has a name."""

    names: list[list[str]]
    """Name, family and one line about it."""
    settings: dict[str, list[list[str]]]
    """The values of a run or plug-in, by path, each as YAML on one line."""
    class_of: dict[str, str]
    """The settings class of a name."""
    classes: dict[str, Any]
    """Of every settings class its `doc` and its `fields`: `type`, `default`, `doc`, `kinds`."""
    commands: dict[str, list[str]]
    """The settings classes that a command takes."""
    entries: dict[str, list[str]]
    """What the paper shows, by id."""
    short: dict[str, dict[str, str]]
    """The short names of settings that a command takes, each with a path that it can stand for."""


def catalogue() -> Catalogue:
    """The catalogue; where torch is there already, with what this process has registered."""
    if "torch" not in sys.modules:
        return stored()
    from crossclass.cli.write_catalogue import compute

    return compute()


@cache
def stored() -> Catalogue:
    """The catalogue of this package alone."""
    return Catalogue(**json.loads(PATH.read_text(encoding="utf-8")))


def lines() -> Iterator[str]:
    """One line each: the full name first, what it is, what it does."""
    names = catalogue().names
    width = max(len(name) for name, family, _ in names if family == "run")
    for name, family, text in names:
        yield f"{name:{width}} {family:8} {text}"


def commented(values: Iterable[list[str]], cls: str) -> Iterator[str]:
    """YAML of values by path, one to a line, with the docstring of each setting as a comment.

    `cls` is the class of the settings, as in `Catalogue.class_of`.
    """
    values, classes = list(values), catalogue().classes
    kinds = {path: text for path, text in values if path.rpartition(".")[2] == "kind"}
    above: list[str] = []
    for path, text in values:
        *parents, name = path.split(".")
        shared = 0
        while shared < min(len(above), len(parents)) and above[shared] == parents[shared]:
            shared += 1
        for depth in range(shared, len(parents)):
            yield _line(depth, f"{parents[depth]}:", _doc(classes, cls, parents[: depth + 1], kinds))
        above = parents
        yield _line(len(parents), f"{name}: {text}", _doc(classes, cls, [*parents, name], kinds))


def _line(depth: int, text: str, comment: str) -> str:
    line = "  " * depth + text
    return f"{line:{_COMMENTS_AT}}  # {comment}" if comment else line


def _doc(classes: dict[str, Any], cls: str, path: list[str], kinds: dict[str, str]) -> str:
    """The first sentence about the setting at a path, empty for what is no setting (an argument, say)."""
    for depth, name in enumerate(path):
        if name == "kind":
            return first_sentence(classes[cls]["doc"])
        field = classes[cls]["fields"].get(name)
        if field is None:
            return ""
        if depth == len(path) - 1:
            return first_sentence(field["doc"])
        inner = field["kinds"]
        cls = inner.get(kinds.get(".".join([*path[: depth + 1], "kind"]), ""), next(iter(inner.values()), ""))
        if not cls:
            return ""
    return ""


def first_sentence(text: str) -> str:
    """The first sentence of a docstring without its full stop."""
    return re.split(r"(?<=[a-z0-9)`])\. (?=[A-Z`])", text)[0].rstrip(".")


def settings_help(command: str) -> str:
    """The settings of a command with default, meaning and type, for the width of the terminal.

    Empty for a command without settings.
    """
    found = catalogue()
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    rows = [row for cls in found.commands.get(command, ()) for row in _rows(found.classes, cls, "")]
    if not rows:
        return ""
    rows.sort(key=lambda row: row[0].startswith("runtime"))  # last
    note = "The settings of a kind, such as pgd, are typed behind a dot: crossclass show pgd lists them."
    lines = [line for row in rows for line in _wrapped(*row, width)]
    return "\n".join(["\b", "Settings (path=value):", *lines, "", "\b", *textwrap.wrap(note, width - 2)])


def _rows(classes: dict[str, Any], cls: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Each setting of a class as it is typed, and what it means; those of settings without kinds follow."""
    for name, field in classes[cls]["fields"].items():
        if name in ONLY_IN_PYTHON:
            continue
        kinds = field["kinds"]
        has_one_class = field["type"].startswith("settings") and len(kinds) == 1
        types = f"kinds: {', '.join(kinds)}" if len(kinds) > 1 else field["type"]
        yield f"{prefix}{name}={field['default']}", f"{first_sentence(field['doc'])} ({types})"
        if has_one_class:
            yield from _rows(classes, next(iter(kinds.values())), f"{prefix}{name}.")


def _wrapped(left: str, right: str, width: int) -> list[str]:
    lines = textwrap.wrap(right, width - 30, break_on_hyphens=False)  # the help indents by two
    if len(left) > 24:
        return [f"  {left}", *(f"{'':28}{line}" for line in lines)]
    return [f"  {left:26}{lines[0]}", *(f"{'':28}{line}" for line in lines[1:])]


def require_run(name: str) -> None:
    """Raises UserError with the nearest name if a run is asked for that there is not.

    Before torch is imported; a run file is not looked at.
    """
    if "torch" not in sys.modules and not name.endswith((".yaml", ".yml")):
        runs = [known for known, family, _ in catalogue().names if family == "run"]
        if name not in runs:
            raise UserError(f"unknown run '{name}'{did_you_mean(name, runs)}")
