"""A model, a split and an attack in; plain numbers with their conditions and intervals out.

One adversarial pass serves every number: accuracy, confusion, C, CAS, I-CAS, and what is resampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from crossclass import models
from crossclass.analysis import attribution, compare, evaluate, instances, intervals
from crossclass.attacks import AnyAttack, reference_attack
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.load import LoadedCheckpoint, subjects
from crossclass.core.config import Settings, override
from crossclass.core.errors import UserError
from crossclass.core.progress import Progress, silent
from crossclass.core.runtime import Runtime
from crossclass.core.trust import trusting
from crossclass.data import Splits


class Measure(Settings):
    """What `measure` may be told; unset values are the run's own."""

    attack: AnyAttack | None = None
    """Unset: PGD-20 at the eps the run was trained with, and at 8/255 too where that differs."""
    clean: bool = False
    """Measure on clean images only (`attack=none`)."""
    attribution_subset: Literal["all", "correct"] = "all"
    """Attributions of all (adversarial) images, as in the paper, or of those still classified rightly."""
    split: str = "test"
    n: int | None = Field(None, ge=1)
    """The first n images of the split; unset is all."""
    seed: int = Field(0, ge=0)
    batch: int = Field(250, ge=1)
    saliency: int = Field(0, ge=0, le=48)
    """Samples in the grid of Grad-CAM maps of two checkpoints; 0 draws none."""


def evaluate_checkpoint(
    model: models.Classifier,
    splits: Splits,
    attack: AnyAttack | None,
    settings: Measure,
    runtime: Runtime,
    progress: Progress = silent,
) -> compare.EvaluationPass:
    """The one pass over the images that every number comes from."""
    part, done = splits.part(settings.split).first(settings.n), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count * runtime.processes  # the others do as much
        progress("measure", min(done, len(part)), len(part))

    seen = evaluate.evaluate(
        model,
        part,
        attack,
        settings.seed,
        batch=settings.batch,
        memory_format=runtime.memory_format,
        advance=advance,
        keep_images=settings.saliency > 0,
        distributed_map=runtime.distributed_map,
    )
    if settings.attribution_subset == "correct":
        seen = seen.among_correct()
    g, y = seen.attributed()
    return compare.EvaluationPass(seen, instances.nearest(g, seen.W, y))


def to_record(
    seen: compare.EvaluationPass, splits: Splits, attack: AnyAttack | None, settings: Measure
) -> dict[str, Any]:
    """One object of the JSON file: the numbers of one model under one attack, and their conditions."""
    e = seen.evaluation
    said: dict[str, Any] = attack.to_dict() if attack is not None else {}
    threat = said.get("threat") or {}
    conditions = {
        "attack": said or None,
        "eps": threat.get("eps", 0),
        "steps": said.get("steps", 1 if said["kind"] == "fgsm" else None) if said else 0,
        "seed": settings.seed,
        "n": len(e.labels),
        "split": settings.split,
        "precision": "fp32",
        "batch": settings.batch,
        "attribution_subset": settings.attribution_subset,
    }
    k = len(e.W)
    g, y = e.attributed()
    icas_matrix = instances.instance_correlation(seen.nearest, y)
    all_pairs = instances.all_pairs(g, e.W, y)
    icas = attribution.cas(icas_matrix)
    found = evaluate.summary(e, splits.class_names, splits.sharing)
    if said.get("return_iterate", "last") != "last":
        found["warnings"].append(
            f"C and CAS are of the {said['return_iterate']} iterates, not of the last as in the paper; compare them "
            "with their like only"
        )
    return {
        "split": settings.split,
        "n": len(e.labels),
        "attack": str(attack) if attack is not None else "none (clean images)",
        "conditions": conditions,
        "class_names": list(splits.class_names),
        **found,
        "icas": icas,
        "icas_normalised": icas / (k * (k - 1)),
        "icas_matrix": evaluate.rounded(icas_matrix),
        "all_pairs_cas": attribution.cas(all_pairs),
        "all_pairs_matrix": evaluate.rounded(all_pairs),
        "intervals": _intervals(seen),
    }


def _intervals(seen: compare.EvaluationPass) -> dict[str, Any]:
    e = seen.evaluation
    g, y = e.attributed()
    found = {
        "clean": intervals.accuracy(e.clean == e.labels, e.labels),
        "robust": intervals.accuracy(e.robust == e.labels, e.labels),
        "cas": intervals.cas(g, e.W, y),
        "icas": intervals.icas(seen.nearest, y),
    }
    ends: dict[str, Any] = {name: [i.low, i.high] for name, i in found.items()}
    ends["bias"] = {name: found[name].bias for name in ("cas", "icas")}
    return {**ends, "level": found["cas"].level, "method": intervals.METHOD}


@dataclass(frozen=True)
class _One:
    """What is kept of a measured checkpoint until it has been compared."""

    subject: LoadedCheckpoint
    attack: AnyAttack | None
    seen: compare.EvaluationPass
    result: dict[str, Any]


