"""In which settings runs differ, under names as short as they can be."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from crossclass.core.config import flat

ABSENT = object()
"""Stands for a setting that a run does not have."""
_ALWAYS = ("eps", "steps", "threat")
_CONTENT = ("checksum", "fingerprint", "run_digest")
"""Settings that say what a file holds; that another one was read is said with the numbers."""


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by path. The kind of a part stands under the part itself: `recipe` for `recipe.kind`."""
    return {path.removesuffix(".kind"): value for path, value in flat(config).items()}


def is_pooled(path: str, pool: Collection[str]) -> bool:
    """Whether runs that differ in this setting are replicates; `pool` holds paths or last words of paths.

    `seed` is the run's own: another seed, such as `data.seed`, is given by its path.
    """
    leaf = path.rpartition(".")[2]
    return path in pool or (leaf in pool and leaf != "seed")


def differing(runs: Sequence[Mapping[str, Any]], pool: Collection[str] = ()) -> dict[str, list[str]]:
    """The settings in which runs differ.

    Args:
        runs: The settings of each run, as `settings_of` gives them.
        pool: Settings that do not count, by path or by the last word of it.

    Returns:
        For each short name the paths it stands for, of which a run has one or several of the same value.
        A setting that is the same in all runs of one kind, as the start of an attack in all runs of
        `recipe=trades`, is left out: the kind is named already. What the ball is and how many steps are taken
        is always named.
    """
    runs = with_parts(runs)
    paths = []
    for path in dict.fromkeys(path for run in runs for path in run):
        known = [run[path] for run in runs if path in run]
        if path.rpartition(".")[2] not in _CONTENT and not is_pooled(path, pool):
            paths += [path] * any(value != known[0] for value in known)
    by_leaf: dict[str, list[str]] = {}
    for path in [
        path for path in paths if not _follows(path, paths, runs)
    ]:  # a seed alone would be the run's
        by_leaf.setdefault(_shortened(path, 2 if path.endswith(".seed") else 1), []).append(path)
    out: dict[str, list[str]] = {}
    for name, several in by_leaf.items():
        if all(_agree(run, several) for run in runs):
            out[name] = several
            continue
        for path in several:  # the shortest ends that tell them apart
            size = next(n for n in range(1, 99) if sum(_ends(p, path, n) for p in several) == 1)
            out[_shortened(path, size)] = [path]
    return out


def _follows(path: str, paths: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a differing part that the setting is of tells its value in every run."""
    if path.rpartition(".")[2] in _ALWAYS:
        return False
    above = [part for part in paths if path.startswith(f"{part}.")]
    values: dict[str, set[str]] = {}
    for run in runs:
        if path in run:
            values.setdefault("|".join(words(run.get(part, ABSENT)) for part in above), set()).add(
                words(run[path])
            )
    return bool(above) and all(len(v) == 1 for v in values.values())


def with_parts(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings, with one text for a part that some runs have and others leave out (`augment`)."""
    out = [dict(run) for run in runs]
    for part in dict.fromkeys(path for run in runs for path, value in run.items() if value is None):
        for run in out:
            inside = {p: v for p, v in run.items() if p.startswith(f"{part}.")}
            if part not in run and inside:
                run[part] = ", ".join(f"{p.removeprefix(f'{part}.')} {words(v)}" for p, v in inside.items())
    return out


def value_of(run: Mapping[str, Any], paths: Sequence[str]) -> Any:
    """The value of a setting that `differing` has named; `ABSENT` where the run has none of its paths."""
    return next((run[path] for path in paths if path in run), ABSENT)


def words(value: Any) -> str:
    """A value of a setting as it is printed."""
    if value is None or value is ABSENT:
        return "" if value is ABSENT else "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(words, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{k} {words(v)}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _agree(run: Mapping[str, Any], paths: Sequence[str]) -> bool:
    known = [run[path] for path in paths if path in run]
    return all(value == known[0] for value in known)


def _ends(path: str, like: str, parts: int) -> bool:
    return path.split(".")[-parts:] == like.split(".")[-parts:]


def _shortened(path: str, parts: int) -> str:
    """The last words of a path; the kind of a ball is its norm, as on the command line."""
    words = path.split(".")[-parts:]
    return ".".join(["norm" if word == "threat" else word for word in words[-1:]] if parts == 1 else words)
