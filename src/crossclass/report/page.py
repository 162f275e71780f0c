"""One self-contained HTML page: style, script, figures and data are inside, every name escaped."""

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from crossclass.report import format as texts
from crossclass.report import results
from crossclass.report import run as runs
from crossclass.report.reading import Results, Run

TEMPLATES = Path(__file__).parent / "templates"
ENTRIES = 300_000  # matrix entries a page carries for its sliders: some 1.5 MB


def environment() -> Environment:
    """The templates of the pages: text is escaped, an unknown variable is an error."""
    env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    env.filters |= {
        function.__name__: function
        for function in (texts.percent, texts.number, texts.signed, texts.split_name, texts.interval)
    }
    env.filters["text"] = lambda v: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
    return env


def page(found: Sequence[Run], files: Sequence[Results]) -> str:
    """The HTML of run folders and of result files, in this order."""
    named = enumerate(zip(found, runs.labels(found), strict=True), 1)
    views = [runs.view(run, label, ENTRIES // len(found), i) for i, (run, label) in named]
    assets = {p.suffix[1:]: Markup(p.read_text("utf-8")) for p in TEMPLATES.glob("*.[cj]s*")}
    overlay = runs.overlaid(views) if len(views) > 1 else {}
    measured = [results.view(one, i) for i, one in enumerate(files, 1)]
    template = environment().get_template("page.html.j2")
    return template.render(runs=views, files=measured, overlay=overlay, assets=assets)
