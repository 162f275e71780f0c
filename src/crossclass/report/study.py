"""The page of a study: a table of all claims with their verdicts on top, then a section per figure.

It reads what `reproduce` wrote (`<id>.json`, `.csv`, `.svg`) and computes nothing.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from crossclass.errors import UserError
from crossclass.files import write_atomic
from crossclass.report import words
from crossclass.report.page import TEMPLATES
from crossclass.report.panel import panel

Plain = dict[str, Any]

ORDER = (
    *("fig1", "fig2", "fig3ab", "soft", "fig3c", "fig4", "fig5", "fig6", "thm1", "thm2", "thm3"),
    *("cor1", "bridge", "table1", "fig7", "fig8", "fig9", "table2", "fig10", "fig11"),
)
WORDS = ("holds", "does not hold", "undecided")
LIMIT = 2_000_000  # bytes of a file that the page carries for download


def write_study(place: Path) -> Path:
    """Write `index.html` into a folder of results; returns where it lies. Raises UserError if it has none."""
    files = list(place.glob("*.json")) if place.is_dir() else []
    entries = [_read(p) for p in files]
    if not entries:
        raise UserError(f"{place} holds no results of reproduce; run crossclass reproduce first")
    known = {id_: i for i, id_ in enumerate(ORDER)}
    entries.sort(key=lambda e: (known.get(e["id"], len(known)), e["id"]))
    out = place / "index.html"
    write_atomic(out, study(entries, place))
    return out


def study(entries: list[Plain], place: Path) -> str:
    """The HTML of entries; figures and grids are read from `place`."""
    env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    env.filters |= {name: getattr(words, name) for name in ("pct", "number", "signed", "split", "span")}
    env.filters["text"] = str
    views = [_view(e, place) for e in entries]
    counts = Counter(v["word"] for e in entries for v in e["verdicts"] if not v.get("beyond"))
    theory = any(e["id"] in ("thm1", "thm3") for e in entries)
    return env.get_template("study.html.j2").render(
        entries=views,
        counts={word: counts.get(word, 0) for word in WORDS},
        sizes=sorted({e["size"] for e in entries}),
        version=entries[0].get("crossclass"),
        panel=Markup(panel()) if theory else "",
        css=Markup((TEMPLATES / "style.css").read_text("utf-8")),
    )


def _view(entry: Plain, place: Path) -> Plain:
    numbers = entry["numbers"]
    files = [place / f"{entry['id']}.{kind}" for kind in ("json", "csv")]
    grids = [place / g for g in numbers.get("grids", [])[:1]] if isinstance(numbers, Mapping) else []
    return entry | {
        "figure": _figure(place / f"{entry['id']}.svg", entry["id"]),
        "grids": [base64.b64encode(g.read_bytes()).decode() for g in grids if g.is_file()],
        "measured": _table(numbers),
        "conditions": _conditions(numbers),
        "printed": _printed(entry.get("printed")),
        "downloads": {
            p.name: base64.b64encode(p.read_bytes()).decode()
            for p in files
            if p.is_file() and p.stat().st_size < LIMIT
        },
    }


def _figure(path: Path, id_: str) -> Markup | None:
    """The drawing as an element whose ids no other figure on the page has."""
    if not path.is_file():
        return None
    text = "<svg" + path.read_text("utf-8").split("<svg", 1)[-1]
    if re.search(r"<script|\son\w+=|<foreignObject|javascript:", text, re.IGNORECASE):
        return None  # a stranger's file; ours hold none of it
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(
        re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    )  # other ids say what a group is, to nobody here
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    return Markup(re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{id_}-", text))


def _table(numbers: Any) -> list[Plain]:
    """Best and last of every run and seed, as measured."""
    rows = []
    for name, run in (numbers.get("runs") or {}).items() if isinstance(numbers, Mapping) else ():
        if "best" not in run:
            return []
        for i, seed in enumerate(run["seeds"]):
            ends = {s: {k: v[i] for k, v in run[s].items()} for s in ("best", "last")}
            rows.append({"run": name, "seed": seed, **ends})
    return rows


def _conditions(numbers: Any) -> list[str]:
    """What every number of the table was measured with, each said once."""
    if not isinstance(numbers, Mapping):
        return []
    found: dict[str, list[str]] = {}
    for name, run in (numbers.get("runs") or {}).items():
        if "attack" in run and "best" in run:
            by = words.split(run["chosen_by"])
            text = f"{run['attack']}; n = {run['n']:,} test images; best chosen on the {by} split"
            text += f"; {run['data']}"
            found.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in found.items()]


def _printed(value: Any) -> list[tuple[str, str]]:
    """What the paper prints, flat."""
    if not isinstance(value, Mapping):
        return []
    out = []
    for key, inner in value.items():
        if key in ("setting", "colorbar", "what", "note"):
            continue
        for row in inner if isinstance(inner, list) else [inner]:
            out.append((str(key), json.dumps(row, ensure_ascii=False).replace('"', "").strip("{}")))
    return out


def _read(path: Path) -> Plain:
    try:
        entry: Plain = json.loads(path.read_text("utf-8"))
        for key in ("id", "title", "claim", "size", "verdict", "verdicts", "numbers"):
            entry[key]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is not a result of reproduce; delete it, or run reproduce again") from e
    return entry
