"""Settings are frozen pydantic models, which can be printed, compared, hashed and written as YAML.

`Settings` adds to pydantic a validated changed copy, a short digest of what differs from the defaults, and
errors in one sentence.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.plugins import Family, family
from crossclass.core.short_help import ShortHelp
from crossclass.core.yaml_reader import is_boolean_for_number, parse_fraction, plain_value, read_yaml

T = TypeVar("T", bound="Settings")


class PlainRepr(str):
    """A text whose `repr` is itself: `8/255` is a number of Python as it stands."""

    def __repr__(self) -> str:
        return str(self)


def as_fraction(value: float) -> str | float:
    """The text `n/255` of a multiple of 1/255 up to 100, exactly the same number; else the number itself."""
    n = round(value * 255)
    return f"{n}/255" if 0 < n <= 25500 and n / 255 == value else value


Eps = Annotated[
    float,
    BeforeValidator(parse_fraction),
    PlainSerializer(as_fraction, when_used="json"),
]
"""A radius in units of the image range [0, 1]; it may be given as the text `8/255`, and YAML holds it so."""


class Settings(BaseModel, metaclass=ShortHelp):
    """Base of all settings: frozen, validated when made; an unknown name is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Names of settings of which one is given: a change of one unsets the others."""
    replaced: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Names that people try and that are no settings, with what to give instead."""
    always_shown: ClassVar[tuple[str, ...]] = ("attack", "threat", "eps", "steps")
    """Settings that `repr` shows at their defaults too: whoever reads it asks for them first."""

    if not TYPE_CHECKING:  # type checkers read the fields

        def __init__(self, *values: Any, **fields: Any) -> None:
            """Raises UserError, one sentence about the first wrong setting."""
            cls = type(self)
            if values:
                name = next(n for n in (*cls.model_fields, "setting") if n != "kind")
                raise UserError(f"{cls.__name__}: settings are given by their names, such as {name}=...")
            try:
                super().__init__(**fields)
            except ValidationError as e:
                raise UserError(error_sentence(e, cls, cls.__name__)) from None

        # pydantic then validates settings inside of others without calling it, so that paths begin outermost
        __init__.__pydantic_base_init__ = True

        def __setattr__(self, name: str, value: Any) -> None:
            """Raises UserError: settings do not change."""
            try:
                super().__setattr__(name, value)
            except ValidationError:
                change = f"{name}={value!r}"
                raise UserError(
                    f"{type(self).__name__}: {change} changes settings, which are frozen; make changed ones "
                    f"with .replace({change})"
                ) from None

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, data: Any) -> Any:
        for name in cls.model_fields.keys() & data.keys() if isinstance(data, Mapping) else ():
            if is_boolean_for_number(data[name], [cls.model_fields[name]]):
                raise ValueError(f"{name}={data[name]}: give a number, not a boolean")
        return data

    @model_serializer(mode="wrap")
    def _keep_kind(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # exclude_defaults would drop `kind`, and two plug-ins at their defaults would digest alike
        out = handler(self)
        return {"kind": self.kind, **out} if hasattr(self, "kind") else out

    def __repr_args__(self) -> "Iterable[tuple[str, Any]]":
        """What differs from the defaults, so that `repr` is short and makes the same settings again."""
        for name, field in type(self).model_fields.items():
            value, left_out = getattr(self, name), name == "kind" or not field.repr
            usual = not field.is_required() and value == field.get_default(call_default_factory=True)
            if not left_out and (name in self.always_shown or not usual):
                radius = any(getattr(m, "func", None) is as_fraction for m in field.metadata)
                yield name, PlainRepr(as_fraction(value)) if radius else value

    def replace(self: T, **changes: Any) -> T:
        """A copy with changed fields, validated again (pydantic's own `model_copy` does not validate).

        Raises UserError if the changes are not valid.
        """
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return validated(type(self), self.without_alternatives({**kept, **changes}, changes))

    @classmethod
    def without_alternatives(cls, fields: Mapping[str, Any], changed: Iterable[str]) -> dict[str, Any]:
        """Fields by name without those that a change of their alternative unsets (see `alternatives`)."""
        given = {name for name in changed if fields[name] is not None}
        unset = set[str]().union(*(group for group in cls.alternatives if not given.isdisjoint(group)))
        unset -= set(changed)
        return {name: value for name, value in fields.items() if name not in unset}

    def to_dict(self, *, defaults: bool = True) -> dict[str, Any]:
        """The settings as JSON types; without defaults only what differs from them, and every `kind`."""
        out: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=not defaults)
        return out

    def digest(self) -> str:
        """12 hex digits that hash what differs from the defaults, so a new setting changes no digest."""
        text = json.dumps(self.to_dict(defaults=False), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @staticmethod
    def yaml_of(value: object) -> str:
        """One value as YAML on one line, as it is typed."""
        text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10**6)
        return text.removesuffix("\n").removesuffix("\n...")

    def yaml(self) -> str:
        """The complete settings as YAML, defaults included."""
        text: str = yaml.dump(
            self.to_dict(), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100
        )
        return text


