"""Short names of settings, such as `eps` for `recipe.attack.threat.eps`, and words of other libraries.

A short name is the end of one dotted path, or of several that have the same value now and then get the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from crossclass.core.config import Settings, settings_classes
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.overrides import override

SHORT = {
    "eps": "threat.eps",
    "norm": "threat.kind",
    "steps": "attack.steps",
    "device": "runtime.device",
    "threads": "runtime.threads",
    "width": "model.width",
}
"""What may be typed, and the end of the paths that it stands for."""


SYNONYMS = {
    "alpha": "attack.step_size",
    "batch_size": "batch",
    "drops": "lr_milestones",
    "epoch": "epochs",
    "epsilon": "eps",
    "iterations": "steps",
    "learning_rate": "lr",
    "milestones": "lr_milestones",
    "n_steps": "steps",
    "num_epochs": "epochs",
    "num_steps": "steps",
    "smoothing": "label_smoothing",
    "step_size": "attack.step_size",
    "wd": "weight_decay",
}
"""Words of other libraries and papers, and the end of the setting that is meant."""


def meant_by(word: str, classes: Sequence[type[BaseModel]]) -> str:
    """`; did you mean 'lr'?` for a word that is no setting of these classes.

    It is the setting that others call so, else the one path that ends in the word, or the two or three that
    end in a path such as `attack.steps`, else the nearest name.
    """
    plain = word.replace("-", "_").lower()
    paths = dict.fromkeys(path for cls in classes for path in _paths(cls, frozenset()))
    end = SYNONYMS.get(plain, plain)
    if end in SHORT and paths_of(end, classes):
        return f"; did you mean '{end}'?"
    found = [path for path in paths if _ends(path, end)]
    shortest = [path for path in found if path.count(".") == min(p.count(".") for p in found)]
    if len(shortest) == 1 or (plain in SYNONYMS and shortest):
        return f"; did you mean '{shortest[0]}'?"
    if "." in plain and 1 < len(shortest) <= 3:
        return f"; did you mean {' or '.join(repr(path) for path in shortest)}?"
    short = {name for name in SHORT if paths_of(name, classes)}
    return did_you_mean(word, {path.split(".")[0] for path in paths} | short)


def paths_of(short: str, classes: Sequence[type[BaseModel]]) -> list[str]:
    """The paths of settings of these classes that a short name can stand for; none if it is no short name."""
    if short not in SHORT:
        return []
    paths = (path for cls in classes for path in _paths(cls, frozenset()))
    return list(dict.fromkeys(path for path in paths if _ends(path, SHORT[short])))


def spelled_out(settings: Settings, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes with whole paths for short names; other paths stay as they are.

    Args:
        settings: What will be changed; which paths there are depends on the kinds of its parts.
        changes: Values by dotted path or short name.

    Raises:
        UserError: A short name stands for several settings that have different values, or for none, or
            for one that is given too.

    Example:
        spelled_out(Run(), {"eps": 4 / 255}) == {"recipe.attack.threat.eps": 4 / 255}
    """
    out = {path: value for path, value in changes.items() if path not in SHORT}
    if len(out) == len(changes):
        return out
    with suppress(UserError):  # which paths there are depends on them, as on recipe.kind=kd
        settings = override(settings, out)
    own = dict(_values(settings))
    for short in changes.keys() & SHORT.keys():
        found = {path: value for path, value in own.items() if _ends(path, SHORT[short])}
        if not found:
            raise UserError(f"'{short}' is no setting here: there is no {SHORT[short]}")
        if len(set(map(str, found.values()))) > 1:
            ways = ", ".join(f"{path} ({value})" for path, value in found.items())
            raise UserError(f"'{short}' can mean {ways}; type the one that you mean")
        if both := found.keys() & out.keys():
            raise UserError(f"'{min(both)}' is given twice, once as '{short}'; leave one out")
        out |= dict.fromkeys(found, changes[short])
    return out


def _ends(path: str, end: str) -> bool:
    return path == end or path.endswith(f".{end}")


def _values(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its path."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _values(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _paths(cls: type[BaseModel], above: frozenset[type[BaseModel]], prefix: str = "") -> Iterator[str]:
    """Every path of a class; a recipe inside of itself is entered once."""
    for name, field in cls.model_fields.items():
        yield prefix + name
        for inner in settings_classes(field).values():
            if inner not in above:
                yield from _paths(inner, above | {cls}, f"{prefix}{name}.")
