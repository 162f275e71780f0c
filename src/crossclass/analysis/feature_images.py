"""The images on which a feature adds most to a class, and where in them it lies."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from crossclass.analysis.evaluate import EvaluationPass
from crossclass.analysis.saliency import feature_maps, resized
from crossclass.core.device import full_precision
from crossclass.models import Classifier
from crossclass.models.model_state import evaluating, in_float32

Evaluated = tuple[Classifier, EvaluationPass]
"""A network and what a pass over the images gave."""


@dataclass(frozen=True)
class SheetRow:
    """One feature on images of one class, the strongest first."""

    k: int
    class_name: str
    images: Float[Tensor, "m c h w"]
    """Adversarial images of the first checkpoint, in [0, 1]."""
    maps: list[Float[Tensor, "m h w"]]
    """Where the feature lies in them, at each checkpoint, at the size of the images."""
    adds: list[Float[Tensor, " m"]]
    """g_k(x) W[y, k] of these images at each checkpoint."""
    part: UInt8[Tensor, "3 s s"] | None = None
    """The planted part of which the feature finds most, on data that are drawn from known parts."""


def sheet_rows(
    seen: Sequence[Evaluated], wanted: Sequence[tuple[int, int]], class_names: Sequence[str], images: int
) -> list[SheetRow]:
    """Features on the images of a class on which they add most at the first checkpoint.

    Of a feature that speaks against the class, on average, these are the images from which it takes most.

    Args:
        seen: One checkpoint, or two of one run; the pass of the first has kept images to choose from.
        wanted: A feature k and a class i for each row; those without images are left out.
        class_names: The K classes.
        images: At most so many for each.

    Raises:
        UserError: where the network shows no map of the image.
    """
    first = seen[0][1]
    assert first.images is not None
    assert first.kept is not None
    kept = torch.zeros(len(first.labels), dtype=torch.bool).index_fill(0, first.kept, True)
    chosen: list[tuple[int, int, Int[Tensor, " m"]]] = []
    for k, i in wanted:
        there = (kept & (first.labels == i)).nonzero().flatten()
        adds = first.features[there, k] * first.W[i, k] * (-1 if first.means[i, k] < 0 else 1)
        best = there[adds.argsort(descending=True)[:images]]
        if len(best):
            chosen.append((k, i, best))
    if not chosen:
        return []
    sizes = [len(best) for _, _, best in chosen]
    x = first.images[torch.searchsorted(first.kept, torch.cat([best for _, _, best in chosen]))]
    k_of_x = torch.cat([torch.full((m,), k) for m, (k, _, _) in zip(sizes, chosen, strict=True)])
    size = (x.shape[-2], x.shape[-1])
    maps = [resized(feature_maps(model, x, k_of_x), size).split(sizes) for model, _ in seen]
    features = [_features_of(model, x).gather(1, k_of_x[:, None])[:, 0].split(sizes) for model, _ in seen]
    return [
        SheetRow(
            k,
            class_names[i],
            images_of,
            [of[row] for of in maps],
            [g[row] * one.W[i, k] for g, (_, one) in zip(features, seen, strict=True)],
        )
        for row, ((k, i, _), images_of) in enumerate(zip(chosen, x.split(sizes), strict=True))
    ]


@torch.no_grad()
def _features_of(model: Classifier, x: Float[Tensor, "m c h w"], batch: int = 250) -> Float[Tensor, "m d"]:
    with full_precision(), evaluating(model), in_float32(model):
        device = model.head.weight.device
        return torch.cat([model.features(part.to(device)).float().cpu() for part in x.split(batch)])
