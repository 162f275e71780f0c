"""Results in one line for a prompt, and as a small table with a picture of C for a notebook."""

import base64
import html
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossclass.analysis.metrics import METRICS

if TYPE_CHECKING:
    from crossclass.analysis.records import Comparison, EpochRow, Measurement

NAMED = 20
"""Up to so many classes C is drawn as a table with names; more are a picture."""


def line(r: "Measurement") -> str:
    """One measurement in one line: its headline numbers and their conditions."""
    numbers = [f"{m.label} {m.text(r.get(m.key))}" for m in _columns(r)]
    of = f"{r.data.n} {r.data.split} images" if r.data.n is not None else ""
    warned = f"{len(r.warnings)} warning{'s' * (len(r.warnings) > 1)}" if r.warnings else ""
    return "; ".join(filter(None, [", ".join(numbers), r.attack or "", of, warned]))


def epoch_line(row: "EpochRow") -> str:
    """One epoch in one line: what was measured after it."""
    known = [(name, value) for name, value in row.metrics.items() if isinstance(value, int | float)]
    numbers = [f"{name}={value:.4g}" for name, value in known[:6]]
    rate = [] if row.lr is None else [f"lr={row.lr:.4g}"]
    return ", ".join([f"epoch={row.epoch}", *rate, *numbers])


def changes(c: "Comparison") -> str:
    """A comparison in one line: the differences of the headline numbers."""
    known = [(m, c.get(f"d_{m.key}")) for m in METRICS if m.headline]
    return ", ".join(f"{m.label} {m.text(value, signed=True)}" for m, value in known if value is not None)


def page(results: Sequence["Measurement"]) -> str:
    """Measurements as HTML: the warnings, a table of the headline numbers with intervals, and C of each."""
    columns = [m for m in METRICS if m.headline]
    heads = "".join(f"<th>{html.escape(m.label)}</th>" for m in columns)
    rows, warnings, pictures = [], list[str](), []
    for r in results:
        shown = _columns(r)
        numbers = "".join(f"<td>{_cell(m, r) if m in shown else '-'}</td>" for m in columns)
        conditions = f"{r.attack}; {r.data.n} {r.data.split} images"
        name = html.escape(r.checkpoint.title)
        rows.append(f"<tr><th>{name}</th>{numbers}<td>{html.escape(conditions)}</td></tr>")
        warnings += [f"<p><b>warning</b>, {name}: {html.escape(w)}</p>" for w in r.warnings]
        if isinstance(r.matrices, dict) and "C" in r.matrices:
            pictures.append(f"<figure>{_picture(r)}<figcaption>C of {name}</figcaption></figure>")
    table = f"<table><tr><th></th>{heads}<th>conditions</th></tr>{''.join(rows)}</table>"
    row = f'<div style="display: flex; flex-wrap: wrap; gap: 1em">{"".join(pictures)}</div>'
    return f"<div>{''.join(warnings)}{table}{row}</div>"


def _columns(r: "Measurement") -> list[Any]:
    """The headline metrics; without an attack there is no robust accuracy."""
    return [m for m in METRICS if m.headline and (m.key != "robust" or r.attacked)]


def _cell(metric: Any, r: "Measurement") -> str:
    span = metric.span(r.intervals.ends(metric.key)) if r.intervals else ""
    small = f" <small>{span}</small>" if span else ""
    return f"{metric.text(r.get(metric.key))}{small}"


def _shade(value: float | None) -> tuple[int, int, int]:
    """White at 0 and below, dark blue at 1, grey where there is none."""
    if value is None or value != value:
        return 212, 212, 216
    share = min(max(value, 0.0), 1.0)
    low, high = (247, 251, 255), (8, 48, 107)
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _picture(r: "Measurement") -> str:
    C = r.matrix("C")
    names = [html.escape(name) for name in r.class_names] or [str(i) for i in range(len(C))]
    if len(C) > NAMED:
        size = f"width: {max(240, min(2 * len(C), 480))}px; image-rendering: pixelated"
        return f'<img style="{size}" alt="C" src="data:image/png;base64,{_png(C)}">'
    top = "".join(f'<th style="writing-mode: vertical-rl">{name}</th>' for name in names)
    rows = []
    for name, row in zip(names, C, strict=True):
        cells = (
            f'<td style="background: rgb{_shade(v)}; color: {"#fff" if (v or 0) > 0.5 else "#222"}">'
            f"{'-' if v is None else format(v, '.2f')}</td>"
            for v in row
        )
        rows.append(f"<tr><th>{name}</th>{''.join(cells)}</tr>")
    return f'<table style="font-size: 75%"><tr><th></th>{top}</tr>{"".join(rows)}</table>'


def _png(C: Sequence[Sequence[float | None]]) -> str:
    """A pixel for each entry, in base64."""
    rows = b"".join(b"\0" + bytes(b for v in row for b in _shade(v)) for row in C)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", len(C), len(C), 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()
