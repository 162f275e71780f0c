"""What was measured, as plain lines for a terminal or a pipe."""

from collections.abc import Iterator, Sequence
from typing import Any

CAUTION = "CAS says nothing without accuracy: a constant classifier maximises it."


def table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The objects of measure.json in lines: numbers with intervals and conditions, then the comparison."""
    ones = _told_apart([r for r in results if "comparison" not in r])
    width = max([10, *(len(str(r["checkpoint"])) for r in ones)])
    heads = f"{'epoch':>5} {'clean':>7} {'robust':>7} {'CAS':>7} {'I-CAS':>7}  conditions"
    yield f"{'checkpoint':{width}} {heads}"
    for r in ones:
        epoch = "-" if r["epoch"] is None else r["epoch"]
        robust = f"{r['robust']:7.1%}" if r["conditions"].get("attack") else f"{'-':>7}"
        numbers = f"{r['clean']:7.1%} {robust} {r['cas']:7.2f} {r['icas']:7.2f}"
        seen = f"{r['attack']}; {r['n']} {r['split']} images, seed {r['conditions']['seed']}, fp32"
        used = (
            "; attributions of correct ones only"
            if r["conditions"]["attribution_subset"] == "correct"
            else ""
        )
        chosen = f"; chosen on {r['chosen_by']}" if r["chosen_by"] else ""
        yield f"{r['checkpoint']:{width}} {epoch:>5} {numbers}  {seen}{used}{chosen}"
    for r in ones:
        yield from _details(r)
    for r in results:
        if "comparison" in r:
            yield from _comparison(r["comparison"])
    yield CAUTION


def _told_apart(ones: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checkpoints of one name (`last` and `last`) get the name of their run behind it."""
    runs: dict[str, set[str]] = {}
    for r in ones:
        runs.setdefault(r["checkpoint"], set()).add(r["run"])
    same = {name for name, where in runs.items() if len(where) > 1}
    return [
        {**r, "checkpoint": f"{r['checkpoint']} of {r['run']}"} if r["checkpoint"] in same else r
        for r in ones
    ]


def _details(r: dict[str, Any]) -> Iterator[str]:
    name = r["checkpoint"]
    if r["loaded"]:
        yield f"{name}: {r['model']}; " + "; ".join(r["loaded"])
    if r["intervals"]:
        i = r["intervals"]
        parts = [f"robust {_percent(i['robust'])}", f"CAS {_span(i['cas'])}", f"I-CAS {_span(i['icas'])}"]
        yield f"{i['level']:.0%} intervals, {name}: {', '.join(parts)}"
    k = len(r["C"])
    yield (
        f"CAS as a share of its maximum {k * (k - 1)}, {name}: {r['cas_normalised']:.3f} "
        f"(I-CAS {r['icas_normalised']:.3f}); negative mass {r['negative_mass']:.2f}"
    )
    if r["sharing_confusion"] is not None:
        yield f"rank correlation of sharing and confusion, {name}: {r['sharing_confusion']:+.2f}"
    shared = ", ".join(f"{a}-{b} {p['C']:.2f}" for p in r["pairs"][:4] for a, b in [p["classes"]])
    yield f"most shared, {name}: {shared}"
    if r.get("truth", {}).get("auc") is not None:
        yield f"planted pairs against the others, {name}: AUC {r['truth']['auc']:.2f}"
    for warning in r["warnings"]:
        yield f"warning, {name}: {warning}"


def _comparison(c: dict[str, Any]) -> Iterator[str]:
    yield f"{c['a']} minus {c['b']}, {c['attack']}:"
    i = c["intervals"] or {}
    for key, name in (
        ("robust", "robust accuracy"),
        ("cas", "CAS"),
        ("icas", "I-CAS"),
        ("clean", "clean accuracy"),
    ):
        a, b = c[key]
        ends = i.get(f"d_{key}")
        points = key in ("robust", "clean")
        change = f"{100 * c[f'd_{key}']:+.1f} points" if points else f"{c[f'd_{key}']:+.2f}"
        span = "" if ends is None else f" {_percent(ends) if points else _span(ends)}"
        values = f"{a:.1%} to {b:.1%}" if points else f"{a:.2f} to {b:.2f}"
        yield f"  {name}: {change}{span} ({values})"
    pairs = ", ".join(f"{p['classes'][0]}-{p['classes'][1]} {p['change']:+.2f}" for p in c["pairs"][:4])
    yield f"  pairs that changed most: {pairs}"
    classes = ", ".join(f"{r['class']} {100 * r['change']:+.1f}" for r in c["classes"][:4])
    yield f"  classes whose robust accuracy changed most (points): {classes}"
    if s := c.get("saliency"):
        area = s["half_mass_area"]
        share = f"{area['a']:.1%} of the image, against {area['b']:.1%}"
        rest = s["all_images"]
        every = f"on all {rest['n']} images {_percent(rest['half_mass_area']['interval'])}"
        yield (
            f"  Grad-CAM on {s['n']} {s['at']} right at {c['a']} and wrong at {c['b']}: half of a map lies "
            f"on {share}; difference {_percent(area['interval'])} points; {every} (choosing images favours "
            f"{c['a']})"
        )


def _span(ends: Sequence[float]) -> str:
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]"


def _percent(ends: Sequence[float]) -> str:
    return f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
