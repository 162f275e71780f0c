"""Short names of settings: `eps` for `recipe.attack.threat.eps`, and words of other libraries for ours.

A short name is the end of one dotted path, or of several that have the same value now and then get the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from crossclass.core.config import Settings, settings_classes
from crossclass.core.errors import UserError
from crossclass.core.overrides import override

SYNONYMS = {
    "alpha": "step_size",
    "batch_size": "batch",
    "epsilon": "eps",
    "iterations": "steps",
    "learning_rate": "lr",
    "milestones": "lr_milestones",
    "norm": "threat.kind",
    "num_epochs": "epochs",
    "num_steps": "steps",
    "random_seed": "seed",
    "smoothing": "label_smoothing",
    "wd": "weight_decay",
}
"""Words for settings in other libraries and papers."""


def ends_of_paths(cls: type[BaseModel], name: str) -> list[str]:
    """All paths of settings of a class that end in a short name, the shortest first."""
    wanted = _wanted(name)
    found = {path for path in _paths(cls, frozenset()) if path == wanted or path.endswith(f".{wanted}")}
    return sorted(found, key=lambda path: (path.count("."), path))


def spelled_out(settings: Settings, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes with whole paths for short names; whole paths stay as they are.

    Args:
        settings: What will be changed; which paths there are depends on the kinds of its parts.
        changes: Values by dotted path or short name.

    Raises:
        UserError: A short name stands for several settings that have different values, or the same setting
            is given twice.

    Example:
        spelled_out(Run(), {"eps": 4 / 255}) == {"recipe.attack.threat.eps": 4 / 255}
    """
    fields = type(settings).model_fields
    whole = {path: value for path, value in changes.items() if path.split(".")[0] in fields}
    if len(whole) == len(changes):
        return whole
    with suppress(UserError):  # which paths there are depends on them: recipe.kind=trades beta=3
        settings = override(settings, whole)
    own, out = list(_values(settings)), dict[str, Any]()
    for name, value in changes.items():
        for path in [name] if name in whole else _meant(name, fields, own) or [name]:
            if path in out:
                raise UserError(f"'{path}' is given twice, once as '{name}'; leave one out")
            out[path] = value
    return out


def _wanted(name: str) -> str:
    plain = name.replace("-", "_")
    return SYNONYMS.get(plain, plain)


def _meant(name: str, fields: Iterable[str], own: Iterable[tuple[str, Any]]) -> list[str]:
    """The paths that a short name stands for; none if it is the end of no path."""
    wanted = _wanted(name)
    if wanted in fields:
        return [wanted]
    found = {path: value for path, value in own if path == wanted or path.endswith(f".{wanted}")}
    if len(set(map(str, found.values()))) > 1:
        ways = ", ".join(f"{path} ({value})" for path, value in found.items())
        raise UserError(f"'{name}' can be {ways}, which differ; type the one that you mean")
    return list(found)


def _values(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its path, settings that JSON leaves out too."""
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
