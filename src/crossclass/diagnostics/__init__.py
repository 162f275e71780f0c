"""What is wrong with this network or checkpoint? Named findings with evidence, each with its remedy.

The checks are a table; each gets the `Probe` and returns findings, `fine` ones included. Network,
surrogate and global random streams are exactly as before, whatever happens.
"""

from collections.abc import Callable

from crossclass.core.errors import UserError
from crossclass.core.progress import Progress, silent
from crossclass.core.rng import isolated_rng, stream_seed
from crossclass.data import Splits
from crossclass.diagnostics import inputs, masking, outputs, weights
from crossclass.diagnostics.findings import FINDINGS, Finding, Level, judged
from crossclass.diagnostics.probe import Doctor, Probe, Statistics, admitted, untouched
from crossclass.models import Classifier

Check = Callable[[Probe], list[Finding]]

Needs = Callable[[Probe, list[Finding]], str]
"""What is missing before a stage makes sense; empty if nothing is."""


def _nothing(p: Probe, found: list[Finding]) -> str:
    return ""


def _runs(p: Probe, found: list[Finding]) -> str:
    return "the network does not run" if _faulty(found, "cannot-run") else ""


def _answers(p: Probe, found: list[Finding]) -> str:
    return "some outputs are not finite" if _faulty(found, "non-finite-outputs") else ""


def _attackable(p: Probe, found: list[Finding]) -> str:
    if p.answers.shape[1] < p.classes:
        return "there are labels without an output"
    if int(p.right[: len(p.few[0])].sum()) < min(10, len(p.few[0])):
        return "hardly any image is classified rightly, so there is nothing to attack"
    return ""


def _differentiable(p: Probe, found: list[Finding]) -> str:
    return "" if masking.differentiable(p) else "the outputs carry no gradient"


def _faulty(found: list[Finding], name: str) -> bool:
    return any(f.name == name and f.level == "fault" for f in found)


STAGES: tuple[tuple[Needs, dict[str, Check]], ...] = (
    (
        _nothing,
        {
            "weights": weights.finite_weights,
            "layers": weights.zero_layers,
            "head rows": weights.degenerate_head,
            "modes": weights.modes,
            "forward": outputs.runs,
        },
    ),
    (
        _runs,
        {
            "class count": outputs.class_count,
            "finite outputs": outputs.finite,
            "features": weights.dead_features,
            "probabilities": outputs.probabilities,
            "head": outputs.head,
            "repetition": outputs.repeatable,
            "predictions": outputs.predictions,
        },
    ),
    (
        _answers,
        {
            "normalisation": inputs.normalisation,
            "orientation": inputs.orientation,
            "labels": inputs.labels,
            "batch norm": weights.batch_norm,
        },
    ),
    (_attackable, {"gradients": masking.gradients}),
    (
        _differentiable,
        {
            "losses": masking.losses,
            "radii": masking.radii,
            "unbounded attack": masking.unbounded,
            "steps": masking.iterations,
            "weaker attacks": masking.weaker,
        },
    ),
)
"""The checks in order; a stage whose needs are not met ends the examination."""


def examine(
    model: Classifier,
    splits: Splits,
    settings: Doctor = Doctor(),
    *,
    surrogate: Classifier | None = None,
    file_normalisation: Statistics | None = None,
    progress: Progress = silent,
) -> list[Finding]:
    """All findings about the network, one per name; raises UserError if there are no images.

    `surrogate` is another network for the same data, for transferred images; `file_normalisation` what
    the checkpoint says about mean and std. `progress(check, done, total)` is called before every check.
    """
    if not max(len(splits.test), len(splits.val), len(splits.train)):
        raise UserError("there are no images to examine the network with; set data.n_test")
    total, found = sum(len(checks) for _, checks in STAGES), list[Finding]()
    networks = (model,) if surrogate is None else (model, surrogate)
    with untouched(*networks), isolated_rng(stream_seed(settings.seed, 5, 0, "doctor"), model.mean.device):
        patient = admitted(model, splits, settings, surrogate, file_normalisation)
        done = 0
        for i, (needs, checks) in enumerate(STAGES):
            missing = needs(patient, found)
            if missing:
                skipped = ", ".join(name for _, rest in STAGES[i:] for name in rest)
                text = f"{missing}, so these were left out: {skipped}"
                found.append(judged("not-examined", "note", True, text, "mend that first, then ask again"))
                break
            for name, check in checks.items():
                progress(name, done, total)
                found += check(patient)
                done += 1
    progress("done", total, total)
    return found


__all__ = ["FINDINGS", "Doctor", "Finding", "Level", "examine"]
