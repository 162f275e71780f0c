"""Every setting that can be typed has a type in words and a docstring, which help and `show` print."""

from collections.abc import Iterator
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from crossclass.analysis.measure import Measure
from crossclass.checkpoints.load import Source
from crossclass.cli import own_settings
from crossclass.core.config import Settings, settings_classes
from crossclass.core.setting_docs import describe
from crossclass.diagnostics import Doctor
from crossclass.paper.reproduce import Study
from crossclass.training.run import Run

OWN = [c for c in vars(own_settings).values() if isinstance(c, type) and issubclass(c, Settings)]


def below(cls: type[BaseModel], known: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """A class and all that its fields take."""
    if cls not in known:
        known.add(cls)
        yield cls
        for field in cls.model_fields.values():
            for inner in settings_classes(field).values():
                yield from below(inner, known)


@pytest.mark.parametrize("root", [Run, Measure, Source, Doctor, Study, *OWN])
def test_every_setting_has_a_docstring_and_a_type(root):
    for cls in below(root, set()):
        for name, setting in describe(cls).items():
            assert setting.doc, f"{cls.__module__}.{cls.__name__}.{name}"
            assert setting.type_words != "value", f"{cls.__module__}.{cls.__name__}.{name}"


class Inner(Settings):
    """For these tests."""

    depth: int = 1


class Outer(Inner):
    """For these tests."""

    n: int | None = Field(default=None, ge=1)
    """How
    many."""
    share: float = Field(default=0.5, gt=0, lt=1)
    way: Literal["a", "b"] = "a"
    pairs: tuple[tuple[int, int], ...] = ()
    inner: Inner = Inner()
    on: bool = False


def test_types_in_words():
    types = {name: setting.type_words for name, setting in describe(Outer).items()}
    assert types == {
        "depth": "integer",
        "n": "integer from 1 or null",
        "share": "number above 0 below 1",
        "way": "a | b",
        "pairs": "list: list: integer",
        "inner": "settings",
        "on": "true or false",
    }
    assert describe(Outer)["n"].doc == "How many."
    assert describe(Outer)["share"].doc == ""
    assert describe(Outer)["inner"].kinds == {"Inner": Inner}
