"""What `ablate` found, as plain lines for a terminal or a pipe."""

from collections.abc import Iterator

from crossclass.analysis.ablation_records import AblatedCheckpoint, AblationFile, Lost, Matched, Transplant

MATCHED = {"mass": "attribution mass removed", "clean": "clean accuracy lost"}
FOUND = {
    "less": "shared features are less necessary than specific ones",
    "more": "shared features are more necessary than specific ones",
    "not decided": "whether shared or specific features are more necessary is not decided",
}


def ablation_table(file: AblationFile) -> Iterator[str]:
    """Warnings first, then a table for each checkpoint, then the transplants."""
    yield f"calibration: {file.calibration}"
    for warning in file.warnings:
        yield f"warning: {warning}"
    seed = file.conditions.get("seed")
    yield (
        f"{file.attack}, through the network without the features; {file.data.n} {file.data.split} images, "
        f"seed {seed}, fp32; lost are points of robust accuracy, with 95 % intervals"
    )
    for one in file.checkpoints:
        yield from _checkpoint(one, file.draws)
    if file.transplants:
        yield "components of one checkpoint put into another, matched in attribution mass: robust accuracy"
        yield from (f"  {_transplant(t)}" for t in file.transplants)


def _checkpoint(one: AblatedCheckpoint, draws: int) -> Iterator[str]:
    yield (
        f"{one.checkpoint.title}: clean accuracy {one.clean:.1%}, robust {one.robust:.1%}; {one.width} "
        f"features, {one.dead} of them add nothing to any class"
    )
    names = ("shared", "specific", f"random, {draws} draws", "shared - specific")
    header = "  ".join([" " * 12, *(f"{name:>22}" for name in names)])
    for by, words in MATCHED.items():
        rows = [m for m in one.matched if m.by == by]
        if rows:
            yield f"  equal {words}:"
            yield f"  {header}"
            yield from (f"  {_row(m)}" for m in rows)
        for s in one.summaries:
            if s.by == by:
                yield (
                    f"  on average {points(s.shared_minus_specific)} points for shared minus specific "
                    f"features: at equal {words} {FOUND[s.finding]}"
                )


def _row(m: Matched) -> str:
    cells = [points(m.robust_lost[s]) for s in ("shared", "specific", "random")]
    cells.append(points(m.shared_minus_specific))
    return "  ".join([f"{m.level:>12.1%}", *(f"{c:>22}" for c in cells)])


def _transplant(t: Transplant) -> str:
    sorts = ", ".join(f"{s} {v:.1%}" for s, v in t.robust.items())
    low, high = t.random_range
    return (
        f"{t.mass:.0%} of {t.donor} into {t.recipient}: {sorts} ({low:.1%} to {high:.1%}); shared - specific "
        f"{points(t.shared_minus_specific)}"
    )


def points(lost: Lost) -> str:
    """Percentage points with their interval."""
    low, high = (f"{100 * v:.1f}" if v is not None else "?" for v in lost.interval)
    return f"{100 * lost.value + 0.0:+.1f} [{low}, {high}]"
