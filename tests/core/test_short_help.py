"""`help()` of a settings class says what each setting does, without pydantic's methods; `repr` is short."""

import inspect
import pydoc

import pytest
from pydantic import BaseModel, Field

import crossclass as cc
from crossclass.core.config import Settings
from crossclass.core.setting_docs import describe

CLASSES = [
    thing
    for name in cc.__all__
    if inspect.isclass(thing := getattr(cc, name)) and issubclass(thing, Settings) and thing is not Settings
]


def shown(cls: type) -> str:
    return pydoc.render_doc(cls, renderer=pydoc.plaintext)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_help_lists_every_setting_and_nothing_of_pydantic(cls):
    text = shown(cls)
    of_pydantic = [n for n in vars(BaseModel) if not n.startswith("_") and f" {n}(" in text]
    assert not of_pydantic
    flat = " ".join(text.replace("|", " ").split())
    for name, about in describe(cls).items():
        assert f" {name}: " in text
        assert " ".join(about.doc.replace("|", " ").split()) in flat, name
    assert len(text.splitlines()) < 150


def test_types_ranges_and_defaults_stand_beside_the_names():
    text = shown(cc.PGD)
    assert "steps: integer from 0 = 10" in text
    assert "threat: Linf | L2 = Linf(eps=8/255)" in text
    assert "step_size: number above 0 or None = None" in text
    assert list(inspect.signature(cc.PGD).parameters)[:2] == ["threat", "steps"]


def test_a_class_without_source_has_help_too():
    # as one that is typed at a prompt
    cls = type(Settings)(
        "Typed", (Settings,), {"__annotations__": {"a": int}, "a": 3, "__doc__": "Typed in."}
    )
    assert cls().a == 3
    assert "Typed in." in shown(cls)
    assert "a: integer = 3" in shown(cls)


def test_a_changed_class_is_still_documented_by_its_first_line():
    class Mine(cc.PGD):
        """Mine.

        With more.
        """

        extra: int = Field(default=1, ge=1)
        """An extra setting."""

    assert Mine.__doc__.startswith("Mine.\n")
    assert "extra: integer from 1 = 1\n" in Mine.__doc__


def test_a_repr_is_what_differs_from_the_defaults_and_makes_the_same_again():
    names = {c.__name__: c for c in CLASSES}
    for settings in (
        cc.PGD(threat=cc.L2(eps=0.5), steps=20, step_size=2 / 255),
        cc.named("shapes-demo"),
        cc.named("wei2025-kd-linf-8"),
        cc.Runtime(threads=1),
        cc.Measure(n=5),
    ):
        text = repr(settings)
        assert "\n" not in text
        assert len(text) < 500
        assert eval(text, names) == settings
    assert repr(cc.Linf()) == "Linf(eps=8/255)"
    assert repr(cc.Runtime()) == "Runtime()"
