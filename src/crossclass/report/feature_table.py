"""What `features` found, as plain lines for a terminal or a pipe."""

from collections.abc import Callable, Iterator

from crossclass.analysis.feature_records import Feature, FeatureFile

CAPTIONS = {
    "forgotten": "forgotten: what they add to CAS fell most from {a} to {b}",
    "shared": "shared: they add most to CAS",
    "specific": "specific: of the heavier half of all features, they count for fewest classes",
    "pair forgotten": "forgotten of the pair {pair}: what they carry of its C fell most from {a} to {b}",
    "pair": "the pair {pair}: they carry most of its C at {a}",
}

ORDER: dict[str, Callable[[Feature], float]] = {
    "forgotten": lambda f: -(f.lost or 0),
    "shared": lambda f: -f.share,
    "specific": lambda f: f.effective_classes,
    "pair forgotten": lambda f: (f.pair_second or 0) - (f.pair or 0),
    "pair": lambda f: -(f.pair or 0),
}


def feature_table(file: FeatureFile) -> Iterator[str]:
    """Warnings first, then the checkpoints, then the features of each sort."""
    for warning in file.warnings:
        yield f"warning: {warning}"
    yield f"{file.attack}; {file.data.n} {file.data.split} images, seed {file.conditions.get('seed')}, fp32"
    for at, cas, robust in zip(file.checkpoints, file.cas, file.robust, strict=True):
        yield f"{at.title}: CAS {cas:.2f}, robust accuracy {robust:.1%}"
    yield (
        f"{file.width} features: {file.dead} add nothing to any class, {file.half} carry half of what is "
        "shared"
    )
    if (on := file.planted) is not None:
        none = file.width - on.pure - on.mixed - on.dead
        yield (
            f"planted parts: {on.pure} features find one (pure), {on.mixed} several (mixed), {none} none, "
            f"{on.dead} are dead; {on.parts_found} of {on.parts} parts have a pure feature"
        )
    if file.changed_sign is not None:
        whole, rest = round(file.cas[0] - file.cas[1], 2), round(file.changed_sign, 2)
        yield (
            f"of the difference of {signed(whole)}, {signed(whole - rest)} is the sum of what features lost, "
            f"over pairs of classes that share at both checkpoints; {signed(rest)} is of pairs that share at "
            "only one of them"
        )
    names = [c.name for c in file.checkpoints]
    words = {"a": names[0], "b": names[-1], "pair": " and ".join(file.pair or ())}
    for why, caption in CAPTIONS.items():
        some = sorted((f for f in file.features if why in f.why), key=ORDER[why])
        if some:
            yield caption.format(**words)
            yield from (f"  {line(f)}" for f in some)


def line(f: Feature) -> str:
    """One feature in one line."""
    parts = [f"feature {f.k:4}: adds {signed(f.share, 3)}{span(f.share_interval)} to CAS"]
    if f.share_second is not None and f.lost is not None:
        lost = f"{signed(f.lost, 3)}{span(f.lost_interval)}"
        parts.append(f"then {signed(f.share_second, 3)}, lost {lost}")
    if f.pair is not None:
        then = "" if f.pair_second is None else f", then {signed(f.pair_second, 3)}"
        parts.append(f"{signed(f.pair, 3)} of the pair{then}")
    parts.append(f"counts for {f.effective_classes:.1f} classes")
    if f.parts:
        parts.append(found(f))
    strong = [c for c in f.classes if c.a > 0][:3]
    changes = (f"{c.name} {c.a:.2f}" + ("" if c.b is None else f" -> {c.b:.2f}") for c in strong)
    return "; ".join([*parts, ", ".join(changes)])


def found(f: Feature, most: int = 3) -> str:
    """The planted parts that a feature finds, each by the classes that show it; small shares are left out."""
    some = []
    for p in f.parts[:most]:
        if p is f.parts[0] or p.share >= 0.1:
            own = "the own part" if len(p.classes) == 1 else "the part"
            less = ", less of it" * (p.response < 0)
            some.append(f"{own} of {' and '.join(p.classes)} ({p.share:.0%}{less})")
    return f"finds {', '.join(some)}"


def sheet_head(file: FeatureFile) -> str:
    """What stands on top of the sheet."""
    what = " and ".join(at.title for at in file.checkpoints)
    each = "" if len(file.checkpoints) == 1 else ", at each checkpoint"
    return (
        f"{what}: {file.data.n} images, {file.attack}\nBelow each image: what the feature adds to the "
        f"logit of the image's class{each}. The maps of one feature are on one scale."
    )


def sheet_title(f: Feature) -> str:
    """The head of a feature on the sheet."""
    then = "" if f.share_second is None else f", then {signed(f.share_second)}"
    of_pair = "" if f.pair is None else f", {signed(f.pair)} to the pair"
    of_pair += "" if f.pair_second is None else f", then {signed(f.pair_second)}"
    counts = f"counts for {f.effective_classes:.1f} classes"
    parts = f"; {found(f, 1)}" if f.parts else ""
    return f"{f.why[0]}: feature {f.k} adds {signed(f.share)} to CAS{then}{of_pair}; {counts}{parts}"


def signed(value: float, digits: int = 2) -> str:
    """The number with its sign, and without one where it is printed as zero."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def span(ends: tuple[int | float | None, int | float | None] | None) -> str:
    """An interval behind its number; nothing where there is none."""
    if ends is None or None in ends:
        return ""
    return f" [{ends[0]:.3f}, {ends[1]:.3f}]"
