"""Figures become files and page elements: the same picture gives the same bytes."""

import hashlib
import io
import re
import warnings
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from crossclass.files import write_atomic
from crossclass.plot.style import STYLE


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element to inline: no date, no link, ids no other figure has."""
    buffer = io.StringIO()
    _save(figure, buffer, "svg")
    text = "<svg" + buffer.getvalue().split("<svg", 1)[1].rstrip()
    mark = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would style the whole page
    text = text.replace("<svg ", '<svg style="stroke-linejoin: round" ', 1)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{mark}-", text)


def save(figure: Figure, path: Path) -> Path:
    """Write .svg, .png or .pdf, whole or not at all."""
    buffer = io.BytesIO()
    _save(figure, buffer, path.suffix.removeprefix(".").lower())
    write_atomic(path, buffer.getvalue())
    return path


def _save(figure: Figure, to: io.StringIO | io.BytesIO, kind: str) -> None:
    nothing = {"svg": ("Date", "Creator", "Format", "Type"), "pdf": ("CreationDate",)}
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's font may well have it
        figure.savefig(to, format=kind, dpi=200, metadata=dict.fromkeys(nothing.get(kind, ())))
