"""What is wrong with this network or checkpoint? Named findings with evidence, each with its remedy.

The checks are a table; each gets the `Probe` and returns findings, `fine` ones included. Network,
surrogate and global random streams are left exactly as they were.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from crossclass.analysis.accuracy_tests import beats
from crossclass.analysis.network_faults import statistics_gap
from crossclass.core.errors import UserError
from crossclass.core.progress import Progress, silent
from crossclass.core.rng import isolated_rng, stream_seed
from crossclass.core.torch_state import usual_torch_state
from crossclass.data import Splits
from crossclass.diagnostics import gradient_masking, inputs, outputs, weights
from crossclass.diagnostics.causes import fold, verdict
from crossclass.diagnostics.findings import FINDINGS, Finding, Level, finding
from crossclass.diagnostics.movable_cas import movable_cas
from crossclass.diagnostics.probe import Doctor, Probe, make_probe, restored
from crossclass.models import Variant
from crossclass.models.base import Classifier, Statistics
from crossclass.models.model_state import in_float32
from crossclass.models.wrapper import closest_head

Check = Callable[[Probe], list[Finding]]

Needs = Callable[[Probe, list[Finding]], str]
"""Why a stage makes no sense yet; empty if it does."""


def _no_fault(name: str, otherwise: str) -> Needs:
    return lambda p, found: otherwise if any(f.name == name and f.level == "fault" for f in found) else ""


def _correct_images(p: Probe, found: list[Finding]) -> str:
    if p.all_logits.shape[1] < p.classes:
        return "there are labels without an output"
    if int(p.correct[: len(p.attack_set[0])].sum()) < min(10, len(p.attack_set[0])):
        return "hardly any image is classified correctly, so there is nothing to attack"
    return ""


def _gradients(p: Probe, found: list[Finding]) -> str:
    return "" if gradient_masking.differentiable(p) else "the outputs carry no gradient"


STAGES: tuple[tuple[Needs, tuple[Check, ...]], ...] = (
    (
        lambda p, found: "",
        (
            *(weights.finite_weights, weights.zero_layers, weights.degenerate_head, weights.modes),
            outputs.forward_pass,
        ),
    ),
    (
        _no_fault("cannot-run", "the network does not run"),
        (
            *(outputs.class_count, outputs.finite_outputs, weights.dead_features, outputs.probabilities),
            *(outputs.head, outputs.repetition, outputs.predictions),
        ),
    ),
    (
        _no_fault("non-finite-outputs", "some outputs are not finite"),
        (inputs.labels, inputs.normalisation_and_orientation, weights.batch_norm, inputs.chance),
    ),
    (_correct_images, (movable_cas, gradient_masking.gradients)),
    (
        _gradients,
        (
            gradient_masking.losses,
            gradient_masking.radii,
            gradient_masking.unbounded_attack,
            gradient_masking.steps,
            gradient_masking.weaker_attacks,
        ),
    ),
)
"""The checks in order; a stage whose needs are not met ends the examination."""

AGAIN: tuple[Check, ...] = (weights.dead_features, outputs.predictions, weights.batch_norm, inputs.chance)
"""What wrong inputs or class numbers may bring with them."""


@usual_torch_state()
def examine(
    model: Classifier,
    splits: Splits,
    settings: Doctor = Doctor(),
    *,
    surrogate: Classifier | None = None,
    file_normalisation: Statistics | None = None,
    variants: tuple[Variant, ...] = (),
    progress: Progress = silent,
) -> list[Finding]:
    """All findings about the network, one per name; raises UserError if there are no images.

    `surrogate` is another network for the same data, for transferred images; `file_normalisation` what
    the checkpoint says about mean and std; `variants` other networks that its weights fit (`variants_of`).
    `progress(check, done, total)` is called before every check.
    """
    if not hasattr(model, "mean"):
        raise UserError(
            f"a {type(model).__name__} does not say its normalisation; "
            "give a network of load_model or Wrapped"
        )
    if not max(len(splits.test), len(splits.val), len(splits.train)):
        raise UserError("there are no images to examine the network with; set data.n_test")
    total, found = sum(len(checks) for _, checks in STAGES), list[Finding]()
    networks = (model,) if surrogate is None else (model, surrogate)
    noise = stream_seed(settings.seed, 5, 0, "doctor")
    with restored(*networks), isolated_rng(noise, model.mean.device), ExitStack() as stack:
        stack.enter_context(closest_head(model))
        for network in networks:
            stack.enter_context(in_float32(network))
        probe = make_probe(model, splits, settings, surrogate, file_normalisation, variants)
        done = 0
        for i, (needs, checks) in enumerate(STAGES):
            missing = needs(probe, found)
            if missing:
                skipped = ", ".join(_title(check) for _, rest in STAGES[i:] for check in rest)
                text = f"{missing}, so these were left out: {skipped}"
                found.append(
                    finding("not-examined", "note", True, text, "mend that first, then examine again")
                )
                break
            for check in checks:
                progress(_title(check), done, total)
                found += check(probe)
                done += 1
            if inputs.normalisation_and_orientation in checks:
                probe, found = _as_it_wants_them(probe, found, stack)
    progress("done", total, total)
    return fold(found)


def _as_it_wants_them(p: Probe, found: list[Finding], stack: ExitStack) -> tuple[Probe, list[Finding]]:
    """The network with the inputs and class numbers that it wants, for the attacks, until the stack is left.

    Findings that are gone with them follow from them. Where batch norm with the statistics of the batch is
    better than all other inputs, these only made up for a part of what it lost, and nothing is changed.
    """
    wrong = {f.name for f in found if f.level == "fault"}
    cause = next((n for n in ("permuted-labels", *inputs.REMEDIES) if n in wrong), "")
    if not cause:
        return p, found
    if p.best_feeding is not None and "stale-batch-norm" in wrong:
        with inputs.corrected(p, numbering=False) as other:
            # other inputs may nearly make up for the loss: what batch norm sees of them is not what it knows
            lost = beats(p.correct_by_batch_statistics, other.correct)
            lost = lost or statistics_gap(other.model, other.x) > 1
        if lost:
            return p, _following(found, "stale-batch-norm", set(inputs.REMEDIES))
    other = stack.enter_context(inputs.corrected(p))
    return other, _following(
        found, cause, {f.name for check in AGAIN for f in check(other) if f.level == "fine"}
    )


def _following(found: list[Finding], cause: str, names: set[str]) -> list[Finding]:
    return [replace(f, follows_from=cause) if f.level != "fine" and f.name in names else f for f in found]


def _title(check: Check) -> str:
    return check.__name__.replace("_", " ")


__all__ = ["FINDINGS", "Doctor", "Finding", "Level", "examine", "verdict"]
