"""The documentation site: `make docs` writes it to docs/_site."""

import inspect
import re
import sys
from importlib.metadata import version as installed
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import made  # noqa: E402

from crossclass.core.config import Settings  # noqa: E402
from crossclass.core.short_help import own_doc  # noqa: E402

project = "crossclass"
author = "The crossclass authors"
copyright = f"2026, {author}"
version = release = installed("crossclass")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_site"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "crossclass"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_default_options = {"exclude-members": "model_config, model_post_init"}


def joined(lines: list[str]) -> list[str]:
    """The lines with each argument of a section such as `Args:` on one line."""
    out: list[str] = []
    section = False
    for line in lines:
        section = bool(line.strip()) and (section or (line.endswith(":") and not line.startswith(" ")))
        if section and line.startswith(" " * 8):
            out[-1] += f" {line.strip()}"
        else:
            out.append(line)
    return out


def as_rst(lines: list[str]) -> list[str]:
    """Our docstrings are plain text with `code` and indented equations; reStructuredText wants it said."""
    out: list[str] = []
    inside = False
    for line in joined(lines):
        indented = line.startswith("    ") and (inside or not out or not out[-1].strip())
        if indented and not inside:
            out += ["::", ""]
        if line.strip():
            inside = indented
        if inside or indented:
            out.append(line)
            continue
        parts = line.split("`")
        escaped = [
            re.sub(r"([*|_\\])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts)
        ]
        out.append("``".join(escaped))
    return out


def setup(app: Sphinx) -> None:
    """Docstrings go through `as_rst`, pages through `made.for_site`."""

    def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
        if isinstance(obj, type) and issubclass(obj, Settings):  # its settings follow, each by itself
            lines[:] = inspect.cleandoc(own_doc(obj)).splitlines()
        lines[:] = as_rst(lines)

    def read(app: Sphinx, name: str, content: list[str]) -> None:
        content[0] = made.for_site(content[0])

    app.connect("autodoc-process-docstring", process)
    app.connect("source-read", read)
