"""A page is a list of sections: each is a title, a function that collects its numbers, and a template.

A new section is one entry in the list of its page (`run.SECTIONS`, `measurement.SECTIONS`,
`comparison.SECTIONS`) and one template in `templates/<page>/`.
"""

import base64
import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from crossclass.analysis.metrics import METRICS
from crossclass.core.files import json_text
from crossclass.report import format as texts, plots

TEMPLATES = Path(__file__).parent / "templates"
FILTERS = (
    *(texts.percent, texts.number, texts.signed, texts.split_name),
    *(texts.value, texts.value_interval, texts.value_change),
)
T = TypeVar("T")
CARRIED = 600_000
"""Packed bytes up to which a page carries a file."""


@dataclass(frozen=True)
class Section(Generic[T]):
    """One part of a page about a `T`."""

    id: str
    """Names the template `<page>/<id>.html.j2`."""
    title: str
    data: Callable[[T], Mapping[str, Any] | None]
    """The variables of the template beside `view`, the `T`; None leaves the section out."""
    template: str = ""
    """A template that several pages share, such as `shared/figures`; unset is the section's own."""


def environment() -> Environment:
    """The templates of the pages: text is escaped, an unknown variable is an error."""
    env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    env.filters |= {function.__name__: function for function in FILTERS}
    env.filters["text"] = lambda v: v if isinstance(v, str) else json_text(v, None, ensure_ascii=False)
    env.policies["json.dumps_function"] = partial(json_text, indent=None)  # a browser reads no NaN
    env.filters["svg"] = lambda figure: Markup(plots.svg(figure))
    env.globals |= {"METRICS": METRICS, "css": Markup((TEMPLATES / "style.css").read_text("utf-8"))}
    return env


def render(page: str, sections: Sequence[Section[T]], view: T, heading: int) -> Markup:
    """The HTML of `<page>.html.j2` with every section that has something to show.

    `heading` is the rank of the heading of what `view` is about: 1 where it has the page to itself, else 2.
    """
    env, html = environment(), []
    for section in sections:
        if (data := section.data(view)) is not None:
            template = env.get_template(f"{section.template or f'{page}/{section.id}'}.html.j2")
            given = {"view": view, "title": section.title, "heading": heading, **data}
            html.append(Markup(template.render(given)))
    return Markup(env.get_template(f"{page}.html.j2").render(view=view, heading=heading, sections=html))


def download(file: Path, whole: int = 100_000) -> tuple[str, str]:
    """The name and the data URL of a file: as it is up to `whole` bytes, else as NAME.gz, about a sixth.

    The URL is empty for a file of which even that is more than `CARRIED` bytes.
    """
    data, name, kind = file.read_bytes(), file.name, "octet-stream"
    if len(data) > whole:
        name, kind = f"{name}.gz", "gzip"
        data = gzip.compress(data, mtime=0)  # without a time: the same bytes again
        if len(data) > CARRIED:
            return file.name, ""
    return name, f"data:application/{kind};base64,{base64.b64encode(data).decode()}"
