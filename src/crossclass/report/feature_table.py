"""What `features` found, as plain lines for a terminal or a pipe."""

from collections.abc import Callable, Iterator

from crossclass.analysis.feature_records import Feature, FeatureFile

CAPTIONS = {
    "forgotten": "forgotten: they added most at {a} that they no longer add at {b}",
    "shared": "shared: they add most to CAS",
    "specific": "specific: of the heavier half of all features, they count for fewest classes",
    "pair": "the pair {pair}: they carry most of its C",
}

ORDER: dict[str, Callable[[Feature], float]] = {
    "forgotten": lambda f: -(f.lost or 0),
    "shared": lambda f: -f.share,
    "specific": lambda f: f.effective_classes,
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
    if file.changed_sign is not None:
        whole = file.cas[0] - file.cas[1]
        yield (
            f"CAS fell by {whole:.2f}: by {whole - file.changed_sign:.2f} in pairs of classes that share at "
            f"both checkpoints (what all features lost), by {file.changed_sign:.2f} in pairs that do at one"
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
    parts = [f"feature {f.k:4}: adds {f.share:+.3f}{span(f.share_interval)} to CAS"]
    if f.share_second is not None and f.lost is not None:
        parts.append(f"then {f.share_second:+.3f}, lost {f.lost:+.3f}{span(f.lost_interval)}")
    if f.pair is not None:
        then = "" if f.pair_second is None else f", then {f.pair_second:+.3f}"
        parts.append(f"{f.pair:+.3f} of the pair{then}")
    parts.append(f"counts for {f.effective_classes:.1f} classes")
    strong = [c for c in f.classes if c.a > 0][:3]
    changes = (f"{c.name} {c.a:.2f}" + ("" if c.b is None else f" -> {c.b:.2f}") for c in strong)
    return "; ".join([*parts, ", ".join(changes)])


def sheet_title(f: Feature) -> str:
    """The head of a feature on the sheet."""
    then = "" if f.share_second is None else f", then {f.share_second:+.2f}"
    of_pair = "" if f.pair is None else f", {f.pair:+.2f} to the pair"
    counts = f"counts for {f.effective_classes:.1f} classes"
    return f"feature {f.k} adds {f.share:+.2f} to CAS{then}{of_pair}; {counts}"


def span(ends: tuple[int | float | None, int | float | None] | None) -> str:
    """An interval behind its number; nothing where there is none."""
    if ends is None or None in ends:
        return ""
    return f" [{ends[0]:.3f}, {ends[1]:.3f}]"
