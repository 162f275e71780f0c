"""A family is its union and what is registered: accepted, listed, written and read alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.cli.arguments import assign
from crossclass.core.config import Settings, load_yaml, validated
from crossclass.core.errors import UserError
from crossclass.core.plugins import Family, family, kind_of, members, register
from crossclass.training.recipes import AWP, AnyRecipe
from crossclass.training.run import Run


class Shape(Settings):
    """Base of the shapes."""

    kind: str


class Square(Shape):
    """A square."""

    kind: Literal["square"] = "square"
    side: float = Field(1.0, gt=0)


class Circle(Shape):
    """A circle."""

    kind: Literal["circle"] = "circle"
    radius: float = Field(1.0, gt=0)


class Both(Shape):
    """Two shapes in one."""

    kind: Literal["both"] = "both"
    first: "AnyShape" = Square()
    second: "AnyShape | None" = None


AnyShape = Annotated[Shape, Family(Square, Both)]
Both.model_rebuild()


class Picture(Settings):
    """Holds members of the family in every usual way."""

    shape: AnyShape = Square()
    frame: AnyShape | None = None
    rest: tuple[AnyShape, ...] = ()


@contextmanager
def registered(union: Any, plugin: type[Settings]) -> Iterator[None]:
    register(union, plugin)
    try:
        yield
    finally:
        family(union).remove(plugin)


def test_a_registered_class_is_a_member_like_the_others():
    with pytest.raises(UserError, match=r"circle"):
        assign(Picture(), ["shape.kind=circle"])
    with registered(AnyShape, Circle):
        assert members(AnyShape) == [Square, Both, Circle]
        made = assign(Picture(), ["shape.kind=both", "shape.first.kind=circle", "shape.first.radius=2"])
        made = made.replace(frame={"kind": "circle"}, rest=[{"kind": "square"}, Circle(radius=3)])
        assert made.shape.first == Circle(radius=2)
        assert load_yaml(Picture, made.yaml(), "f") == made
        assert made.to_dict(defaults=False)["shape"] == {
            "kind": "both",
            "first": {"kind": "circle", "radius": 2.0},
        }
        assert assign(Picture(), ["frame=circle"]).frame == Circle()
        assert '"circle"' in str(Picture.model_json_schema()).replace("'", '"')
    assert members(AnyShape) == [Square, Both]
    with pytest.raises(UserError, match=r"circle"):
        validated(Picture, {"shape": {"kind": "circle"}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": {"kind": "circel"}}, ["circel", "shape", "did you mean 'circle'"]),
        ({"shape": {"kind": "circle", "radus": 1}}, ["shape.radus", "did you mean 'radius'"]),
        ({"frame": {"kind": "both", "second": {"kind": "circle", "radius": -1}}}, ["frame.second.radius=-1"]),
        ({"rest": [{"radius": 1}]}, ["rest.0", "kind"]),
        ({"shape": 3}, ["shape"]),
    ],
)
def test_a_mistake_is_named_by_its_path(change, words):
    with registered(AnyShape, Circle):
        with pytest.raises(UserError) as e:
            validated(Picture, change)
        assert all(word in str(e.value) for word in words), str(e.value)


def test_a_kind_is_needed_belongs_to_one_class_and_to_the_base():
    class Other(Shape):
        kind: Literal["square"] = "square"

    class Nameless(Shape):
        pass

    class Stranger(Settings):
        kind: Literal["stranger"] = "stranger"

    for plugin, word in ((Other, "square"), (Nameless, "kind"), (Stranger, "Shape")):
        with pytest.raises(UserError, match=word):
            register(AnyShape, plugin)
    assert register(AnyShape, Square) is Square  # a second time does no harm
    assert [kind_of(m) for m in members(AnyShape)] == ["square", "both"]


def test_families_that_hold_themselves_take_registered_members_everywhere():
    class Other(Linf):
        """Another ball."""

        kind: Literal["other"] = "other"

    class Twice(AWP):
        """Another wrapper."""

        kind: Literal["twice"] = "twice"

    with registered(AnyThreat, Other), registered(AnyRecipe, Twice):
        run = assign(
            Run(),
            ["recipe.kind=twice", "recipe.inner.kind=twice", "recipe.inner.inner.attack.threat.kind=other"],
        )
        assert run.recipe.inner.inner.attack.threat == Other()
        assert load_yaml(Run, run.yaml(), "f") == run
