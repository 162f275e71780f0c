"""Text becomes values by the type of the setting that it is for, on the command line and in YAML files.

Texts and paths are what is written; integers are decimal digits; `yes`, `on` and `1` are true for a boolean
only; a fraction such as 8/255 is a float. Where no type is known a plain scalar is what YAML 1.2 makes of
it: YAML 1.1 reads `yes` as true, `007` as 7, `1:30` as 90 and `2025-01-31` as a date.
"""

import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from crossclass.core.errors import UserError
from crossclass.core.plugins import Family, family

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_FRACTION = re.compile(r"([-+]?[0-9]{1,18}) */ *([0-9]{1,18})")
_LONGEST_INTEGER = 1000  # digits; Python itself refuses more than 4300
_MOST_VALUES = 20_000
_NOTHING = ("", "~", "null", "Null", "NULL")
_WORDS: dict[str, object] = {
    **dict.fromkeys(_NOTHING),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
"""What a boolean can be written as, in small or capital letters."""


@dataclass(frozen=True)
class _PlainScalar:
    """A scalar without quotes: its text, which may stand for a number, a boolean or nothing."""

    text: str


def plain_value(text: str) -> Any:
    """What YAML 1.2 makes of a scalar without quotes: nothing, a boolean, a decimal number, or the text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= _LONGEST_INTEGER:
        return int(text, 10)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Loader(yaml.SafeLoader):
    """Makes texts, lists and mappings only; what a plain scalar stands for is said by `typed_value`."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own attribute
    yaml_constructors: ClassVar[dict[Any, Any]] = {  # without `!!int`, which reads 010 as 8, and the like
        f"tag:yaml.org,2002:{kind}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]
        for kind in ("str", "seq", "map")
    } | {None: yaml.SafeLoader.yaml_constructors[None]}
    DEFAULT_SCALAR_TAG = "scalar"  # type: ignore[misc] # told from an explicit `!!str 010`, which is a text

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The mapping with its keys as they are written; a key that stands twice is an error."""
        read: dict[Any, Any] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a name is no text", key_node.start_mark)
            if key_node.value in read:
                again = f"'{key_node.value}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, again, key_node.start_mark)
            read[key_node.value] = self.construct_object(value, deep=deep)
        return read


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> object:
    return _PlainScalar(node.value) if node.style is None else node.value


_Loader.add_constructor("scalar", _scalar)


def read_yaml(text: str, wanted: Sequence[Any], where: str) -> dict[str, Any]:
    """The mapping of a YAML file as plain data.

    Args:
        text: The file's content; an empty one is an empty mapping.
        wanted: Types that the mapping is for, such as a class of settings; they say where texts stand.
        where: The file's name, for errors.

    Raises:
        UserError: It is not valid YAML, or no mapping.
    """
    read: dict[str, Any] = typed_value(read_mapping(text, where), wanted, f"{where}: ")
    return read


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """The mapping of a YAML file, as `typed_value` and `typed_text` take it; raises UserError."""
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
    return data


def typed_text(node: Any) -> str:
    """What a person would type on a command line for a value that `read_mapping` read."""
    if isinstance(node, _PlainScalar):
        return node.text
    if isinstance(node, str):
        return node
    return yaml.dump(node, Dumper=_AsWritten, default_flow_style=True, width=10**9).strip()


class _AsWritten(yaml.SafeDumper):
    """Writes scalars without quotes where they were read so, and with quotes where they had some."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own attribute

    def ignore_aliases(self, data: Any) -> bool:
        """Write each value out, so that it can stand alone."""
        return True


_TEXT = "tag:yaml.org,2002:str"
_AsWritten.add_representer(_PlainScalar, lambda dumper, node: dumper.represent_scalar(_TEXT, node.text))
_AsWritten.add_representer(str, lambda dumper, text: dumper.represent_scalar(_TEXT, text, style='"'))


def read_value(text: str, wanted: Sequence[Any], path: str) -> Any:
    """The value that a text stands for in a setting of these types; texts and paths stay as they are.

    Raises UserError if it is empty, cannot be read, is a boolean where none is wanted, or none where one is.
    """
    if not text.strip():
        raise UserError(f"'{path}={text}' has no value; give one, or null for none")
    kinds = set(_options(wanted)) - {type(None)}
    if _are_texts(wanted) and text in ("", "~"):  # nothing in a file, a home folder on a command line
        return _text(text, kinds)
    if kinds and all(kind in _SCALARS for kind in kinds):  # `seed=8 #2` is no 8 with a comment
        return typed_value(_PlainScalar(text if _are_texts(wanted) else text.strip()), wanted, path)
    is_list = bool(kinds) and all(get_origin(kind) in (list, tuple) for kind in kinds)
    if is_list and text.strip() not in _WORDS and text.strip()[0] not in "[{&*!|>":
        text = f"[{text}]"  # 30,45
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        why = getattr(e, "problem", None) or "cannot be read"
        raise UserError(f"'{path}={_short(text)}': the value is not valid YAML ({why})") from e
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
        start = path if path.endswith(": ") else f"{path}."
        return {k: typed_value(v, _below(wanted, k), f"{start}{k}") for k, v in node.items()}
    if isinstance(node, list):
        inner = [a for t in _options(wanted) if get_origin(t) in (list, tuple) for a in get_args(t)]
        return [typed_value(v, [a for a in inner if a is not ...], path) for v in node]
    options = set(_options(wanted))
    kinds = options - {type(None)}
    if isinstance(node, str):
        if kinds & {int, float} and _is_odd_number(node):
            raise UserError(f"{path}={_short(node)}: give a number in decimal digits")
        return node
    if is_boolean_for_number(node, wanted):
        raise UserError(f"{path}={node}: give a number, not a boolean")
    if not isinstance(node, _PlainScalar):
        return node
    if _FRACTION.fullmatch(node.text) and any(map(_has_own_reader, wanted)):
        return node.text
    return _scalar_value(node.text, options, path)


def _has_own_reader(one: Any) -> bool:
    """Whether a type or a field reads fractions in its own way: 2/255 is a radius, and no share of one."""
    metadata = getattr(one, "metadata", getattr(one, "__metadata__", ()))
    inner = [one.annotation] if isinstance(one, FieldInfo) else get_args(one)
    other = any(isinstance(m, BeforeValidator) and m.func is not parse_fraction for m in metadata)
    return other or any(map(_has_own_reader, inner))


_SCALARS = (int, float, bool, str, Path)


def _scalar_value(text: str, options: Set[Any], path: str) -> Any:
    """What a scalar without quotes stands for in a setting of these types; raises UserError."""
    kinds = options - {type(None)}
    known = bool(kinds) and all(k in _SCALARS or _holds_more(k) for k in kinds)
    if text in _NOTHING and (type(None) in options or not known):
        return None
    if kinds and kinds <= {str, Path}:
        return _text(text, kinds)
    if text.lower() == "none" and type(None) in options and str not in kinds:
        return None
    if kinds == {bool}:
        if text.lower() not in _BOOLEANS:
            raise UserError(f"{path}={_short(text)}: give true or false")
        return _BOOLEANS[text.lower()]
    if kinds and kinds <= {int, float}:
        return _number(text, kinds, path)
    value = plain_value(text)
    if known and value is None:
        raise UserError(f"{path}={_short(text)}: give a value; this setting cannot be left out")
    return text if isinstance(value, bool) and str in kinds else value


def parse_fraction(value: object) -> object:
    """The number of a text such as `"8/255"`; any other value is returned as it is, for pydantic to check.

    Raises ValueError for a text with a slash that is not a fraction.
    """
    if isinstance(value, str) and "/" in value:
        parts = re.fullmatch(r"([-+]?[0-9]+) */ *([0-9]+)", value.strip())
        if parts is None or int(parts[2]) == 0:
            raise ValueError(f"'{value}' is not a fraction such as 8/255")
        return int(parts[1]) / int(parts[2])
    return value


def is_boolean_for_number(value: object, wanted: Sequence[Any]) -> bool:
    """Whether a boolean, or a list with one, is given where numbers are wanted; Python takes it for 1."""
    if not isinstance(value, bool | list | tuple):
        return False
    if isinstance(value, list | tuple):
        inner = [a for t in _options(wanted) if get_origin(t) in (list, tuple) for a in get_args(t)]
        return any(is_boolean_for_number(v, [a for a in inner if a is not ...]) for v in value)
    kinds = set(_options(wanted)) - {type(None)}
    return bool(kinds & {int, float}) and bool not in kinds


def is_path(wanted: Sequence[Any]) -> bool:
    """Whether a setting of these types is the path of a file or folder, perhaps one that can be left out."""
    return set(_options(wanted)) - {type(None)} == {Path}


def _number(text: str, kinds: Set[Any], path: str) -> Any:
    """The number that a text stands for; raises UserError."""
    value: object = plain_value(text)
    if float in kinds and (parts := _FRACTION.fullmatch(text)) and int(parts[2]):
        value = int(parts[1]) / int(parts[2])
    if isinstance(value, float) and float not in kinds:  # 1e3 is a whole number, and below 2**53 exactly so
        value = int(value) if value.is_integer() and abs(value) < 2**53 else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value in (inf, -inf):
        what = (
            "number in decimal digits, or a fraction such as 8/255"
            if float in kinds
            else "whole number in decimal digits"
        )
        raise UserError(f"{path}={_short(text)}: give a {what}")
    return value


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _text(text: str, kinds: Set[Any]) -> Any:
    """A text as it is; of a path a leading `~` is a home folder, as in a shell."""
    if Path not in kinds:
        return text
    expanded = os.path.expanduser(text)
    # a name that begins with ~ and is no home: pathlib drops the ./, and another expansion would go wrong
    return Path(os.path.abspath(expanded)) if expanded.startswith(("~", "./~")) else Path(expanded)


def _holds_more(kind: Any) -> bool:
    """Whether values of this kind are lists, mappings or settings of their own."""
    is_settings = isinstance(kind, type) and issubclass(kind, BaseModel)
    return is_settings or get_origin(kind) in (list, tuple, dict, Mapping)


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
