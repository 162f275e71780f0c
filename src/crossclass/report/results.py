"""A result of `measure` on the page: each checkpoint under its conditions, then what differs between two."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crossclass.report import plots
from crossclass.report.downloads import download
from crossclass.report.format import UNKNOWN, change, holds_zero, interval, number, percent, signed
from crossclass.report.reading import Plain, Results

_NAMES = {"robust": "Robust accuracy", "cas": "CAS", "icas": "I-CAS", "clean": "Clean accuracy"}
_SPREAD = {
    "half_mass_area": "share of the image that holds half of a map",
    "entropy": "entropy of a map, 1 if it is flat",
}
_PNG = b"\x89PNG\r\n\x1a\n"


def view(found: Results, index: int) -> Plain:
    """All that the page says about one file; `index` tells its anchors from those of other files."""
    labels = _labels(found.measures)
    measures = [
        _checkpoint(m, label, f"result-{index}-{i}")
        for i, (m, label) in enumerate(zip(found.measures, labels, strict=True), 1)
    ]
    return {
        "name": found.path.name,
        "measures": measures,
        "comparisons": [
            comparison(c, found.measures, found.path.parent, f"comparison-{index}-{i}")
            for i, c in enumerate(found.comparisons, 1)
        ],
        "download": download(found.path),
    }


def _labels(measures: Sequence[Plain]) -> list[str]:
    """Checkpoint and run; the attack where that alone tells two measurements apart."""
    names = [
        f"{m.get('checkpoint', 'checkpoint')}{' of ' * bool(m.get('run'))}{m.get('run') or ''}"
        for m in measures
    ]
    runs = {m.get("run") for m in measures}
    if len(runs) == 1 and len({m.get("checkpoint") for m in measures}) > 1:
        names = [str(m.get("checkpoint")) for m in measures]
    out = []
    for m, name in zip(measures, names, strict=True):
        eps = (m.get("conditions") or {}).get("eps")
        attacks = {o.get("attack") for o, other in zip(measures, names, strict=True) if other == name}
        out.append(f"{name}, eps {eps}" if len(attacks) > 1 and eps is not None else name)
    return out


def _checkpoint(m: Plain, label: str, anchor: str) -> Plain:
    names = class_names(m)
    ends = m.get("intervals") or {}
    rows = zip(names, m.get("classwise_robust") or (), m.get("classwise_clean") or (), strict=False)
    classes = [{"name": n, "best": robust, "last": clean} for n, robust, clean in rows]
    figures = {
        key: plots.matrix(m[key], names) for key in ("C", "icas_matrix", "all_pairs_matrix") if m.get(key)
    }
    if counts := m.get("confusion"):
        figures["confusion"] = plots.confusion(counts, names, attacked=attacked(m))
    return {
        **m,
        "label": label,
        "anchor": anchor,
        "names": names,
        "attacked": attacked(m),
        "finding": _finding(m, ends),
        "ends": ends,
        "level": _level(ends),
        "classes": sorted(classes, key=lambda r: -(r["best"] or 0)),
        "figures": {key: Markup(plots.svg(figure)) for key, figure in figures.items()},
    }


def class_names(m: Mapping[str, Any]) -> list[str]:
    """The names of the classes, counted where the file does not name them."""
    K = max(len(m.get(key) or ()) for key in ("C", "classwise_robust", "confusion"))
    names = [str(name) for name in m.get("class_names") or ()]
    return names if len(names) == K else [f"class {i}" for i in range(K)]


def attacked(m: Mapping[str, Any]) -> bool:
    """Whether the numbers are of adversarial images."""
    return not str(m.get("attack") or "").startswith("none")


def _finding(m: Plain, ends: Plain) -> str:
    """Accuracy and CAS in one sentence."""
    key = "robust" if attacked(m) else "clean"
    said = f"{_NAMES[key]} is {percent(m.get(key))} {interval(ends.get(key), 100)}".rstrip()
    cas = f"CAS is {number(m.get('cas'))} {interval(ends.get('cas'))}".rstrip()
    if m.get("cas_normalised") is not None:
        cas += f", {number(m['cas_normalised'], 3)} of its largest possible value"
    return f"{said}; {cas if m.get('cas') is not None else 'CAS was not measured'}."


def comparison(c: Plain, measures: Sequence[Plain], folder: Path, anchor: str) -> Plain:
    """What the page says about two checkpoints; `folder` holds the grid of their saliency maps."""
    ends = [_end(c, side, measures) for side in (0, 1)]
    runs = [(of or {}).get("run") for of in c.get("of") or ends]
    within = bool(runs[0]) and runs[0] == runs[1]
    names = class_names(ends[0] or {"C": c.get("C_difference")})
    figures = {key: plots.matrix(m["C"], names) for key, m in zip("ab", ends, strict=True) if m.get("C")}
    if c.get("C_difference"):
        figures["difference"] = plots.difference(c["C_difference"], names)
    changed = [{"name": r["class"], "best": r.get("a"), "last": r.get("b")} for r in c.get("classes") or ()]
    level = _level(c.get("intervals") or {})
    return {
        **c,
        "anchor": anchor,
        "run": runs[0] if within else None,
        "within": within,
        "attacked": attacked(c),
        "level": level,
        "tiles": [tile for key in _NAMES if (tile := _tile(c, key, within, level))],
        "finding": _difference(c, within),
        "classes": sorted(changed, key=lambda r: -abs((r["best"] or 0) - (r["last"] or 0))),
        "pairs": c.get("pairs") or [],
        "figures": {key: Markup(plots.svg(figure)) for key, figure in figures.items()},
        "saliency": _saliency(c.get("saliency"), folder),
    }


def _end(c: Plain, side: int, measures: Sequence[Plain]) -> Plain:
    """The checkpoint that a side of the comparison is about, recognised by its name and its numbers."""
    label, of = c["ab"[side]], (c.get("of") or [{}, {}])[side]
    for m in measures:
        alike = all(m.get(k) == c.get(k) for k in ("attack", "n", "split"))
        named = label in (m.get("checkpoint"), f"{m.get('checkpoint')} of {m.get('run')}")
        same = all(m.get(k) == v for k, v in of.items()) if of else named
        if alike and same and all(m.get(k) == c[k][side] for k in ("robust", "cas") if k in c):
            return m
    return {}


def _tile(c: Plain, key: str, within: bool, level: str) -> Plain | None:
    pair, points = c.get(key), key in ("robust", "clean")
    if not pair or None in pair or (key == "robust" and not attacked(c)):
        return None
    d = c.get(f"d_{key}", pair[0] - pair[1])
    ends = (c.get("intervals") or {}).get(f"d_{key}")
    shown = [percent(v) if points else number(v) for v in pair]
    note = f"{level} interval of the difference, same images for both" if ends else "no interval was computed"
    if holds_zero(ends):
        note += "; it holds 0, so this may be chance"
    note += "" if points else ". Read with accuracy."
    words = change(d, ends, points=points, within=within)
    return {"title": _NAMES[key], "a": shown[0], "b": shown[1], "change": words, "note": note, "key": key}


def _difference(c: Plain, within: bool) -> str:
    """What changed from the first to the second, accuracy and CAS, in one sentence."""
    said = []
    for key in ("robust" if attacked(c) else "clean", "cas"):
        if (pair := c.get(key)) and None not in pair:
            ends = (c.get("intervals") or {}).get(f"d_{key}")
            name = _NAMES[key] if key == "cas" else _NAMES[key].lower()
            text = change(c.get(f"d_{key}", pair[0] - pair[1]), ends, points=key != "cas", within=within)
            said.append(f"{name} {text}" + (", which may be chance" if holds_zero(ends) else ""))
    head = f"From {c['a']} to {c['b']}" if within else f"{c['b']} against {c['a']}:"
    return f"{head} {' and '.join(said)}." if said else f"{c['a']} and {c['b']} were compared."


def _saliency(s: Plain | None, folder: Path) -> Plain | None:
    """Numbers and grid; the picture must lie beside the file, and be one."""
    if not s:
        return None
    grid = s.get("grid")
    place = folder / Path(str(grid)).name if grid else None
    data = place.read_bytes() if place and place.is_file() else b""
    picture = f"data:image/png;base64,{base64.b64encode(data).decode()}" if data.startswith(_PNG) else None
    sets = (("these images", s), ("all images", s.get("all_images") or {}))
    rows = [
        _spread(key, name, of, found[key])
        for key, name in _SPREAD.items()
        for of, found in sets
        if found.get(key)
    ]
    return {**s, "picture": picture, "rows": rows}


def _spread(key: str, name: str, of: str, found: Plain) -> Plain:
    share = key == "half_mass_area"
    shown = {k: percent(found.get(k)) if share else number(found.get(k), 3) for k in ("a", "b")}
    d = found.get("difference")
    scale, digits = (100, 1) if share else (1, 3)
    return {
        "name": name,
        "of": of,
        **shown,
        "difference": signed(d and scale * d, digits),
        "interval": interval(found.get("interval"), scale, digits) or UNKNOWN,
    }


def _level(ends: Mapping[str, Any]) -> str:
    return f"{100 * ends.get('level', 0.95):.0f}\u00a0%"
