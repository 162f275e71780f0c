"""Arguments of the form `path.to.setting=value`: which are settings, which are paths, what values they say.

What their texts stand for is said by the type of the setting (`core.yaml_reader`).
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from crossclass.core.config import Settings
from crossclass.core.errors import UserError
from crossclass.core.made_by import mark
from crossclass.core.overrides import override
from crossclass.core.short_names import meant_by, paths_of
from crossclass.core.yaml_reader import is_path, read_value, types_at

T = TypeVar("T", bound=Settings)
NONE = Settings()
"""No settings."""
_SETTING = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


@dataclass(frozen=True)
class Arguments:
    """What stands on a command line behind the command."""

    targets: list[str]
    """Names and paths."""
    own: Any
    """The command's own settings as attributes, such as `own.out`."""
    assignments: list[tuple[str, str]]
    """The other settings as `(path, text)`, in their order."""
    known: tuple[type[Settings], ...]
    """The classes whose settings these are."""

    @property
    def changes(self) -> dict[str, Any]:
        """The other settings with values for texts. Raises UserError."""
        return parse_values(self.assignments, *self.known)


def made_by(
    out: Path,
    command: str,
    targets: Iterable[str],
    settings: Iterable[tuple[str, str]],
    contents: Iterable[str] = (),
) -> str:
    """What `out` says about the command line that makes it (`core.made_by`).

    The order of settings does not matter, and those that change no number (`out`, `runtime`) are not passed.
    The same words in another folder are another command line, unless `out` has moved with it. `contents`
    are checksums of what the targets hold, where other files under the same names are another thing.
    """
    here = os.path.relpath(Path.cwd(), out.absolute().parent)
    ordered = sorted(settings)
    names = [Path(target).name if is_on_disk(target) else target for target in targets]
    names += [f"{path}={Path(text).name if is_on_disk(text) else text}" for path, text in ordered]
    identity = [here, command, *targets, *(f"{path}={text}" for path, text in ordered), *contents]
    return mark(identity, " ".join([command, *names]))


def read_arguments(arguments: Iterable[str], *known: type[Settings], own: Settings = NONE) -> Arguments:
    """Names, a command's own settings, and those of the classes that it is about.

    Args:
        arguments: What was typed behind the command and its first name.
        known: Classes whose settings may be changed, such as `Run`.
        own: The command's own settings with their defaults.

    Raises:
        UserError: A setting is unknown, or the value of an own setting is not valid.

    Example:
        read_arguments(["a.pt", "out=x.json", "n=500"], Measure, own=own_settings.Measure())
    """
    return _arguments(*split_arguments(arguments, type(own), *known), own, known)


def _arguments(
    targets: list[str],
    assignments: list[tuple[str, str]],
    own: Settings,
    known: tuple[type[Settings], ...],
) -> Arguments:
    cls = type(own)
    mine = [(path, text) for path, text in assignments if path.split(".")[0] in cls.model_fields]
    rest = [one for one in assignments if one not in mine]
    values = parse_values(mine, cls)
    for path, text in mine:  # who wants no file leaves `out` out: one may be named null
        if values[path] is None and is_path(types_at([cls], path)):
            values[path] = Path(text)
    return Arguments(targets, override(own, values), rest, known)


def read_settings(arguments: Iterable[str], *known: type[Settings], own: Settings = NONE) -> Arguments:
    """`read_arguments` where nothing but settings may stand; raises UserError for anything else."""
    targets, assignments = split_arguments(arguments, type(own), *known, files=False)
    if targets:
        raise UserError(f"'{targets[0]}' is not of the form path.to.setting=value")
    return _arguments(targets, assignments, own, known)


def split_arguments(
    arguments: Iterable[str], *known: type[Settings], files: bool = True
) -> tuple[list[str], list[tuple[str, str]]]:
    """Paths and names on one side, `(setting, text)` on the other.

    An argument is a setting if what stands before its first `=` begins with a setting of the known classes;
    else a path if there is such a file or folder, or if it is not of the form of a setting. Where no
    `files` are expected, nothing is looked for on the disk.

    Raises:
        UserError: It looks like a setting, but no class knows it; or it is one that is given twice, or as
            well the path of a file.
    """
    names = {name for cls in known for name in cls.model_fields}
    targets, assignments = list[str](), dict[str, str]()
    for argument in arguments:
        path, sign, text = argument.partition("=")
        path = _spelled(path.strip(), known)
        on_disk = files and is_on_disk(argument)
        is_known = bool(sign) and (path.split(".")[0] in names or bool(paths_of(path, known)))
        if is_known and not (on_disk and _is_no_value(argument, path, text, known)):
            if path in assignments:
                raise UserError(
                    f"'{path}' is given twice, as '{path}={assignments[path]}' and '{path}={text}'; "
                    "give it once"
                )
            assignments[path] = text
        elif not sign or not _SETTING.fullmatch(path) or on_disk:
            targets.append(argument)
        else:
            raise UserError(f"unknown setting '{path}'{meant_by(path, known)}")
    return targets, list(assignments.items())


def _spelled(path: str, known: Sequence[type[Settings]]) -> str:
    """The whole path of a short name that can stand for one only; others depend on what is changed."""
    paths = paths_of(path, known)
    return paths[0] if len(paths) == 1 else path


def _is_no_value(argument: str, path: str, text: str, known: Sequence[type[Settings]]) -> bool:
    """Whether the text of what is on the disk is no value of the setting; raises UserError if it is one."""
    try:
        read_value(text, _types(path, known), path)
    except UserError:
        return True
    raise UserError(
        f"'{argument}' is a setting, and a file of this name exists too; give './{argument}' for the file, "
        f"or '{path} ={text}' for the setting"
    )


def is_on_disk(argument: str) -> bool:
    """Whether an argument is the path of a file or folder, or of one with a checkpoint behind an `@`."""
    return os.path.exists(argument) or os.path.exists(argument.rpartition("@")[0])  # RUN@last


def parse_values(assignments: Iterable[tuple[str, str]], *known: type[Settings]) -> dict[str, Any]:
    """The values of texts by setting; `null` is no path, unless a file or folder is called so."""
    values = dict[str, Any]()
    for path, text in assignments:
        types = _types(path, known)
        values[path] = read_value(text, types, path)
        if values[path] is None and is_path(types) and os.path.exists(text):
            values[path] = Path(text)
    return values


def _types(path: str, known: Sequence[type[Settings]]) -> list[Any]:
    """The types of a setting, or of all that a short name can stand for."""
    return [t for whole in paths_of(path, known) or [path] for t in types_at(known, whole)]


def assign(settings: T, texts: Iterable[str]) -> T:
    """A copy of settings with `path=value` texts applied. Raises UserError."""
    return override(settings, read_settings(texts, type(settings)).changes)


def split_values(text: str) -> list[str]:
    """The values of a grid: `2/255,4/255` is two, `[30,45],[15]` is two, `{a: 1, b: 2}` is one.

    Raises UserError if one of them is empty.
    """
    values, depth, start, quote = [], 0, 0, ""
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "[{(":
            depth += 1
        elif c in "]})":
            depth -= 1
        elif c == "," and depth == 0:
            values.append(text[start:i])
            start = i + 1
    values.append(text[start:])
    if not all(v.strip() for v in values):
        raise UserError(f"'{text}' has an empty value between its commas")
    return [v.strip() for v in values]
