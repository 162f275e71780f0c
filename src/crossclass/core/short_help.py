"""`help(PGD)` shows what each setting does, and the methods of this package without pydantic's fifty."""

import textwrap
from inspect import Parameter, Signature
from types import FunctionType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

Meta: Any = type(BaseModel)


def own_doc(cls: type) -> str:
    """The docstring as it stands in the class, or that of the next class above that has one."""
    docs = (vars(base).get("__doc__") for base in cls.__mro__ if base is not BaseModel)
    return next((doc for doc in docs if doc), "")


def explained(cls: type[BaseModel]) -> str:
    """The docstring, and below it a paragraph for each field."""
    from crossclass.core.setting_docs import describe  # which imports the settings

    doc = own_doc(cls)
    fields = describe(cls)
    if not fields:
        return doc
    lines = []
    for name, about in fields.items():
        default = _default(cls, name)
        classes, words = [inner.__name__ for inner in about.kinds.values()], about.type_words
        words = words.replace("a kind", " | ".join(classes)).replace(" or null", " or None")
        words = classes[0] if words == "settings" and classes else words
        lines.append(f"{name}: {words}" + (f" = {default}" if default else ""))
        lines += textwrap.wrap(
            about.doc, 84, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        )
    return "\n".join([doc.rstrip(), "", "Settings:", *(f"    {line}" for line in lines), ""])


def _default(cls: type[BaseModel], name: str) -> str:
    field = cls.model_fields[name]
    return "" if field.is_required() else repr(field.get_default(call_default_factory=True))


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as ShortHelp
else:

    class ShortHelp(Meta):
        """The metaclass of settings: what `help()` and completion read of a class."""

        def __dir__(cls) -> list[str]:  # noqa: N805
            """The methods that this package defines; pydantic's own are there all the same."""
            own = [base for base in cls.__mro__ if base is not BaseModel and issubclass(base, BaseModel)]
            names = {n: v for base in reversed(own) for n, v in vars(base).items()}
            shown = (n for n, v in names.items() if _is_method(v) and (n == "__call__" or n[0] != "_"))
            return sorted(shown)

        @property
        def __doc__(cls) -> str:  # noqa: N805
            """The docstring with all fields."""
            return explained(cls) if "__pydantic_fields__" in vars(cls) else own_doc(cls)

        @property
        def __signature__(cls) -> Signature:  # noqa: N805
            """The fields by name with their defaults; their types stand in the docstring."""
            fields = [(name, f) for name, f in cls.model_fields.items() if f.repr and name != "kind"]
            given = [Parameter.empty if f.is_required() else f.get_default() for _, f in fields]
            names = zip((name for name, _ in fields), given, strict=True)
            return Signature([Parameter(n, Parameter.KEYWORD_ONLY, default=value) for n, value in names])

        @__signature__.setter
        def __signature__(cls, value: object) -> None:  # noqa: N805
            """Pydantic's, which repeats the types of all fields on one line, is dropped."""


def _is_method(value: object) -> bool:
    return isinstance(value, FunctionType | property)
