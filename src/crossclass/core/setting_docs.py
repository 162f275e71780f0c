"""What the settings of a class are: type, default and docstring of each field, as texts."""

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from crossclass.core.config import Settings, settings_classes
from crossclass.core.plugins import Family

_WORDS = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path"}
_BOUNDS = {Ge: "from", Gt: "above", Le: "to", Lt: "below"}


@dataclass(frozen=True)
class SettingDoc:
    """What one setting is."""

    type_words: str
    """Its type in words, such as `integer from 1`."""
    doc: str
    """Its docstring on one line."""
    kinds: Mapping[str, type[BaseModel]]
    """The settings classes that it takes, by kind; their settings are typed behind a dot."""


def describe(cls: type[BaseModel]) -> dict[str, SettingDoc]:
    """Every setting of a class by its name, in its order."""
    docs = _docstrings(cls)
    return {
        name: SettingDoc(type_words(field), docs.get(name, ""), settings_classes(field))
        for name, field in cls.model_fields.items()
        if name not in ("kind", "added_loss", "module")
    }


def type_words(field: FieldInfo) -> str:
    """The type of a field in words, such as `integer from 1` or `number above 0 or null`."""
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, metadata: Any = ()) -> str:
    """See `type_words`; `metadata` are the field's own bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if any(isinstance(m, Family) for m in metadata):
        return "a kind"
    if origin is Annotated:
        return _words(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, types.UnionType):
        words = [_words(a, metadata) for a in arguments if a is not type(None)]
        return " or ".join([*dict.fromkeys(words), *(["null"] if type(None) in arguments else [])])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (tuple, list):
        return f"list: {_words(arguments[0])}" if arguments else "list"
    if annotation in _WORDS:
        bounds = [
            f"{_BOUNDS[type(m)]} {_number(getattr(m, type(m).__name__.lower()))}"
            for m in _constraints(metadata)
            if type(m) in _BOUNDS
        ]
        return " ".join([_WORDS[annotation], *bounds])
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return "settings"
    return "mapping" if origin in (dict, Mapping) else "value"


def _number(bound: Any) -> str:
    return "2^63" if bound == 2**63 else f"{bound:g}"


def _constraints(metadata: Any) -> Iterator[object]:
    """The bounds among a field's metadata, those inside a nested `Field` too."""
    for m in metadata:
        yield from _constraints(m.metadata) if isinstance(m, FieldInfo) else (m,)


def _docstrings(cls: type[BaseModel]) -> dict[str, str]:
    """The docstring below each field of a class and of its bases, on one line, by name."""
    docs = dict[str, str]()
    for base in reversed(cls.__mro__):
        if not issubclass(base, Settings) or base is Settings:
            continue
        try:
            (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError):  # a class that was typed at a prompt
            continue
        for field, below in pairwise(getattr(parsed, "body", ())):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                    docs[name] = " ".join(str(text).split())
    return docs
