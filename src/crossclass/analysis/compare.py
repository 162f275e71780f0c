"""Two checkpoints on the same images: what differs, and by how much more than chance.

Differences are first minus second (best minus last); their intervals resample the same images for both.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossclass import models
from crossclass.analysis import attribution, evaluate, instances, intervals
from crossclass.data import Split


@dataclass(frozen=True)
class EvaluationPass:
    """One pass over a split, with the largest cosine of each sample to each class."""

    evaluation: evaluate.Evaluation
    nearest: Float[Tensor, "m k"]


def comparison(a: EvaluationPass, b: EvaluationPass, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Plain numbers of both, their differences with intervals, the pairs and classes that changed most.

    Both must have been evaluated on the same images. Intervals of CAS and I-CAS are left out where
    attributions were taken from different samples (`attribution_subset=correct`), for these are not paired.
    """
    one, two = a.evaluation, b.evaluation
    both: dict[str, tuple[float, float]] = {}
    for key in ("clean", "robust"):
        right = [evaluate.accuracy(getattr(e, key), e.labels) for e in (one, two)]
        both[key] = (right[0], right[1])
    both["cas"] = (attribution.cas(one.C), attribution.cas(two.C))
    both["icas"] = (_icas(a), _icas(b))
    out: dict[str, Any] = {key: list(pair) for key, pair in both.items()}
    out |= {f"d_{key}": first - second for key, (first, second) in both.items()}
    C = one.C - two.C
    return {
        **out,
        "intervals": _intervals(a, b),
        "C_difference": evaluate.rounded(C),
        "pairs": _pairs(one.C, two.C, class_names),
        "classes": _classes(one, two, class_names),
    }


def saliency_between(
    a: tuple[str, models.Classifier, EvaluationPass],
    b: tuple[str, models.Classifier, EvaluationPass],
    part: Split,
    class_names: tuple[str, ...],
    shown: int,
    at: str,
    grid: Path,
) -> dict[str, Any] | None:
    """Grad-CAM of the true class where `a` is right and `b` is wrong: how spread the maps are, and a grid.

    Choosing images on which `a` does better favours `a`, so `all_images` says the same of all of them. Maps
    are of the images that each model was judged on. The grid shows the first `shown` such samples in
    the order of their ids, as in the paper (Fig. 11). None if there are not two such samples.
    """
    from crossclass.analysis import saliency  # only here: captum and matplotlib are slow to import
    from crossclass.report import plots

    (first, _, one), (second, _, two) = a, b
    chosen = saliency.compared(part.labels.cpu(), one.evaluation.robust, two.evaluation.robust)
    if len(chosen) < 2:
        return None
    labels = part.labels.cpu()
    maps = {label: _maps(model, seen, labels) for label, model, seen in (a, b)}
    some = chosen[:shown]
    captions = [
        f"{int(i)}: {class_names[int(labels[i])]}\n{second}: {class_names[int(two.evaluation.robust[i])]}"
        for i in some
    ]
    images = part.images.cpu()[some].float() / 255
    figure = plots.saliency_grid(
        images.movedim(1, -1).numpy(),
        {label: saliency.resized(m[some], images.shape[-1]).numpy() for label, m in maps.items()},
        captions,
    )
    plots.save(figure, grid)
    both = (maps[first][chosen], maps[second][chosen])
    return {
        "grid": grid.name,
        "layer": saliency.layer_name(a[1], a[1].saliency_layer()),
        "at": at,
        "n": len(chosen),
        "shown": len(captions),
        **_spread(*both),
        "all_images": {"n": len(labels), **_spread(maps[first], maps[second])},
    }


def _maps(
    model: models.Classifier, seen: EvaluationPass, labels: Int[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """Grad-CAM of the true class on the images that the model was judged on."""
    from crossclass.analysis import saliency

    judged = seen.evaluation.images
    assert judged is not None, "the images were not kept"
    place = model.mean.device
    return saliency.grad_cam(model, judged.to(place), labels.to(place))


def _spread(x: Float[Tensor, "n h w"], y: Float[Tensor, "n h w"]) -> dict[str, Any]:
    """How spread the maps of two models are on the same images, and the paired difference."""
    from crossclass.analysis import saliency

    out: dict[str, Any] = {}
    for name, measure in (("half_mass_area", saliency.half_mass_area), ("entropy", saliency.entropy)):
        difference = intervals.mean_difference(measure(x), measure(y))
        out[name] = {
            "a": float(measure(x).double().mean()),
            "b": float(measure(y).double().mean()),
            "difference": difference.estimate,
            "interval": [difference.low, difference.high],
        }
    return out


def _icas(seen: EvaluationPass) -> float:
    _, y = seen.evaluation.attributed()
    return attribution.cas(instances.instance_correlation(seen.nearest, y))


def _intervals(a: EvaluationPass, b: EvaluationPass) -> dict[str, Any]:
    one, two = a.evaluation, b.evaluation
    y = one.labels
    found = {
        key: intervals.accuracy_difference(getattr(one, key) == y, getattr(two, key) == y)
        for key in ("clean", "robust")
    }
    if one.used is None and two.used is None:
        found["cas"] = intervals.cas_difference((one.features, one.W), (two.features, two.W), y)
        found["icas"] = intervals.icas_difference(a.nearest, b.nearest, y)
    ends = {f"d_{key}": [i.low, i.high] for key, i in found.items()}
    return {**ends, "level": found["robust"].level, "method": intervals.METHOD}


def _pairs(A: Float[Tensor, "k k"], B: Float[Tensor, "k k"], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Pairs of classes by how much C changed, the largest change first; at most 20."""
    i, j = torch.triu_indices(len(A), len(A), offset=1)
    change = (A - B)[i, j]
    order = change.abs().argsort(descending=True, stable=True)[:20]
    return [
        {
            "i": int(p),
            "j": int(q),
            "classes": [names[p], names[q]],
            "a": float(A[p, q]),
            "b": float(B[p, q]),
            "change": float(A[p, q] - B[p, q]),
        }
        for p, q in zip(i[order], j[order], strict=True)
    ]


def _classes(
    one: evaluate.Evaluation, two: evaluate.Evaluation, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Robust accuracy per class in both, the largest change first; classes without images left out."""
    k = len(one.W)
    pairs = zip(
        names,
        evaluate.classwise(one.robust, one.labels, k),
        evaluate.classwise(two.robust, two.labels, k),
        strict=True,
    )
    rows = [
        {"class": name, "a": x, "b": y, "change": x - y}
        for name, x, y in pairs
        if x is not None and y is not None
    ]
    return sorted(rows, key=lambda r: -abs(r["change"]))