def measure(
    targets: Sequence[str],
    changes: Sequence[str] = (),
    runtime: Runtime | None = None,
    progress: Progress = silent,
    *,
    trust: bool = False,
    allow_partial: bool = False,
    grid: Path | None = None,
) -> list[dict[str, Any]]:
    """Measure run folders, checkpoints of ours or anyone's files; one object each, and what differs.

    `changes` are `path=value` texts: `data.*` and `model*` say where images and networks come from, the
    others are `Measure`'s. Two checkpoints on the same images are compared, first minus second; with
    `saliency=N` the grid of their maps is written to `grid`. `trust` reads pickles and imports code that
    files name. Raises UserError.
    """
    runtime = runtime or Runtime()
    own = [_clean(c) for c in changes if not _of_source(c)]
    settings = _settings(own)
    source = [c for c in changes if _of_source(c)]
    ones: list[_One] = []
    with trusting(everything=trust):
        for subject in subjects(targets, source, runtime, allow_partial=allow_partial):
            for attack in _attacks(settings, own, subject):
                seen = evaluate_checkpoint(subject.model, subject.splits, attack, settings, runtime, progress)
                found = to_record(seen, subject.splits, attack, settings)
                ones.append(_One(subject, attack, seen, {**subject.about, **found}))
    results = [one.result for one in ones]
    if settings.saliency and not _comparable(ones):
        raise UserError(
            "saliency compares two checkpoints on the same images; give two, or a run with best and last"
        )
    for a, b in _comparable(ones):  # the grid is a file, and the first process writes it
        compared = runtime.on_main_process(lambda: _compared(a, b, settings, grid))  # noqa: B023
        results.append({"comparison": compared})
    return results


def _comparable(ones: Sequence[_One]) -> list[tuple[_One, _One]]:
    """The two checkpoints under each attack that both were measured with."""
    alike: dict[str, list[_One]] = {}
    for one in ones:
        alike.setdefault(f"{one.result['attack']} {one.subject.splits.checksum}", []).append(one)
    pairs = [(pair[0], pair[1]) for pair in alike.values() if len(pair) == 2]
    return [(a, b) for a, b in pairs if not _same(a.subject.about, b.subject.about)]


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Best and last of a run may be one checkpoint, which differs in nothing from itself."""
    return bool(a["run"]) and (a["run"], a["epoch"]) == (b["run"], b["epoch"])


def _compared(a: _One, b: _One, settings: Measure, grid: Path | None) -> dict[str, Any]:
    names = a.subject.splits.class_names
    same = a.subject.about["run"] == b.subject.about["run"] and a.subject.about["run"]
    labels = [one.subject.file if same else one.subject.name for one in (a, b)]
    labels[1] += " (2)" if labels[0] == labels[1] else ""
    keys = ("attack", "n", "split", "conditions")
    found = {
        "a": labels[0],
        "b": labels[1],
        "of": [{k: one.subject.about[k] for k in ("checkpoint", "run", "epoch")} for one in (a, b)],
        **{k: a.result[k] for k in keys},
        **compare.comparison(a.seen, b.seen, names),
        "saliency": None,
    }
    if settings.saliency and grid is not None:
        part = a.subject.splits.part(settings.split).first(settings.n)
        pair = [(label, one.subject.model, one.seen) for label, one in zip(labels, (a, b), strict=True)]
        at = "clean images" if a.attack is None else "adversarial images"
        found["saliency"] = compare.saliency_between(
            pair[0], pair[1], part, names, settings.saliency, at, grid
        )
    return found


def _of_source(change: str) -> bool:
    return change.partition("=")[0].strip().split(".")[0] in ("data", "model")


def _clean(change: str) -> str:
    return "clean=true" if change.replace(" ", "") == "attack=none" else change


def _settings(changes: Sequence[str]) -> Measure:
    below = any(c.startswith("attack.") and not c.startswith("attack.kind=") for c in changes)
    start = Measure(attack=reference_attack(Linf())) if below else Measure()
    return override(start, changes)


def _attacks(settings: Measure, changes: Sequence[str], subject: LoadedCheckpoint) -> list[AnyAttack | None]:
    if settings.clean:
        return [None]
    if settings.attack is None:
        return [reference_attack(threat) for threat in subject.threats]
    if any(c.startswith(("attack=", "attack.kind=")) for c in changes):
        eps_given = any("threat" in c or c.startswith("attack={") for c in changes)
        return [settings.attack if eps_given else settings.attack.replace(threat=subject.threats[0])]
    # the reference attack of the ball that is asked for, whose step is its own; then what else is changed
    ball = [c for c in changes if c.startswith("attack.threat")]
    usual = override(Measure(attack=reference_attack(subject.threats[0])), ball).attack
    assert usual is not None
    return [override(Measure(attack=reference_attack(usual.threat)), changes).attack]
