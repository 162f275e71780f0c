"""What was measured, as plain lines for a terminal or a pipe."""

from collections import Counter
from collections.abc import Iterator

from crossclass.analysis.metrics import METRICS, metric
from crossclass.analysis.records import Comparison, Measurement, ResultFile

CAUTION = "CAS says nothing without accuracy: a constant classifier maximises it."


def table(file: ResultFile) -> Iterator[str]:
    """A result file in lines: warnings first, numbers with intervals and conditions, then the comparisons."""
    names = _names(file.results)
    for name, r in zip(names, file.results, strict=True):
        for warning in r.warnings:
            yield f"warning, {name}: {warning}"
    width = max([10, *map(len, names)])
    columns = [m for m in METRICS if m.headline]
    heads = " ".join(f"{m.label.removesuffix(' accuracy'):>7}" for m in columns)
    yield f"{'checkpoint':{width}} {'epoch':>5} {heads}  conditions"
    for name, r in zip(names, file.results, strict=True):
        epoch = "-" if r.checkpoint.epoch is None else r.checkpoint.epoch
        shown = {**r.metrics, **({} if r.attacked else {"robust": None})}
        numbers = " ".join(f"{m.text(shown.get(m.key)):>7}" for m in columns)
        yield f"{name:{width}} {epoch:>5} {numbers}  {_conditions(r)}"
    for name, r in zip(names, file.results, strict=True):
        yield from _details(name, r)
    for c in file.comparisons:
        yield from _comparison(c)
    yield CAUTION


def _names(results: list[Measurement]) -> list[str]:
    """The checkpoint of each; where two runs have one of that name, with its run."""
    pairs = {(r.checkpoint.name, r.checkpoint.run) for r in results}
    often = Counter(name for name, _ in pairs)
    return [r.checkpoint.title if often[r.checkpoint.name] > 1 else r.checkpoint.name for r in results]


def _conditions(r: Measurement) -> str:
    out = f"{r.attack}; {r.data.n} {r.data.split} images, seed {r.conditions.get('seed')}, fp32"
    if r.conditions.get("attribution_subset") == "correct":
        out += "; attributions of correct ones only"
    return out + (f"; chosen on {r.checkpoint.chosen_by}" if r.checkpoint.chosen_by else "")


def _details(name: str, r: Measurement) -> Iterator[str]:
    if r.loaded:
        yield f"{name}: {r.model}; " + "; ".join(r.loaded)
    if r.intervals:
        ends = {m: m.span(r.intervals.ends(m.key)) for m in METRICS if m.key != "clean" or not r.attacked}
        parts = [
            f"{m.label} {span}" for m, span in ends.items() if span and (m.key != "robust" or r.attacked)
        ]
        yield f"{r.intervals.level:.0%} intervals, {name}: {', '.join(parts)}"
    others = [
        f"{m.label} {m.text(v)}"
        for m in METRICS
        if (v := r.metrics.get(m.key)) is not None and not m.headline
    ]
    yield f"further numbers, {name}: {', '.join(others)}"
    shared = ", ".join(f"{p.classes[0]}-{p.classes[1]} {p.C:.2f}" for p in r.pairs[:4])
    yield f"most shared, {name}: {shared}"


def _comparison(c: Comparison) -> Iterator[str]:
    yield f"{c.a} minus {c.b}, {c.attack}:"
    for m in METRICS:
        both, change = c.metrics.get(m.key), c.metrics.get(f"d_{m.key}")
        if both is None or change is None:
            continue
        span = m.span(c.intervals.ends(f"d_{m.key}")) if c.intervals else ""
        text = f"{100 * change:+.1f} points" if m.unit == "accuracy" else m.text(change, signed=True)
        yield f"  {m.label}: {text} {span}{' ' * bool(span)}({m.text(both[0])} to {m.text(both[1])})"
    pairs = ", ".join(f"{p.classes[0]}-{p.classes[1]} {p.change:+.2f}" for p in c.pairs[:4])
    yield f"  pairs that changed most: {pairs}"
    classes = ", ".join(f"{r.name} {100 * r.change:+.1f}" for r in c.classes[:4])
    yield f"  classes whose robust accuracy changed most (points): {classes}"
    if c.saliency:
        s, accuracy = c.saliency.to_dict(), metric("robust")
        area, rest = s["half_mass_area"], s["all_images"]
        share = f"{area['a']:.1%} of the image, against {area['b']:.1%}"
        every = f"on all {rest['n']} images {accuracy.span(rest['half_mass_area']['interval'])}"
        yield (
            f"  Grad-CAM on {s['n']} {s['at']} right at {c.a} and wrong at {c.b}: half of a map lies "
            f"on {share}; difference {accuracy.span(area['interval'])} points; {every} (choosing images "
            f"favours {c.a})"
        )
