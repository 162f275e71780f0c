"""YAML without surprises: numbers are decimal, booleans `true` and `false`, texts and paths as written.

YAML 1.1 reads `yes` as true, `007` as 7, `1:30` as 90 and `2025-01-31` as a date. Here a plain scalar is what
YAML 1.2 makes of it, and where a setting is a text or a path, the text itself.
"""

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from crossclass.core.errors import UserError
from crossclass.core.plugins import Family, family

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MOST_VALUES = 20_000
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True)
class _PlainScalar:
    """A scalar without quotes: its text, which may stand for a number, a boolean or nothing."""

    text: str

    @property
    def value(self) -> Any:
        if self.text.lower() in _WORDS:
            return _WORDS[self.text.lower()]
        if _INTEGER.fullmatch(self.text):
            return int(self.text, 10)
        return float(self.text) if _FLOAT.fullmatch(self.text) else self.text


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own attribute


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> object:
    return _PlainScalar(node.value) if node.style is None else node.value


_Loader.add_constructor("tag:yaml.org,2002:str", _scalar)


def read_yaml(text: str, wanted: Sequence[Any], where: str) -> dict[str, Any]:
    """The mapping of a YAML file as plain data.

    Args:
        text: The file's content; an empty one is an empty mapping.
        wanted: Types that the mapping is for, such as a class of settings; they say where texts stand.
        where: The file's name, for errors.

    Raises:
        UserError: It is not valid YAML, or no mapping.
    """
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        line = getattr(getattr(e, "problem_mark", None), "line", None)
        at = f", line {line + 1}" if line is not None else ""
        raise UserError(
            f"{where}{at}: {getattr(e, 'problem', None) or 'not valid YAML'}; correct the YAML"
        ) from e
    if data == _PlainScalar("") or data is None:
        return {}
    _check_size(data, where)
    if not isinstance(data, dict):
        kind = type(typed_value(data, [], where)).__name__
        raise UserError(f"{where}: expected settings such as 'seed: 0', found a {kind}")
    read: dict[str, Any] = typed_value(data, wanted, where)
    return read


def read_value(text: str, wanted: Sequence[Any], path: str) -> Any:
    """The value that a text stands for in a setting of these types; texts and paths stay as they are.

    Raises UserError if it is empty, cannot be read, is a boolean where none is wanted, or none where one is.
    """
    if not text.strip():
        raise UserError(f"'{path}={text}' has no value; give one, or null for none")
    if _are_texts(wanted):
        return typed_value(_PlainScalar(text), wanted, path)
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        raise UserError(f"'{path}={text}': the value is not valid YAML") from e
    _check_size(data, path)
    return typed_value(data, wanted, path)


def types_at(wanted: Sequence[Any], path: str) -> list[Any]:
    """The types that a setting at a dotted path can have below others; none if there is no such setting."""
    for name in path.split("."):
        wanted = _below(wanted, name)
    return list(wanted)


def _check_size(data: object, where: str) -> None:
    """Raises UserError for more values than settings ever have: references can stand for no end of them."""
    left, count = [data], 0
    while left:
        node, count = left.pop(), count + 1
        if count > _MOST_VALUES:
            raise UserError(
                f"{where} holds over {_MOST_VALUES} values, or refers to itself; correct the YAML"
            )
        left += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []


def typed_value(node: Any, wanted: Sequence[Any], path: str) -> Any:
    """What plain data, or what `_Loader` read, stands for in a setting of these types.

    Raises UserError for a boolean where none is wanted, none where one is, or a number that is not decimal.
    """
    if isinstance(node, dict):
        plain = {k.value if isinstance(k, _PlainScalar) else k: v for k, v in node.items()}
        return {k: typed_value(v, _below(wanted, k), f"{path}.{k}") for k, v in plain.items()}
    if isinstance(node, list):
        inner = [a for t in _options(wanted) if get_origin(t) in (list, tuple) for a in get_args(t)]
        return [typed_value(v, [a for a in inner if a is not ...], path) for v in node]
    kinds = set(_options(wanted)) - {type(None)}
    if isinstance(node, str):
        if kinds & {int, float} and _is_odd_number(node):
            raise UserError(f"{path}={node}: give a number in decimal digits")
        return node
    if not isinstance(node, _PlainScalar):
        return node
    value = node.value
    if value is None and (type(None) in _options(wanted) or not _are_texts(wanted)):
        return None
    if _are_texts(wanted):
        return node.text
    if kinds == {bool} and not isinstance(value, bool):
        raise UserError(f"{path}={node.text}: give true or false")
    if kinds and kinds <= {int, float} and isinstance(value, bool):
        raise UserError(f"{path}={node.text}: give a number")
    return typed_value(value, wanted, path) if isinstance(value, str) else value


def _is_odd_number(text: str) -> bool:
    """Whether Python and pydantic read a number where this project does not, such as 1_0."""
    try:
        float(text)
    except ValueError:
        return False
    return not _FLOAT.fullmatch(text)


def _below(wanted: Sequence[Any], name: object) -> list[Any]:
    """The types of what stands under a name in a mapping of these types."""
    found: list[Any] = []
    for option in _options(wanted):
        if isinstance(option, type) and issubclass(option, BaseModel):
            found += [option.model_fields[name]] if name in option.model_fields else []
        elif get_origin(option) in (dict, Mapping):
            found.append(get_args(option)[1])
    return found


def _are_texts(wanted: Sequence[Any]) -> bool:
    options = [o for o in _options(wanted) if o is not type(None)]
    return bool(options) and all(o in (str, Path) for o in options)


def _options(wanted: Sequence[Any]) -> Iterator[Any]:
    """The members of unions and families, one by one; of a Literal the types of its values."""
    for one in wanted:
        metadata = getattr(one, "metadata", getattr(one, "__metadata__", ()))
        if any(isinstance(m, Family) for m in metadata):
            yield from family(one).plugins.values()
            if isinstance(one, FieldInfo) and type(None) in get_args(one.annotation):
                yield type(None)
        elif isinstance(one, FieldInfo):
            yield from _options([one.annotation])
        elif get_origin(one) is Annotated:
            yield from _options(get_args(one)[:1])
        elif get_origin(one) in (Union, types.UnionType):
            yield from _options(get_args(one))
        elif get_origin(one) is Literal:
            yield from {type(v) for v in get_args(one)}
        else:
            yield one
