"""The conditions of a run, and how they differ from those of an anchor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossclass.core.config import flat
from crossclass.paper.published_curves.curves import Anchor

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Conditions:
    """The conditions of a run that is compared; None is unknown, and reported as unknown."""

    epochs: int | None = None
    """Epochs of the whole schedule; None takes the last logged epoch."""
    lr_milestones: tuple[int, ...] | None = None
    """Epochs after which the learning rate falls; None takes the anchor's, at equal length."""
    tested: str | None = None
    """The attack behind test_robust, such as `PGD-20, l_inf 8/255, ...`."""
    n: int | None = None
    """Number of test images."""
    config: Mapping[str, Any] | None = None
    """The contents of config.yaml."""


def conditions(
    config: Mapping[str, Any], rows: Sequence[Row], env: Mapping[str, Any] | None = None
) -> Conditions:
    """The conditions of a run folder, from the contents of its config.yaml, events.jsonl and env.json."""
    checked: Row = next((r for r in reversed(rows) if r.get("test_robust") is not None), {})
    env, check = env or {}, config.get("validation") or {}
    sizes = ((env.get("sizes") or {}).get("test"), check.get("n"))
    n = checked.get("test_n") or (min(v for v in sizes if v) if sizes[0] else None)
    tested = checked.get("watched_attack") or str(env.get("check") or "").partition(", judged")[0] or None
    milestones = (
        tuple(config.get("lr_milestones") or ()) if config.get("schedule", "steps") == "steps" else ()
    )
    return Conditions(config.get("epochs"), milestones, tested, n, config)


def differing(run: Conditions, anchor: Anchor) -> Iterator[str]:
    """One sentence for each condition that is not the anchor's, or not known."""
    if run.tested is None:
        yield f"test attack: not recorded here, {anchor.test} in the anchor"
    elif any(a != b for a, b in zip(run.tested.split(", "), anchor.test.split(", "), strict=False)):
        yield f"test attack: {run.tested} here, {anchor.test} in the anchor"
    if run.n is None:
        yield f"test images: not recorded here (the run's noise is left out), {anchor.n:,} in the anchor"
    elif run.n != anchor.n:
        yield f"test images: {run.n:,} here, {anchor.n:,} in the anchor"
    if run.config is None:
        yield "settings: not given, so they could not be compared"
        return
    recipe = run.config.get("recipe") or {}
    here = flat({**run.config, "attack": _attack(recipe)})
    for path, wanted in flat(anchor.settings()).items():
        if (value := here.get(path)) != wanted:
            name = path.replace("attack.", "recipe.attack.")
            yield f"{name}: {_text(value)} here, {_text(wanted)} in the anchor"


def _attack(recipe: Mapping[str, Any]) -> Any:
    """The attack in a stored recipe, also of a recipe inside it."""
    inner = [value for value in recipe.values() if isinstance(value, Mapping)]
    return recipe.get("attack") or next((attack for r in inner if (attack := _attack(r))), None)


def _text(value: Any) -> str:
    return "unset" if value is None else str(value)
