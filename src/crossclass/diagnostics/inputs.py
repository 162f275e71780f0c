"""Is it the network, does it get the images, and are its classes numbered, as when it was trained?

The alternatives are tried and compared by `analysis.input_alternatives`, the numbering of the classes first:
where another one explains the errors, the alternatives are compared under it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from crossclass.analysis.accuracy_tests import chance_level, hardly_learned
from crossclass.analysis.input_alternatives import Feeding, Trial, with_normalisation
from crossclass.diagnostics.findings import Finding, finding, percent, share, shortened
from crossclass.diagnostics.probe import Probe
from crossclass.models import size_of, with_weights_of

REMEDIES = {
    "wrong-normalisation": "set {}",
    "normalised-twice": "set {}",
    "wrong-range": "set {}",
    "wrong-channel-order": "reverse the input channels of the first convolution's weight (weight.flip(1))",
    "transposed-images": "transpose the images when the arrays are made (n, h, w, c in row order)",
    "wrong-variant": "set {}",
}
"""What to do for each finding on the inputs; `{}` is the setting."""

ARRANGED = ("wrong-channel-order", "transposed-images")


def finding_of(feeding: Feeding) -> str:
    """The name of the finding that a network should be fed in this way."""
    names = {"channel order": "wrong-channel-order", "height and width": "transposed-images"}
    names |= {"range": "wrong-range", "normalisation": "wrong-normalisation", "architecture": "wrong-variant"}
    return "normalised-twice" if feeding.name == "none" else names[feeding.aspect]


def normalisation_and_orientation(p: Probe) -> list[Finding]:
    """Accuracy as loaded against other normalisations, ranges, orders, orientations and variants."""
    loaded, best = p.input_trial.loaded, p.best_feeding
    out, numbers = [], dict[str, Any]()
    for name, remedy in REMEDIES.items():
        tried = [t for t in p.input_trial.others if finding_of(t.feeding) == name]
        if not tried and name in ARRANGED:
            continue  # gray images have no order of channels, and oblong ones cannot be turned
        wrong = best is not None and finding_of(best.feeding) == name
        shown = p.input_trial.others if wrong else tried
        accuracies = [f"as loaded ({loaded.feeding.name}) {percent(loaded.right)}", *map(_accuracy, shown)]
        evidence = f"{', '.join(accuracies)} ({p.conditions})"
        if wrong and best is not None:
            evidence = f"{_accuracy(best)} is best{_ties(p, best)}: {evidence}"
            remedy = _remedy(p, best)
        if name in ARRANGED:
            numbers = {"as given": loaded.accuracy, "other": tried[0].accuracy}
        else:
            numbers = {"loaded": loaded.feeding.name, "as loaded": loaded.accuracy}
            numbers |= {t.feeding.name: t.accuracy for t in p.input_trial.others}
        out.append(finding(name, "fault", wrong, evidence, remedy, **numbers))
    return out


def _accuracy(t: Trial) -> str:
    return f"{t.feeding.name} {percent(t.right)}"


def _ties(p: Probe, best: Trial) -> str:
    equals = shortened([_accuracy(t) for t in p.equal_feedings])
    return f" (not to be told from {equals} by {best.n} images)" if equals else ""


def _remedy(p: Probe, best: Trial) -> str:
    """What to do, and what would do as well by these images."""
    remedies: dict[str, list[str]] = {}
    for t in (best, *p.equal_feedings):
        remedies.setdefault(REMEDIES[finding_of(t.feeding)], []).append(t.feeding.setting)
    text = ", or ".join(remedy.format(shortened(settings)) for remedy, settings in remedies.items())
    return text + ": these images cannot tell which" * bool(p.equal_feedings)


def labels(p: Probe) -> list[Finding]:
    """A renumbering of the classes that explains the errors, with the inputs that the network wants."""
    true_of = p.renumbering
    with corrected(p, numbering=False) as as_given, corrected(p) as renumbered:
        before, after = as_given.correct, renumbered.correct
    evidence = f"{percent(before)} as given, {percent(after)} after the best renumbering ({p.conditions})"
    if true_of:
        moved = [f"{i} is {_name(p, c)}" for i, c in enumerate(true_of) if c != i]
        evidence += f": output {shortened(moved, 10)}"
    remedy = "put the head's rows into the order of the data's class_names, or rename the classes"
    numbers = {"as given": share(before), "renumbered": share(after), "class_of_output": list(true_of or [])}
    return [finding("permuted-labels", "fault", bool(true_of), evidence, remedy, **numbers)]


def chance(p: Probe) -> list[Finding]:
    """Accuracy against that of always saying the most frequent class."""
    level, guessing = chance_level(p.y), hardly_learned(p.correct, p.y)
    confidence = float(p.all_logits.softmax(dim=1).amax(dim=1).mean())
    evidence = (
        f"{percent(p.correct)} right, {percent(level)} by guessing, mean confidence {percent(confidence)} "
        f"({p.conditions})"
    )
    remedy = (
        "no other normalisation, order of channels or classes that was tried helps: check that the weights "
        "were loaded, that they are trained, and on which data"
    )
    numbers = {"accuracy": share(p.correct), "chance": level, "confidence": confidence}
    return [finding("chance-accuracy", "fault", guessing, evidence, remedy, **numbers)]


@contextmanager
def corrected(p: Probe, numbering: bool = True) -> Iterator[Probe]:
    """The same network with its images, and labels if so wanted, as it wants them, where that is known."""
    x, y, best = p.x, p.y, p.best_feeding
    if numbering and p.renumbering:
        y = torch.tensor(p.renumbering, device=y.device).argsort()[y]
    if best is None:
        yield p if y is p.y else replace(p, y=y, results={})
    else:
        model, variant = p.model, best.feeding.variant
        if variant is not None:
            model = with_weights_of(model, variant.settings, x.shape[1], size_of(x))
        with with_normalisation(model, *best.feeding.constants):
            yield replace(p, model=model, x=best.feeding.arranged(x), y=y, results={})


def _name(p: Probe, i: int) -> str:
    return p.class_names[i] if i < p.classes else str(i)
