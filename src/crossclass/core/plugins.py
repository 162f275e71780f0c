"""A family of plug-ins: classes of settings told apart by `kind`, to which more can be added at run time.

A family is written `AnyThreat = Annotated[Threat, Family(Linf, L2)]`, where `Threat` says what code may rely
on, and is used as the type of a field. A class that `register(AnyThreat, L1)` adds is then accepted wherever
the family is a field's type, and listed, shown, written and read like the first members.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from crossclass.core.errors import UserError

M = TypeVar("M", bound=type[BaseModel])
_INSIDE: ContextVar[frozenset[int]] = ContextVar("families being written as JSON schema", default=frozenset())


class Family:
    """The members of a family, and the validator of its fields."""

    def __init__(self, *plugins: type[BaseModel]) -> None:
        self.plugins: dict[str, type[BaseModel]] = {}
        """The members by their `kind`, in the order in which they were added."""
        self._validate: Callable[[object], object] | None = None
        for plugin in plugins:
            self.add(plugin)

    def add(self, plugin: type[BaseModel]) -> None:
        """Make a class a member. Raises UserError if it has no `kind`, or one that is taken."""
        field = plugin.model_fields.get("kind")
        if field is None or not isinstance(field.default, str):
            raise UserError(f"{plugin.__name__} has no kind; give it kind: Literal['name'] = 'name'")
        if self.plugins.setdefault(field.default, plugin) is not plugin:
            raise UserError(
                f"the kind '{field.default}' of {plugin.__name__} is taken by "
                f"{self.plugins[field.default].__name__}; choose another"
            )
        self._validate = None

    def remove(self, plugin: type[BaseModel]) -> None:
        """Take a registered class out again."""
        del self.plugins[kind_of(plugin)]
        self._validate = None

    def validate(self, value: object) -> object:
        """A member of the family from plain settings with a `kind`, or the member that is given."""
        if self._validate is None:  # built at the first use after a change
            classes = tuple(self.plugins.values())
            marked: Any = Annotated[Union[classes], Field(discriminator="kind")]  # noqa: UP007
            self._validate = TypeAdapter(marked).validate_python
        return self._validate(value)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        if id(self) in _INSIDE.get():  # a recipe in a recipe: its settings are said once
            return {"type": "object", "properties": {"kind": {"enum": list(self.plugins)}}}
        token = _INSIDE.set(_INSIDE.get() | {id(self)})
        try:
            return {"oneOf": [handler(m.__pydantic_core_schema__) for m in self.plugins.values()]}
        finally:
            _INSIDE.reset(token)


def family(union: Any) -> Family:
    """The family of `AnyX = Annotated[X, Family(A, B)]`, or of a field of this type."""
    metadata = union.metadata if isinstance(union, FieldInfo) else union.__metadata__
    return next(m for m in metadata if isinstance(m, Family))


def register(union: Any, plugin: M) -> M:
    """Add a class of settings to a family, as in `register(AnyThreat, L1)`; returns the class.

    From then on its `kind` can be written wherever a member of the family can be. Raises UserError if the
    class has no `kind`, or one that another member has, or is no subclass of the family's base.
    """
    base = get_args(union)[0]
    if not issubclass(plugin, base):
        raise UserError(
            f"{plugin.__name__} is no {base.__name__}; write class {plugin.__name__}({base.__name__})"
        )
    family(union).add(plugin)
    return plugin


def members(union: Any) -> list[type[Any]]:
    """The classes of a family: those it was made with, then those that were registered."""
    return list(family(union).plugins.values())


def kind_of(plugin: type[BaseModel]) -> str:
    """The `kind` under which a plug-in is named in YAML."""
    return str(plugin.model_fields["kind"].default)
