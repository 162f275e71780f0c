"""The page of a study: a table of all claims with their verdicts on top, then a section per figure.

It reads what `reproduce` wrote (`<id>.json`, `.csv`, `.svg`) and computes nothing.
"""

import base64
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crossclass.analysis.metrics import METRICS
from crossclass.core.errors import UserError
from crossclass.core.files import json_text, write_atomic
from crossclass.paper.entries import ENTRIES, over_study
from crossclass.paper.entry import Numbers
from crossclass.paper.reproduce import read_entry
from crossclass.paper.verdict import WORDS
from crossclass.report import plots
from crossclass.report.format import split_name
from crossclass.report.sections import TEMPLATES, download, environment
from crossclass.report.theory_panel import panel

THEOREMS = ("thm1", "thm2", "thm3")  # the first of them has the panel that all three are about
LIMIT = 2_000_000
"""Bytes up to which the page carries a file for download."""


def write_study(folder: Path) -> Path:
    """Write `index.html` into a folder of results and return its path. Raises UserError if it holds none."""
    files = list(folder.glob("*.json")) if folder.is_dir() else []
    entries = [read_entry(p) for p in files]
    if not entries:
        raise UserError(f"{folder} holds no results of reproduce; run crossclass reproduce first")
    known = {id_: i for i, id_ in enumerate(ENTRIES)}
    entries.sort(key=lambda e: (known.get(e["id"], len(known)), e["id"]))
    out = folder / "index.html"
    write_atomic(out, study(entries, folder))
    return out


def study(entries: list[dict[str, Any]], folder: Path) -> str:
    """The HTML of entries; figures and grids are read from `folder`."""
    maps = _maps(entries, folder)
    theorem = next((e["id"] for e in entries if e["id"] in THEOREMS), None)
    extra = zip(entries, over_study(entries), strict=True)
    own = [{"maps": maps.get(e["id"]), "panel": e["id"] == theorem, "q": q} for e, q in extra]
    views = [_view(e, folder) | more for e, more in zip(entries, own, strict=True)]
    counts = Counter(v["verdict"] for e in entries for v in e["verdicts"] if not v.get("extension"))
    env = environment()
    env.filters["p_value"] = p_value
    template = env.get_template("study.html.j2")
    return template.render(
        entries=views,
        counts={word: counts.get(word, 0) for word in WORDS},
        sizes=sorted({e["size"] for e in entries}),
        version=entries[0].get("crossclass"),
        panel=Markup(panel()) if theorem else "",
        js=Markup((TEMPLATES / "save.js").read_text("utf-8")),
    )


def p_value(p: float | None) -> str:
    """A p-value as text; empty for None."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def _view(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    numbers = entry["numbers"]
    files = [folder / f"{entry['id']}.{kind}" for kind in ("json", "csv")]
    return entry | {
        "figure": _figure(folder / f"{entry['id']}.svg", entry["id"]),
        "description": f"{entry['title']}. {entry['claim']} Numbers: below, and in {entry['id']}.csv.",
        "settings": _settings(numbers),
        "own": [(i, v) for i, v in enumerate(entry["verdicts"]) if not v.get("extension")],
        "tested": any(v.get("p") is not None for v in entry["verdicts"]),
        "measured": (measured := _table(numbers)),
        "metrics": [m for m in METRICS if m.headline and any(m.key in row["best"] for row in measured)],
        "conditions": _conditions(numbers),
        "printed": _printed(entry.get("printed")),
        "downloads": dict(download(p, whole=0) for p in files if p.is_file() and p.stat().st_size < LIMIT),
    }


def _maps(entries: list[dict[str, Any]], folder: Path) -> dict[str, dict[str, Any]]:
    """By entry: its grid of maps as data, or the entry that shows the same file already."""
    maps: dict[str, dict[str, Any]] = {}
    first: dict[str, str] = {}
    for entry in entries:
        for name in entry["numbers"].get("grids", [])[:1]:
            if (folder / name).is_file():
                at = first.setdefault(name, entry["id"])
                data = base64.b64encode((folder / name).read_bytes()).decode() if at == entry["id"] else ""
                maps[entry["id"]] = {"at": at, "data": data}
    return maps


def _settings(numbers: Numbers) -> dict[str, Any] | None:
    """Table 2 as a table: what the paper prints, then the settings of every named run."""
    if "wanted" not in numbers:
        return None
    wanted, runs = numbers["wanted"], numbers.get("runs") or {}
    keys = list(dict.fromkeys((*wanted, *("attack", "eps", "steps", "step"))))
    rows = [
        (name, [_cell(run.get(key)) for key in keys]) for name, run in {"Table 2": wanted, **runs}.items()
    ]
    return {"header": keys, "rows": rows}


def _cell(value: Any) -> str:
    """A setting as text; empty for None."""
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _figure(path: Path, id_: str) -> Markup | None:
    """The drawing as an element whose ids no other figure on the page has."""
    if not path.is_file():
        return None
    text = plots.inline(path.read_text("utf-8"), id_)
    if re.search(r"<script|\son\w+=|<foreignObject|javascript:", text, re.IGNORECASE):
        return None  # not a drawing of this project: those hold no code
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    # matplotlib names every group; a page needs the ids that are referred to
    return Markup(re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text))


def _table(numbers: Numbers) -> list[dict[str, Any]]:
    """Best and last of every run and seed, as measured; seeds that are not counted are marked."""
    aside = numbers.get("not_counted", ())
    return [
        {"run": name, "seed": seed, "aside": seed in aside}
        | {s: {k: v[i] for k, v in run[s].items()} for s in ("best", "last")}
        for name, run in (numbers.get("runs") or {}).items()
        if "best" in run
        for i, seed in enumerate(run["seeds"])
    ]


def _conditions(numbers: Numbers) -> list[str]:
    """The conditions of the numbers in the table, each once."""
    names_by_text: dict[str, list[str]] = {}
    for name, run in (numbers.get("runs") or {}).items():
        if "attack" in run and "best" in run:
            by = split_name(run["chosen_by"])
            text = f"{run['attack']}; n = {run['n']:,} test images; best chosen on the {by} split"
            text += f"; {run['data']}"
            names_by_text.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in names_by_text.items()]


def _printed(values: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the paper prints, flat."""
    pairs = [(k, row) for k, v in (values or {}).items() for row in (v if isinstance(v, list) else [v])]
    return [
        (key, json_text(row, None, ensure_ascii=False).replace('"', "").strip("{}")) for key, row in pairs
    ]
