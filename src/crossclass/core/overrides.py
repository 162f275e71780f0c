"""Changed copies of settings: values at dotted paths, put in together and validated once."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from crossclass.core.config import Settings, error_sentence, settings_classes, unknown_setting
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.yaml_reader import typed_value

T = TypeVar("T", bound=Settings)
Changes = Mapping[str, Any]
"""Values by dotted path, such as {"recipe.attack.steps": 20}."""


def override(settings: T, changes: Changes) -> T:
    """A copy of settings with other values at dotted paths.

    Setting a `kind` replaces that part by the new member's defaults; whatever else is set below it then
    changes these, so the order does not matter.

    Raises:
        UserError: A path is no setting, or a value is not valid there.

    Example:
        override(Run(), {"recipe.kind": "trades", "recipe.beta": 3, "seed": 1})
    """
    return _set(settings, [(path.split("."), value, path) for path, value in changes.items()])


def changes_of(changes: Changes, part: str) -> dict[str, Any]:
    """The changes of one part: `data.path` and `data` are of `data`."""
    return {path: value for path, value in changes.items() if path.split(".")[0] == part}


def _set(settings: T, changes: list[tuple[list[str], Any, str]]) -> T:
    fields = type(settings).model_fields
    new: dict[str, Any] = {name: getattr(settings, name) for name in fields}
    below: dict[str, list[tuple[list[str], Any, str]]] = {}
    paths: dict[str, str] = {}
    for (head, *rest), value, path in changes:
        if head not in fields:
            raise UserError(unknown_setting(path, head, type(settings)))
        paths[head] = path
        if not rest and isinstance(value, str) and value in settings_classes(fields[head]):
            new[head] = _member(fields[head], value, path)  # attack=autoattack is attack.kind=autoattack
        elif not rest:
            new[head] = typed_value(value, [fields[head]], path)
        elif rest == ["kind"]:
            new[head] = _member(fields[head], value, path)
        else:
            below.setdefault(head, []).append((rest, value, path))
    if any(isinstance(new[head], str) for head in below):  # "python:my_nets:f", which is a whole part
        first = _validated(type(settings), new, paths)
        new |= {head: getattr(first, head) for head in below}
    for head, deeper in below.items():
        if not isinstance(new[head], Settings):
            what = "is not set" if new[head] is None else "has no settings below it"
            raise UserError(f"'{deeper[0][2]}': '{head}' {what}; give '{head}.kind=...' or '{head}=...'")
        new[head] = _set(new[head], deeper)
    return _validated(type(settings), settings.without_alternatives(new, paths), paths)


def _validated(cls: type[T], new: dict[str, Any], paths: dict[str, str]) -> T:
    try:
        return cls.model_validate(new)
    except ValidationError as e:
        head = str((e.errors()[0]["loc"] or ("",))[0])
        raise UserError(error_sentence(e, cls, "", path_given=paths.get(head, ""))) from e


def _member(field: FieldInfo, kind: object, path: str) -> Settings:
    options = settings_classes(field)
    if not isinstance(kind, str) or kind not in options:
        raise UserError(f"unknown kind '{kind}' for '{path}'{did_you_mean(str(kind), options)}")
    member = options[kind]()
    assert isinstance(member, Settings)
    return member
