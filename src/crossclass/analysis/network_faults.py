"""What of a network itself makes its numbers wrong, however it is fed: batch norm, noise, modes.

Looked at on a few clean images before an attack; a sound network passes with three forward passes of each.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossclass.analysis.accuracy_tests import above_chance, beats
from crossclass.analysis.evaluate import ROUNDING, relative_difference
from crossclass.core.classes import predicted
from crossclass.core.device import full_precision
from crossclass.core.rng import isolated_rng
from crossclass.models import Classifier
from crossclass.models.model_state import evaluating, frozen, in_float32

IMAGES = 200
"""So many are looked at."""


def network_warnings(
    model: Classifier, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], statistics: bool = True
) -> list[str]:
    """What a reader of the numbers must know of the network, a sentence each; it is left as it was.

    Args:
        model: Takes images in [0, 1].
        x: Clean images in [0, 1], of all classes.
        y: Their classes.
        statistics: Look at those of batch norm too.
    """
    with full_precision(), evaluating(model), in_float32(model), isolated_rng(0, x.device), torch.no_grad():
        first, second = _logits(model, x), _logits(model, x)
        training = [n or "the network" for n, m in model.named_modules() if m.training and _is_leaf(m)]
    out = []
    if training:
        out.append(
            f"{len(training)} of the network's layers stay in train mode after eval() ({training[0]}): what "
            "it says of an image depends on the others in its batch, or on noise"
        )
    if bool(first.isfinite().all()) and (gap := relative_difference(first, second)) > ROUNDING:
        out.append(
            f"the same images give other outputs a second time (by {gap:.1%} of the largest): robust "
            "accuracy is overstated unless the attack averages over the noise"
        )
    tracking = [m for m in batch_norms(model).values() if m.running_mean is not None]
    if statistics and tracking and len(x) >= 16:
        right, by_batch = predicted(first) == y, predictions_by_batch_statistics(model, x, IMAGES) == y
        if beats(by_batch, right, by=0.05) and above_chance(by_batch, y):
            now, then = (f"{100 * float(r.double().mean()):.1f} %" for r in (right, by_batch))
            out.append(
                f"batch norm's statistics are not those of these images: {now} of {len(x)} clean images are "
                f"right, with statistics of the images themselves {then}; run training batches through the "
                "network in train mode and save it again, or see what 'crossclass doctor' says"
            )
    return out


def predictions_by_batch_statistics(
    model: Classifier, x: Float[Tensor, "n c h w"], batch: int
) -> Int[Tensor, " n"]:
    """The classes said where batch norm (and nothing else) takes the statistics of the batch; none moves."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    # equal pieces: a last batch of a few images would have no statistics worth the name
    with full_precision(), frozen(model), _batch_statistics(model), torch.no_grad():
        return torch.cat([predicted(model(b.to(dtype))) for b in x.chunk(-(-len(x) // batch))])


@torch.no_grad()
def statistics_gap(model: Classifier, x: Float[Tensor, "n c h w"]) -> float:
    """How far the means that batch norm sees are from its own, in its deviations, on average; 0 without any.

    Below 0.2 where images are those of the training, beyond 1 where they are others.
    """
    gaps: list[float] = []

    def compare(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        if module.running_mean is None or module.running_var is None:
            return
        seen = given[0].transpose(0, 1).flatten(1).mean(dim=1)
        deviation = (module.running_var + module.eps).sqrt()
        gaps.append(float(((seen - module.running_mean).abs() / deviation).mean()))

    handles = [m.register_forward_pre_hook(compare) for m in batch_norms(model).values()]
    try:
        with full_precision(), frozen(model), isolated_rng(0, x.device):
            _logits(model, x[:IMAGES])
    finally:
        for handle in handles:
            handle.remove()
    return sum(gaps) / len(gaps) if gaps else 0.0


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Every batch norm by its name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    before = [(m, m.training, m.track_running_stats) for m in batch_norms(model).values()]
    try:
        for m, _, _ in before:
            m.training, m.track_running_stats = True, False
        yield
    finally:
        for m, training, tracking in before:
            m.training, m.track_running_stats = training, tracking


def _logits(model: Classifier, x: Tensor) -> Tensor:
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.cat([model(b.to(dtype)).float() for b in x.split(IMAGES)])


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())
