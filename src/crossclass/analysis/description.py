"""What a measurement is of, and under which conditions: its record before there are numbers."""

from typing import TYPE_CHECKING, Any

from crossclass.analysis import evaluate
from crossclass.analysis.label_warnings import label_warnings
from crossclass.analysis.records import CheckpointRef, DataRef, Measurement

if TYPE_CHECKING:
    from crossclass.analysis.evaluate import EvaluationPass
    from crossclass.analysis.measure import Measure
    from crossclass.analysis.settle_inputs import Settled
    from crossclass.attacks import AnyAttack
    from crossclass.checkpoints.load import Identity
    from crossclass.data import Splits


def conditions(attack: "AnyAttack | None", settings: "Measure", n: int) -> dict[str, Any]:
    """Everything besides weights and images that a measurement depends on."""
    plain: dict[str, Any] = attack.to_dict() if attack is not None else {}
    steps = plain.get("steps", 1 if plain["kind"] == "fgsm" else None) if plain else 0
    return {
        "attack": plain or None,
        "eps": (plain.get("threat") or {}).get("eps", 0),
        "steps": steps,
        "seed": settings.seed,
        "n": n,
        # true in older files, in which classes gave equally many
        "drawn": "class shares" if settings.n is not None and settings.balanced else False,
        "split": settings.split,
        "precision": "fp32",
        "batch": settings.batch,
        "attribution_subset": settings.attribution_subset,
    }


def description(
    evaluation: "EvaluationPass",
    who: "Identity",
    splits: "Splits",
    attack: "AnyAttack | None",
    settings: "Measure",
    fed: "Settled | None" = None,
) -> Measurement:
    """The record of one checkpoint under one attack without numbers: what was measured, how, and warnings.

    `fed` says how a network is fed whose inputs were guessed.
    """
    n = len(evaluation.labels)
    how = conditions(attack, settings, n)
    if who.published is not None:
        how["published"] = who.published
    of_labels = label_warnings(evaluation.clean, evaluation.labels, splits.class_names)
    told = [*(fed.warnings if fed else ()), *of_labels, *splits.left_out_of(settings.split)]
    told += [*evaluation.warnings, *evaluate.warnings(evaluation, splits.class_names)]
    kept = (how["attack"] or {}).get("return_iterate", "last")
    if kept != "last":
        told.append(
            f"C and CAS are of the {kept} iterates, not of the last as in the paper; compare them "
            "with their like only"
        )
    return Measurement(
        warnings=told,
        checkpoint=CheckpointRef(
            name=who.checkpoint,
            sha256=who.sha256,
            source=who.source,
            run=who.run,
            epoch=who.epoch,
            chosen_by=who.chosen_by,
        ),
        data=DataRef(name=who.data, checksum=splits.checksum, n=n, split=settings.split),
        model=who.model,
        normalise=who.normalise,
        loaded=who.loaded,
        inputs=fed.check if fed else None,
        head=evaluation.head,
        attack=str(attack) if attack is not None else "none (clean images)",
        conditions=how,
        class_names=list(splits.class_names),
    )
