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
from crossclass.analysis.feedings import Feeding
from crossclass.analysis.input_alternatives import Trial, with_normalisation
from crossclass.checkpoints.foreign_weights import Aspect
from crossclass.diagnostics.findings import Finding, Level, finding, percent, share, shortened
from crossclass.diagnostics.probe import Probe
from crossclass.models import size_of, with_weights_of
from crossclass.models.reordered import as_fed

REMEDIES = {
    "wrong-normalisation": "{}",
    "normalised-twice": "{}",
    "wrong-range": "{}",
    "wrong-channel-order": "bring the input channels of the first convolution's weight into this order",
    "transposed-images": "transpose the images when the arrays are made (n, h, w, c in row order)",
    "turned-images": "turn or mirror the images when the arrays are made",
    "inverted-images": "invert the images when the arrays are made (255 - x), or x to 1 - x in the network",
    "wrong-variant": "{}",
}
"""What to do for each finding on the inputs; `{}` is what the way itself says."""

ARRANGED = ("wrong-channel-order", "transposed-images", "turned-images", "inverted-images")


def finding_of(feeding: Feeding) -> str:
    """The name of the finding that a network should be fed in this way."""
    names: dict[Aspect, str] = {"channel order": "wrong-channel-order", "brightness": "inverted-images"}
    names["orientation"] = "transposed-images" if feeding.name == "transposed" else "turned-images"
    names |= {"range": "wrong-range", "normalisation": "wrong-normalisation", "architecture": "wrong-variant"}
    return "normalised-twice" if feeding.name == "none" else names[feeding.aspect]


def normalisation_and_orientation(p: Probe) -> list[Finding]:
    """Accuracy as loaded against other normalisations, ranges, orders, orientations and variants.

    What looks better and may be so by chance is a note.
    """
    first = p.input_trial
    steps = {finding_of(best.feeding): (trial, best) for trial, best in p.input_steps}
    perhaps = {} if steps else {finding_of(t.feeding): t for t in reversed(first.suspected())}
    out, numbers = [], dict[str, Any]()
    for name, remedy in REMEDIES.items():
        tried = [t for t in first.others if finding_of(t.feeding) == name]
        if not tried and name in ARRANGED:
            continue  # gray images have no order of channels, and oblong ones cannot be turned
        trial, best = steps.get(name, (first, perhaps.get(name)))
        loaded, wrong = trial.loaded, name in steps
        shown = trial.others if wrong else tried
        accuracies = [f"as loaded ({loaded.feeding.name}) {percent(loaded.right)}", *map(_accuracy, shown)]
        evidence = f"{', '.join(accuracies)} ({p.conditions})"
        if best is not None and wrong:
            evidence = f"{_accuracy(best)} is best{_ties(p, best)}: {evidence}"
            remedy = _remedy(p, best)
        elif best is not None:
            evidence = f"{_accuracy(best)} is better, which may be chance: {evidence}"
            remedy = f"examine more images (n={4 * p.settings.n}); if it stays so: {_remedy(p, best)}"
        if name in ARRANGED:
            numbers = {"as given": loaded.accuracy, "other": (best or tried[0]).accuracy}
        else:
            numbers = {"loaded": loaded.feeding.name, "as loaded": loaded.accuracy}
            numbers |= {t.feeding.name: t.accuracy for t in trial.others}
        level: Level = "note" if name in perhaps else "fault"
        out.append(finding(name, level, best is not None, evidence, remedy, **numbers))
    return out


def _accuracy(t: Trial) -> str:
    return f"{t.feeding.name} {percent(t.right)}"


def _ties(p: Probe, best: Trial) -> str:
    equals = shortened([_accuracy(t) for t in p.equal_feedings(best)])
    return f" (not to be told from {equals} by {best.n} images)" if equals else ""


def _remedy(p: Probe, best: Trial) -> str:
    """What to do, and what would do as well by these images."""
    remedies: dict[str, list[str]] = {}
    equal = p.equal_feedings(best)
    for t in (best, *equal):
        remedies.setdefault(REMEDIES[finding_of(t.feeding)], []).append(t.feeding.remedy)
    settings = {text: [r.removeprefix("set ") for r in every[1:]] for text, every in remedies.items()}
    texts = [t.format(shortened([every[0], *settings[t]])) for t, every in remedies.items()]
    order = f" ({best.feeding.name})" * (finding_of(best.feeding) in ARRANGED)
    return ", or ".join(texts) + order + ": these images cannot tell which" * bool(equal)


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
            model = as_fed(model, best.feeding.arrangement)
            yield replace(p, model=model, y=y, results={})


def _name(p: Probe, i: int) -> str:
    return p.class_names[i] if i < p.classes else str(i)
