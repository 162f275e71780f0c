"""Are the outputs logits, one per class, of the image alone, and the same every time?"""

import torch

from crossclass.analysis.evaluate import ROUNDING, collapse, head_gap, relative_difference
from crossclass.core.classes import NO_CLASS, predicted
from crossclass.diagnostics.findings import Finding, finding, listed, percent
from crossclass.diagnostics.probe import Probe


def forward_pass(p: Probe) -> list[Finding]:
    """One batch through the network; the error of a network that does not fit the images."""
    shape, failed = list(p.x.shape[1:]), ""
    try:
        p.map_batches(p.x[:2], p.model.outputs)
        p.map_batches(p.x[:2], p.model)
    except (RuntimeError, ValueError, TypeError, IndexError) as e:
        failed = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'without a message'}"
    evidence = f"images of shape {shape}" + (f": {failed}" if failed else " pass")
    remedy = "check channels, image size and model.* settings against those it was trained with"
    return [finding("cannot-run", "fault", bool(failed), evidence, remedy, shape=shape)]


def class_count(p: Probe) -> list[Finding]:
    """Outputs and head rows against the classes of the data."""
    outputs, rows = p.all_logits.shape[1], len(p.model.head.weight)
    evidence = f"{outputs} outputs, {rows} head rows, {p.classes} classes in the data"
    remedy = "give the data set it was trained on (data=...), or a head for these classes"
    wrong = not outputs == rows == p.classes
    numbers = {"outputs": outputs, "rows": rows, "classes": p.classes}
    return [finding("wrong-class-count", "fault", wrong, evidence, remedy, **numbers)]


def finite_outputs(p: Probe) -> list[Finding]:
    """NaN or infinity in the outputs."""
    bad = int((~p.all_logits.isfinite().all(dim=1)).sum())
    evidence = f"{bad} of {p.conditions} have NaN or infinite outputs"
    remedy = "look for overflow (half precision, a missing or tiny std) or for broken weights"
    return [finding("non-finite-outputs", "fault", bad > 0, evidence, remedy, images=bad)]


def probabilities(p: Probe) -> list[Finding]:
    """Softmax: rows >= 0 that sum to one. Log-softmax: their exponentials do. Sigmoid: all in [0, 1]."""
    z = p.all_logits
    low, high, sums = float(z.min()), float(z.max()), z.double().sum(dim=1)
    log_sums = z.double().logsumexp(dim=1)
    flat = float(z.max() - z.min()) < 1e-6  # constant outputs have a finding of their own
    softmax = low >= 0 and bool(((sums - 1).abs() < 1e-3).all()) and not flat
    log_softmax = high <= 1e-4 and bool((log_sums.abs() < 1e-3).all()) and not flat
    sigmoid = low >= 0 and high <= 1 and not softmax and not flat
    evidence = (
        f"outputs in [{low:.3g}, {high:.3g}], row sums in [{float(sums.min()):.3g}, "
        f"{float(sums.max()):.3g}], logsumexp in [{float(log_sums.min()):.3g}, "
        f"{float(log_sums.max()):.3g}] ({p.conditions})"
    )
    numbers = {"low": low, "high": high}
    squash = (
        "remove the last {} and return the logits: attacks see its flat ends, and W g(x) is not the output"
    )
    logs = "return the logits: attributions of W g(x) do not explain log-probabilities"
    return [
        finding("softmax-outputs", "fault", softmax, evidence, squash.format("softmax"), **numbers),
        finding("sigmoid-outputs", "fault", sigmoid, evidence, squash.format("sigmoid"), **numbers),
        finding("log-softmax-outputs", "warning", log_softmax, evidence, logs, **numbers),
    ]


def head(p: Probe) -> list[Finding]:
    """Does W g(x) + b equal what the network answers?"""
    x = p.x[:32]
    far, said = head_gap(p.model, x), tuple(getattr(p.model, "head_warnings", ()))
    evidence = f"W g(x) + b and outputs differ by {far:.2g} of the largest output ({len(x)} images)"
    evidence += "".join(f"; {sentence}" for sentence in said)
    remedy = "name the layer that gives the logits with model.head=NAME; do not read C and CAS"
    if said and far <= ROUNDING:  # what is multiplied is not the layer's own weight
        evidence = "; ".join(said)
        remedy = "read C and CAS as those of what is multiplied"
    return [finding("head-mismatch", "warning", far > ROUNDING or bool(said), evidence, remedy, gap=far)]


def repetition(p: Probe) -> list[Finding]:
    """The same batch twice, then each image alone."""
    x = p.x[:32]
    first = p.logits(x)
    far = relative_difference(first, p.logits(x))
    random = far > ROUNDING
    evidence = f"two passes in eval mode differ by {far:.2g} of the largest output ({len(x)} images)"
    remedy = (
        "switch the noise off (dropout in eval mode), or attack its mean: expectation over transformations"
    )
    out = [finding("random-outputs", "warning", random, evidence, remedy, gap=far)]
    if not random:
        far = relative_difference(torch.cat([p.logits(image[None]) for image in x[:16]]), first[:16])
        evidence = f"images alone and in a batch of {len(x)} differ by {far:.2g} of the largest output"
        remedy = "use running statistics (model.eval(), track_running_stats) and nothing that sees the batch"
        out.append(finding("batch-dependent", "fault", far > ROUNDING, evidence, remedy, gap=far))
    return out


def predictions(p: Probe) -> list[Finding]:
    """Constant outputs, a collapse onto one class, classes without a prediction or an image."""
    z, k = p.all_logits, max(p.classes, p.all_logits.shape[1])
    spread, top = float((z - z.mean(dim=0)).abs().max()), float(z.abs().max())
    constant = len(z) > 1 and spread <= 1e-6 * max(top, 1e-30)  # one image varies from none
    said, there = predicted(z), torch.bincount(p.y, minlength=k)
    given = torch.bincount(said[said != NO_CLASS], minlength=k)
    message = collapse(said.cpu(), p.classes) if k == p.classes else None
    collapsed = message is not None and collapse(p.y.cpu(), p.classes) is None
    missing = ((there >= 20) & (given == 0)).nonzero().flatten().tolist()
    names = [p.class_names[i] for i in missing]
    enough = len(p.y) >= 20 * p.classes  # of fewer images a class may have none by chance
    absent = [
        name for name, count in zip(p.class_names, there.tolist(), strict=False) if enough and not count
    ]
    share = float(given.max()) / len(z)
    broken = "the network ignores the image: look for zero or lost weights, or a wrong normalisation"
    return [
        finding(
            "constant-outputs", "fault", constant, f"outputs vary by {spread:.2g} ({p.conditions})", broken
        ),
        finding(
            "collapsed-predictions",
            "warning",
            collapsed,
            f"{percent(share)} of {p.conditions} go to one class",
            "do not read CAS; look at the normalisation and the training log (catastrophic overfitting?)",
            share=share,
        ),
        finding(
            "unpredicted-classes",
            "warning",
            bool(missing),
            f"{len(missing)} classes with 20 images or more are never predicted{listed(names)}",
            "their rows of C come from wrong predictions only; train longer, or check the labels",
            classes=missing,
        ),
        finding(
            "classes-without-images",
            "warning",
            bool(absent),
            f"{len(absent)} of {p.classes} classes have no image among {p.conditions}{listed(absent)}",
            "give images of all classes, or name only the classes that there are",
            classes=absent,
        ),
    ]