class _Dumper(yaml.SafeDumper):
    """Writes YAML; quotes each text that would be read as something else, such as 08, -.5 and 1e-3."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(plain_value(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def validated(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Make `cls` from plain data; raises UserError that names the path of the first wrong setting.

    `where` is the file of the data, for the error.
    """
    try:
        return cls.model_validate(dict(data))
    except ValidationError as e:
        raise UserError(error_sentence(e, cls, where)) from e


def load_yaml(cls: type[T], text: str, where: str) -> T:
    """Make `cls` from YAML text; raises UserError, which names the file `where`, if it is not valid."""
    return validated(cls, read_yaml(text, [cls], where), where)


def replace_everywhere(settings: T, **values: Any) -> T:
    """A copy in which all fields of these names have these values, in nested settings too."""
    own = {name: getattr(settings, name) for name in type(settings).model_fields}
    inner = {name: replace_everywhere(v, **values) for name, v in own.items() if isinstance(v, Settings)}
    return settings.replace(**inner, **{name: v for name, v in values.items() if name in own})


def contradictions(text: str, settings: Settings, where: str) -> list[str]:
    """Paths at which stored YAML has another value than `settings`.

    A setting that is not in the text, because it was added later, does not count. Raises UserError if the
    text is damaged; `where` is its file.
    """
    stored = read_flat(text, where)
    now = flat(settings.to_dict())
    return [path for path, value in stored.items() if path not in now or now[path] != value]


def read_flat(text: str, where: str) -> dict[str, Any]:
    """Settings stored as YAML, as `{path: value}`; raises UserError if the text is damaged."""
    try:
        return flat(read_yaml(text, [], where))
    except UserError as e:
        raise UserError(f"{where} is damaged ({e}); restore it, or choose another out=DIR") from e


def error_sentence(error: ValidationError, cls: type[BaseModel], where: str, path_given: str = "") -> str:
    """Pydantic's first error as one sentence, with the path of the setting as the user types it.

    `where` is the file that holds the setting; `path_given` is a longer path that the user typed, if known.
    """
    first = error.errors(include_url=False)[0]
    names: list[str] = []
    owner: type[BaseModel] | None = cls  # whose field the last name is, or should be
    model: type[BaseModel] | None = cls
    options: dict[str, type[BaseModel]] = {}
    for part in map(str, first["loc"]):
        if part in options:  # the tag of a union, which nobody types
            model, options = options[part], {}
            continue
        names.append(part)
        owner = model
        field = model.model_fields.get(part) if model else None
        options = settings_classes(field) if field else {}
        model = next(iter(options.values())) if len(options) == 1 else None
    path = ".".join(names)
    if path_given.count(".") > path.count("."):
        path = path_given
    prefix = f"{where}: " if where else ""
    given = first.get("input")
    if first["type"] == "extra_forbidden":
        return f"{prefix}{unknown_setting(path, names[-1], owner)}"
    if first["type"] == "union_tag_invalid":
        expected = str(first.get("ctx", {}).get("expected_tags", "")).replace("'", "").split(", ")
        tag = str(first.get("ctx", {}).get("tag", ""))
        return f"{prefix}unknown kind '{tag}' for '{path or path_given}'{did_you_mean(tag, expected)}"
    if first["type"] in ("model_attributes_type", "model_type") and owner is not None:
        return f"{prefix}'{path}' holds settings, not {given!r}; give them, such as '{path}.kind=...'"
    if first["type"] == "union_tag_not_found":
        return f"{prefix}'{path}' needs a kind, such as '{path}.kind=...'"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[0].lower() + message[1:]
    shown = "" if isinstance(given, dict | BaseModel) or first["type"] == "missing" else f"={given}"
    return f"{prefix}{path or path_given}{shown}: {message}" if path or path_given else f"{prefix}{message}"


def unknown_setting(path: str, name: str, owner: type[BaseModel] | None) -> str:
    """What is wrong with a path in which `name` is no setting of the class `owner`, and what to give."""
    instead = getattr(owner, "replaced", {})
    if name in instead:
        return f"'{path}' is no setting; {instead[name]}"
    return f"unknown setting '{path}'{did_you_mean(name, owner.model_fields if owner else {})}"


def settings_classes(field: Any) -> dict[str, type[BaseModel]]:
    """The settings classes that are allowed in a field or a part of its type, by kind or else by name."""
    if isinstance(field, type) and issubclass(field, BaseModel):
        kind = field.model_fields.get("kind")
        return {str(kind.default) if kind else field.__name__: field}
    if any(isinstance(m, Family) for m in getattr(field, "metadata", getattr(field, "__metadata__", ()))):
        return dict(family(field).plugins)
    found: dict[str, type[BaseModel]] = {}
    for arg in (field.annotation,) if isinstance(field, FieldInfo) else get_args(field):
        found.update(settings_classes(arg))
    return found


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted paths: `{"recipe.attack.steps": 10, ...}`."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def differences(a: Settings, b: Settings) -> dict[str, tuple[Any, Any]]:
    """What differs between two settings: `{path: (value in a, value in b)}`, None for a missing path."""
    one, two = flat(a.to_dict()), flat(b.to_dict())
    return {k: (one.get(k), two.get(k)) for k in {**one, **two} if one.get(k) != two.get(k)}
