"""Does the network get the images it was trained on? The plausible alternatives are tried and compared.

Every alternative sees the same images; it is preferred only if it is right more often by more than
half a point and by more than chance (McNemar's exact test, shared among the alternatives).
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from crossclass.analysis.input_alternatives import (
    CONSTANTS,
    known_constants,
    normalise_setting,
    renumbering as renumbering,
    same_constants,
    with_normalisation,
)
from crossclass.diagnostics.findings import (
    ALPHA,
    Finding,
    beats,
    finding,
    percent,
    share,
    shortened,
    tail_probability,
)
from crossclass.diagnostics.probe import Probe
from crossclass.models.base import Statistics


def candidates(p: Probe) -> dict[str, Statistics]:
    """The plausible normalisations for these images, by name; the file's own comes first."""
    return known_constants(p.x.shape[1], p.data, p.file)


def normalisation(p: Probe) -> list[Finding]:
    """Accuracy as loaded against every other plausible normalisation."""
    loaded: Statistics = tuple(p.model.mean.flatten().tolist()), tuple(p.model.std.flatten().tolist())
    known = candidates(p)
    own = next((n for n, s in known.items() if same_constants(s, loaded)), "its own constants")
    tried = {n: s for n, s in known.items() if not same_constants(s, loaded)}
    right: dict[str, Bool[Tensor, " n"]] = {}
    for name, (mean, std) in tried.items():
        with with_normalisation(p.model, mean, std):
            right[name] = p.is_correct(p.x, p.y)
    best = max(right, key=lambda n: int(right[n].sum()))
    # the file's word breaks a tie: accuracies cannot tell neighbours apart
    if "file" in right and not beats(right[best], right["file"], 0.005, len(right)):
        best = "file"
    better = beats(right[best], p.correct, by=0.005, tests=len(right))
    numbers = {"loaded": own, "as loaded": share(p.correct), **{n: share(r) for n, r in right.items()}}
    table = ", ".join(f"{n} {percent(r)}" for n, r in right.items())
    evidence = f"as loaded ({own}) {percent(p.correct)}; {table} ({p.conditions})"
    kind = {"none": "normalised-twice", "bytes": "wrong-range"}.get(best, "wrong-normalisation")
    if better:
        alike = [n for n in right if n != best and not beats(right[best], right[n], 0.005, len(right))]
        as_good = f" ({shortened(alike)} as good within error)" if alike else ""
        evidence = f"{best} is best{as_good}: {evidence}"
    none, raw = right.get("none", p.correct), right.get("bytes", p.correct)
    to_bytes = normalise_setting("bytes", CONSTANTS["bytes"])
    texts = {
        "wrong-normalisation": (evidence, f"set {normalise_setting(best, tried[best])}"),
        "normalised-twice": (
            f"as loaded ({own}) {percent(p.correct)}, none {percent(none)}",
            "the network normalises itself, or never saw normalised images: set model.normalise=none",
        ),
        "wrong-range": (
            f"in [0, 1] {percent(p.correct)}, in 0..255 {percent(raw)}",
            f"the network wants 0..255, or divides by 255 itself: set {to_bytes}",
        ),
    }
    out = []
    for name, (short, remedy) in texts.items():
        wrong = better and name == kind
        out.append(finding(name, "fault", wrong, evidence if wrong else short, remedy, **numbers))
    return out


def orientation(p: Probe) -> list[Finding]:
    """Accuracy with the channels reversed, and with height and width exchanged."""
    views = {}
    if p.x.shape[1] == 3:
        bgr = "reverse the input channels of the first convolution's weight (weight.flip(1))"
        views["wrong-channel-order"] = ("blue, green, red", p.x.flip(1), bgr)
    if p.x.shape[2] == p.x.shape[3]:
        turned = "transpose the images when the arrays are made (n, h, w, c in row order)"
        views["transposed-images"] = ("transposed", p.x.transpose(2, 3).contiguous(), turned)
    out = []
    for name, (what, x, remedy) in views.items():
        other = p.is_correct(x, p.y)
        evidence = f"as given {percent(p.correct)}, {what} {percent(other)} ({p.conditions})"
        numbers = {"as given": share(p.correct), "other": share(other)}
        wrong = beats(other, p.correct, by=0.005)
        out.append(finding(name, "fault", wrong, evidence, remedy, **numbers))
    return out


def labels(p: Probe) -> list[Finding]:
    """A renumbering of the classes that explains the errors: evidence on one half, tried on the other."""
    logits = p.all_logits
    k = max(p.classes, logits.shape[1])
    predicted, half = logits.argmax(dim=1), torch.arange(len(p.y), device=p.y.device) % 2 == 0
    counts = torch.bincount(p.y[half] * k + predicted[half], minlength=k * k).view(k, k)
    true_of = renumbering(counts).to(p.y.device)
    before, after = predicted[~half] == p.y[~half], true_of[predicted[~half]] == p.y[~half]
    wrong = beats(after, before, by=0.05)
    changed = [i for i in range(k) if int(true_of[i]) != i]
    evidence = f"{percent(before)} as given, {percent(after)} after the best renumbering ({p.conditions})"
    if wrong:
        evidence += ": output " + shortened([f"{i} is {_name(p, int(true_of[i]))}" for i in changed], 10)
    remedy = "put the head's rows into the order of the data's class_names, or rename the classes"
    numbers = {"as given": share(before), "renumbered": share(after), "class_of_output": true_of.tolist()}
    out = [finding("permuted-labels", "fault", wrong, evidence, remedy, **numbers)]
    chance = float(torch.bincount(p.y).max()) / len(p.y)
    confidence = float(logits.softmax(dim=1).amax(dim=1).mean())
    guessing = tail_probability(int(p.correct.sum()), len(p.y), chance) > ALPHA
    evidence = (
        f"{percent(p.correct)} right, {percent(chance)} by guessing, mean confidence {percent(confidence)}"
    )
    sure = confidence > 0.5 + 0.5 * chance
    remedy = (
        "it is sure and wrong: check the classes, the normalisation and the data set it was trained on"
        if sure
        else "it looks untrained: check that the weights were loaded (names, prefixes)"
    )
    numbers = {"accuracy": share(p.correct), "chance": chance, "confidence": confidence}
    out.append(
        finding("chance-accuracy", "fault", guessing, f"{evidence} ({p.conditions})", remedy, **numbers)
    )
    return out


def _name(p: Probe, i: int) -> str:
    return p.class_names[i] if i < p.classes else str(i)
