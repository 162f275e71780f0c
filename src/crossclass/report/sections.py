"""A page is a list of sections: each is a title, a function that collects its numbers, and a template.

A new section is one entry in the list of its page (`run.SECTIONS`, `measurement.SECTIONS`,
`comparison.SECTIONS`) and one template in `templates/<page>/`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from crossclass.analysis.metrics import METRICS
from crossclass.report import format as texts

TEMPLATES = Path(__file__).parent / "templates"
FILTERS = (
    *(texts.percent, texts.number, texts.signed, texts.split_name, texts.interval),
    *(texts.value, texts.value_interval, texts.value_change),
)
T = TypeVar("T")


class Levels(NamedTuple):
    """The HTML elements of headings: of what a page is about, of a section, of its parts."""

    top: str
    section: str
    part: str
    detail: str


ALONE = Levels("h1", "h2", "h3", "h4")
"""One run or one checkpoint has the page to itself."""
AMONG = Levels("h2", "h3", "h4", "h5")
"""The page shows several."""


@dataclass(frozen=True)
class Section(Generic[T]):
    """One part of a page about a `T`."""

    id: str
    """Names the template `<page>/<id>.html.j2`."""
    title: str
    data: Callable[[T], Mapping[str, Any] | None]
    """The variables of the template; None leaves the section out, where its numbers are missing."""


def environment() -> Environment:
    """The templates of the pages: text is escaped, an unknown variable is an error."""
    env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    env.filters |= {function.__name__: function for function in FILTERS}
    env.filters["text"] = lambda v: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
    env.globals["METRICS"] = METRICS
    return env


def render(page: str, sections: Sequence[Section[T]], about: T, levels: Levels) -> list[Markup]:
    """The HTML of every section that has something to show, in order."""
    env = environment()
    pairs = ((section, section.data(about)) for section in sections)
    return [
        Markup(env.get_template(f"{page}/{s.id}.html.j2").render(title=s.title, levels=levels, **data))
        for s, data in pairs
        if data is not None
    ]
