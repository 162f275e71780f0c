"""Two checkpoints on the same images: what differs, and by how much more than chance.

Differences are first minus second (best minus last); their intervals resample the same images for both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from crossclass import models
from crossclass.analysis import evaluate, intervals, saliency
from crossclass.analysis.evaluate import EvaluationPass
from crossclass.analysis.forgotten import shared_and_forgotten
from crossclass.analysis.metrics import METRICS
from crossclass.analysis.records import ClassChange, Comparison, Intervals, Measurement, PairChange
from crossclass.data import Split


def comparison(
    first: Measurement, second: Measurement, passes: tuple[EvaluationPass, EvaluationPass]
) -> Comparison:
    """Each metric of both, its difference with an interval, and what changed most; `passes` are theirs.

    Both must have been evaluated on the same images under the same attack. Intervals are left out where
    attributions were taken from different samples (`attribution_subset=correct`), for these are not paired.
    """
    (a, b), names = passes, tuple(first.class_names)
    at = first.checkpoint, second.checkpoint
    one_run = at[0].run == at[1].run and at[0].run
    labels = [c.name if one_run else c.title for c in at]
    labels[1] += " (2)" if labels[0] == labels[1] else ""
    numbers: dict[str, Any] = {}
    ends: dict[str, Any] = {}
    paired = a.used is None and b.used is None
    for m in METRICS:
        x, y = m.value(a), m.value(b)
        numbers[m.key] = (x, y)
        numbers[f"d_{m.key}"] = None if x is None or y is None else x - y
        if m.difference is not None and (paired or m.unit == "accuracy"):
            ends[f"d_{m.key}"] = intervals.finite_ends(m.difference(a, b))
    return Comparison(
        warnings=[f"{of}: {w}" for of, m in zip(labels, (first, second), strict=True) for w in m.warnings],
        a=labels[0],
        b=labels[1],
        of=at,
        data=first.data,
        attack=first.attack,
        conditions=first.conditions,
        intervals=Intervals(**ends, level=intervals.LEVEL, method=intervals.METHOD),
        pairs=_pairs(a.C, b.C, names),
        classes=_classes(a, b, names),
        matrices={"C_difference": evaluate.rounded(a.C - b.C)},
        features=shared_and_forgotten(a, b) if one_run else None,
        **numbers,
    )


@dataclass(frozen=True)
class SaliencyMaps:
    """Grad-CAM maps of two checkpoints on some images, to be drawn by the caller."""

    images: Float[Tensor, "m c h w"]
    """In [0, 1], as the split holds them."""
    maps: Mapping[str, Float[Tensor, "m h w"]]
    """One set of maps at the size of the images by checkpoint."""
    captions: list[str]


def saliency_between(
    a: tuple[str, models.Classifier, EvaluationPass],
    b: tuple[str, models.Classifier, EvaluationPass],
    part: Split,
    class_names: tuple[str, ...],
    shown: int,
    at: str,
) -> tuple[dict[str, Any], SaliencyMaps] | None:
    """Grad-CAM of the true class where `a` is right and `b` is wrong: how spread the maps are, and some maps.

    Choosing images on which `a` does better favours `a`, so `all_images` says the same of all of them. Maps
    are of the images that each model was judged on. The first `shown` such samples in the order of their ids
    are returned for drawing, as in the paper (Fig. 11). None if there are not two such samples.
    """
    (first, _, one), (second, _, two) = a, b
    labels = part.labels.cpu()
    chosen = saliency.right_then_wrong(labels, one.robust, two.robust)
    if len(chosen) < 2:
        return None
    maps = {}
    for name, model, evaluation in (a, b):
        assert evaluation.images is not None, "the images were not kept"
        maps[name] = saliency.grad_cam(model, evaluation.images, labels)
    some = chosen[:shown]
    images = part.images.cpu()[some].float() / 255
    drawn = SaliencyMaps(
        images,
        {name: saliency.resized(m[some], (images.shape[-2], images.shape[-1])) for name, m in maps.items()},
        [
            f"{int(i)}: {class_names[int(labels[i])]}\n{second}: {[*class_names, 'no number'][two.robust[i]]}"
            for i in some
        ],
    )
    numbers = {
        "layer": saliency.layer_name(a[1], a[1].saliency_layer()),
        "at": at,
        "n": len(chosen),
        "shown": len(some),
        **_spread(maps[first][chosen], maps[second][chosen]),
        "all_images": {"n": len(labels), **_spread(maps[first], maps[second])},
    }
    return numbers, drawn


def _spread(x: Float[Tensor, "n h w"], y: Float[Tensor, "n h w"]) -> dict[str, Any]:
    """How spread the maps of two models are on the same images, and the paired difference."""
    out: dict[str, Any] = {}
    for name, measure in (("half_mass_area", saliency.half_mass_area), ("entropy", saliency.entropy)):
        difference = intervals.mean_difference(measure(x), measure(y))
        out[name] = {
            "a": float(measure(x).double().mean()),
            "b": float(measure(y).double().mean()),
            "difference": difference.estimate,
            "interval": list(intervals.finite_ends(difference)),
        }
    return out


def _pairs(A: Float[Tensor, "k k"], B: Float[Tensor, "k k"], names: tuple[str, ...]) -> list[PairChange]:
    """Pairs of classes by how much C changed, the largest change first; at most 20."""
    return [
        PairChange(
            i=i,
            j=j,
            classes=(names[i], names[j]),
            a=float(A[i, j]),
            b=float(B[i, j]),
            change=float(A[i, j] - B[i, j]),
        )
        for i, j in evaluate.top_pairs((A - B).abs(), 20)
    ]


def _classes(a: EvaluationPass, b: EvaluationPass, names: tuple[str, ...]) -> list[ClassChange]:
    """Robust accuracy per class in both, the largest change first; classes without images left out."""
    both = (evaluate.classwise(e.robust, e.labels, e.classes) for e in (a, b))
    rows = [
        ClassChange(name=name, a=x, b=y, change=x - y)
        for name, x, y in zip(names, *both, strict=True)
        if x is not None and y is not None
    ]
    return sorted(rows, key=lambda r: -abs(r.change))
