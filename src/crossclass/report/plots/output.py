"""Figures as files and as page elements: the same figure gives the same bytes."""

import hashlib
import io
import re
import warnings
from pathlib import Path

from matplotlib.figure import Figure

from crossclass.core.errors import UserError
from crossclass.core.files import write_atomic
from crossclass.report.plots.style import styled

_COORDINATES = re.compile(r'\b(?:d|x|y)="[^"]*"')
_LONG = re.compile(r"-?\d+\.\d{3,}")


def freeze_layout(figure: Figure) -> Figure:
    """Lay the figure out once, so that saving it twice gives the same picture."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element for a page: without a date, and with ids that no other figure has.

    Its background is the page's.
    """
    buffer = io.StringIO()
    _save(figure, buffer, "svg", transparent=True)
    text = buffer.getvalue()
    return inline(text, "f" + hashlib.sha256(text.encode()).hexdigest()[:8])


def inline(text: str, mark: str) -> str:
    """The text of an SVG file as an element of a page.

    Its ids begin with `mark`, and its style sheet is left out, which would apply to the whole page.
    Coordinates are rounded to 1/100 point and indentation is dropped: the same picture in fewer bytes.
    """
    text = "<svg" + text.split("<svg", 1)[-1].rstrip()
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = text.replace("<svg ", '<svg style="stroke-linejoin: round" ', 1)  # all that the style sheet set
    text = _COORDINATES.sub(lambda found: _LONG.sub(lambda v: f"{float(v[0]):.2f}", found[0]), text)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{mark}-", re.sub(r"\s*\n\s*", "\n", text))


def file_kind(path: Path) -> str:
    """svg, png or pdf, as the path ends; raises UserError for anything else."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("svg", "png", "pdf"):
        raise UserError(f"{path}: a figure is written as .svg, .png or .pdf; give out=FILE.svg")
    return kind


def save(figure: Figure, path: Path, made_by: str = "") -> Path:
    """Write the figure as .svg, .png or .pdf in one step, `made_by` in its metadata; returns `path`."""
    buffer = io.BytesIO()
    _save(figure, buffer, file_kind(path), made_by)
    write_atomic(path, buffer.getvalue())
    return path


def _save(
    figure: Figure, to: io.StringIO | io.BytesIO, kind: str, made_by: str = "", *, transparent: bool = False
) -> None:
    nothing = {"svg": ("Date", "Creator", "Format", "Type"), "pdf": ("CreationDate",)}
    metadata: dict[str, str | None] = dict.fromkeys(nothing.get(kind, ()))
    if made_by:
        metadata[{"svg": "Description", "png": "Description", "pdf": "Subject"}[kind]] = made_by
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's font may well have it
        figure.savefig(
            to, format=kind, dpi=110 if transparent else 200, metadata=metadata, transparent=transparent
        )
