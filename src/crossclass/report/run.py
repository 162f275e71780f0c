"""One run on the page: what happened between its best and its last checkpoint."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from crossclass.core.errors import UserError
from crossclass.report import plots
from crossclass.report.downloads import download
from crossclass.report.format import holds_zero, interval, number, percent, split_name
from crossclass.report.reading import Plain, Run
from crossclass.report.results import comparison
from crossclass.training import alarms

FILES = ("metrics.csv", "config.yaml", "measure.json")  # for taking away
PAIRS = 10  # most shared pairs shown of each checkpoint


def finding(pair: Mapping[str, Any], done: bool = True) -> str:
    """What happened between the best and the last checkpoint, in one sentence."""
    best, last = pair["best"], pair["last"]
    what, at = f"{pair['split'].capitalize()} robust accuracy", f"epoch {best['epoch']}"
    if best["epoch"] == last["epoch"]:
        at += f", the best by {split_name(pair['by'])} and the last one checked{'' if done else ' so far'}"
        return f"{what} is {percent(best['robust'])} in {at}; CAS there is {number(best.get('cas'))}."
    by_test = pair["by"] == "test"
    head = f"{what} {'peaked at' if by_test else 'was'} {percent(best['robust'])} in {at}"
    head += "" if by_test else f", the best by {split_name(pair['by'])},"
    fell, forgot = _fell(pair)
    tail = f"{'ended' if done else 'stands'} at {percent(last['robust'])} in epoch {last['epoch']}"
    tail = f"and {'' if fell else 'did not fall: it '}{tail}{'' if done else ' so far'}"
    cas = f"{number(best.get('cas'))} to {number(last.get('cas'))}"
    said = {None: "CAS was not measured", True: f"CAS went from {cas}"}
    return f"{head} {tail}; {said.get(forgot, f'CAS did not fall: {cas}')}."


def paired(comparisons: Sequence[Plain], pair: Mapping[str, Any]) -> Plain | None:
    """The stored comparison of these two checkpoints under this attack, on the same images; None without."""
    ends = [pair["best"], pair["last"]]
    for c in comparisons:
        alike = all(c.get(key) == ends[0].get(key) for key in ("attack", "n", "split"))
        named = [c.get("a"), c.get("b")] == [end.get("checkpoint") for end in ends]
        if alike and named and c.get("robust") == [end.get("robust") for end in ends]:
            return c
    return None


def certainty(comparison: Mapping[str, Any] | None) -> str:
    """Whether the loss of robust accuracy may be chance, by the paired interval of the comparison alone."""
    intervals = (comparison or {}).get("intervals") or {}
    ends = intervals.get("d_robust")
    if not ends:
        return "No interval of the difference was computed, so nothing is said here about chance."
    level = f"{100 * intervals.get('level', 0.95):.0f}\u00a0%"
    text = f"The {level} interval of the loss is {interval(ends, 100)} points"
    text += " (paired: the same images for both)"
    return f"{text}; it holds 0, so the loss may be chance." if holds_zero(ends) else f"{text}."


def _fell(pair: Mapping[str, Any]) -> tuple[bool | None, bool | None]:
    """Whether robust accuracy and CAS fell, at the precision shown; None where unknown."""
    best, last = pair["best"], pair["last"]
    ends = ((best.get("robust"), last.get("robust"), 3), (best.get("cas"), last.get("cas"), 1))
    fell, forgot = (None if None in (a, b) else round(b, d) < round(a, d) for a, b, d in ends)
    return fell, forgot


def labels(runs: Sequence[Run]) -> list[str]:
    """A name per run; only runs that differ in nothing but the seed get names that do."""
    given = [str(run.env.get("label") or run.folder.name) for run in runs]
    names = [plots.family(name) for name in given]
    alike = [(name, {**run.config, "seed": None}) for name, run in zip(names, runs, strict=True)]
    out: list[str] = []
    for run, label, name, one in zip(runs, given, names, alike, strict=True):
        if names.count(name) > 1:
            label = name if names.count(name) == alike.count(one) else f"{name} ({run.folder.name[-8:]})"
            label += f", seed {run.env.get('seed', run.config.get('seed', 'unknown'))}"
        out.append(label if label not in out else f"{label} ({run.folder})")
    return out


def view(run: Run, label: str, room: int, index: int = 1) -> Plain:
    """All that the page says about a run; `room` is how many matrix entries its slider may carry.

    `index` tells its anchors from those of other runs.
    """
    pair = _pair(run)
    best, last = (pair["best"], pair["last"]) if pair else ({}, {})
    K = max(len(s.get("C") or s.get("classwise_robust") or ()) for s in (best, *run.rows))
    names = [str(n) for n in run.env.get("class_names") or ()]
    names = names if len(names) == K else [f"class {i}" for i in range(K)]
    train = dict(plots.points(run.rows, "train_robust"))
    files = [run.folder / name for name in FILES if (run.folder / name).exists()]
    shown = {
        **run._asdict(),
        "index": index,
        "label": label,
        "names": names,
        "pair": pair,
        "history": (told := _history(run, K)) + _failure(run),
        "alarms": _warnings(run, bool(told)),
    }
    shown |= {"finding": pair and finding(pair, run.done), "fell": pair and _fell(pair)}
    shown["certainty"] = pair and certainty(paired(run.comparisons, pair))
    shown["train"] = [train.get(side.get("epoch", 0)) for side in (best, last)]
    shown["seconds"] = [sum(r.get(k) or 0 for r in run.rows) for k in ("seconds", "check_seconds")]
    shown["largest"] = max(run.rows, key=lambda r: -1 if r.get("cas") is None else r["cas"])
    shown["explorer"] = _explorer(run, names, pair, room)
    shown |= {"classes": _classes(names, best, last), "pairs": _pairs(names, best, last)}
    shown["comparisons"] = [
        comparison(c, run.measures, run.folder, f"run-{index}-{i}") for i, c in enumerate(run.comparisons, 1)
    ]
    shown["downloads"] = dict(map(download, files))
    return shown | {"figures": _figures(names, best, last) | overlaid([shown])}


def _pair(run: Run) -> Plain | None:
    """Best and last, alike in attack, split and n: as measured at the end, else as checked."""
    groups: dict[str, Plain] = {}
    for m in run.measures:
        alike = json.dumps([m.get(k) for k in ("data", "split", "n", "attack")])
        if m.get("robust") is not None:
            groups.setdefault(alike, {}).setdefault(str(m.get("checkpoint")), m)
    for group in groups.values():
        best = group.get("best.val") or group.get("best.test")
        if best and "last" in group:
            by = best.get("chosen_by") or best["checkpoint"].removeprefix("best.")
            said = {k: best.get(k) for k in ("n", "attack", "conditions")}
            ends = {"best": best, "last": group["last"], "split": best.get("split") or "test"}
            return {**ends, **said, "by": by, "source": "measure.json"}
    tested = [r for r in run.rows if r.get("test_robust") is not None]
    rows = {r["epoch"]: r | {"robust": r["test_robust"], "clean": r.get("test_clean")} for r in tested}
    if (at := plots.chosen(run.rows)) is None or at[0] not in rows:
        return None
    check, sizes = run.config.get("validation") or {}, run.env.get("sizes") or {}
    n = sizes.get("test") and min(sizes["test"], check.get("n") or sizes["test"])
    said = {"split": "test", "n": n, "attack": run.env.get("check"), "conditions": None}
    ends = {"best": rows[at[0]], "last": rows[max(rows)], "by": at[1]}
    return {**ends, **said, "source": "events.jsonl"}


def _history(run: Run, classes: int) -> list[Plain]:
    """Every alarm and note of the observatory with the epochs between which it stood."""
    try:
        found = alarms.history(run.rows, classes, (run.config.get("validation") or {}).get("n"))
    except UserError:  # rows of a stranger's loop that do not say how many images were checked
        return []
    return [{"text": str(a), "level": a.level, "ended": ended} for a, ended in found]


def _failure(run: Run) -> list[Plain]:
    """Why the run stopped in the epoch after its last, if it stopped by itself."""
    if not {"name", "epoch", "evidence"} <= set(run.failure):
        return []
    name, epoch = str(run.failure["name"]).replace("-", " "), run.failure["epoch"]
    text = f"{name} in epoch {epoch}, where training stopped: {run.failure['evidence']}"
    return [{"text": text, "level": "alarm", "ended": None}]


def _warnings(run: Run, told: bool) -> list[Plain]:
    """What else was warned of, and where; the same words with other numbers are one warning.

    Alarms of the observatory are left to `history` where it can tell them.
    """
    found: dict[str, Plain] = {}
    names = {name.replace("-", " ") for name in alarms.RULES} if told else set()
    said = [(f"epoch {r['epoch']}", r.get("warnings")) for r in run.rows]
    said += [(str(m.get("checkpoint")), m.get("warnings")) for m in run.measures]
    for where, texts in said:
        for text in map(str, texts or ()):
            epoch = where.startswith("epoch ")  # a check that says it is collapsed is the alarm of that name
            if re.split(r" (?:since|in) epoch|:" if epoch else r" (?:since|in) epoch", text)[0] in names:
                continue
            alarm = found.setdefault(re.sub(r"[\d.]+", "#", text), {"first": where, "times": 0})
            alarm |= {"text": text, "last": where, "times": alarm["times"] + 1}
    return list(found.values())


def _explorer(run: Run, names: list[str], pair: Plain | None, room: int) -> Plain | None:
    """The data of the epoch slider: matrices in thousandths, half of them where symmetric."""
    rows = [r for r in run.rows if r.get("C")]
    if not rows:
        return None
    step = -(-len(rows) * len(names) ** 2 // (2 * room))  # every how many matrices there is room for
    ends = [pair[k]["epoch"] if pair else None for k in ("best", "last")]
    keys = {"epoch": "epoch", "robust": "test_robust", "cas": "cas", "predicted": "predicted_classes"}
    frames = [
        {"c": _thousandths(r["C"]), **{k: r.get(v) for k, v in keys.items()}}
        for i, r in enumerate(rows)
        if i % step == 0 or r["epoch"] in ends
    ]
    curve = [[r.get(key) for key in keys.values()] for r in run.rows]
    return {"names": names, "frames": frames, "curve": curve, "ends": ends, "step": step}


def _thousandths(C: plots.Matrix) -> list[int | None]:
    whole = [[None if v is None else round(1000 * v) for v in row] for row in C]
    half = all(whole[i][j] == whole[j][i] for i in range(len(C)) for j in range(i))
    return [v for i, row in enumerate(whole) for v in (row[i:] if half else row)]


def _classes(names: list[str], best: Plain, last: Plain) -> list[Plain]:
    """Robust accuracy per class at best and last, the largest loss first."""
    parts = (names, best.get("classwise_robust") or (), last.get("classwise_robust") or ())
    rows = [{"name": n, "best": b, "last": z} for n, b, z in zip(*parts, strict=False)]
    return sorted(rows, key=lambda r: (r["last"] or 0) - (r["best"] or 0))


def _pairs(names: list[str], best: Plain, last: Plain) -> list[Plain]:
    """The most shared pairs of either checkpoint, with C at both."""
    found: dict[tuple[int, int], None] = {}
    ends = [side["C"] for side in (best, last) if side.get("C")]
    for C in ends:
        upper = ((i, j) for i in range(len(C)) for j in range(i + 1, len(C)))
        known = (p for p in upper if (C[p[0]][p[1]] or 0) > 0)
        found |= dict.fromkeys(sorted(known, key=lambda p: -C[p[0]][p[1]])[:PAIRS])
    return [{"a": names[i], "b": names[j], "C": [C[i][j] for C in ends]} for i, j in found]


def overlaid(views: Sequence[Plain]) -> Plain:
    """The same curves for a wide and for a narrow window."""
    rows = {v["label"]: v["rows"] for v in views}
    drops = {v["label"]: v["config"].get("lr_milestones") or () for v in views}
    best = {v["label"]: (v["pair"]["best"]["epoch"], v["pair"]["by"]) for v in views if v["pair"]}
    widths = {"wide": 10.0, "narrow": 4.6}
    return {k: Markup(plots.svg(plots.curves(rows, drops, best, width=w))) for k, w in widths.items()}


def _figures(names: list[str], best: Plain, last: Plain) -> Plain:
    sides = {"best": best, "last": last}
    made = {k: plots.matrix(s["C"], names) for k, s in sides.items() if s.get("C")}
    if len(made) == 2:
        made["difference"] = plots.difference(plots.minus(best["C"], last["C"]), names)
    if counts := best.get("confusion"):
        made["confusion"] = plots.confusion(counts, names)
    if sharing := best.get("sharing"):
        made["truth"] = plots.matrix(sharing, names)
    return {key: Markup(plots.svg(figure)) for key, figure in made.items()}
