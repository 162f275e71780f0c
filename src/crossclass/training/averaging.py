"""Averages of the weights along training, SWA and EMA; a run's checkpoints hold the average."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossclass.core.config import Settings
from crossclass.core.plugins import Family
from crossclass.models.model_state import evaluating
from crossclass.models.saved_state import put_buffer


class Average(Settings):
    """Base of the averages of weights over training."""

    kind: str
    start: int = Field(default=1, ge=1)
    """First epoch that is averaged; before it, the average is the network itself."""

    refreshes: ClassVar[bool] = False
    """Whether batch-norm statistics have to be computed anew for the average."""

    def after_step(self, average: nn.Module, model: nn.Module, epoch: int) -> None:
        """Update the average, in place, after a step of the optimizer."""

    def after_epoch(self, average: nn.Module, model: nn.Module, epoch: int) -> None:
        """Update the average, in place, at the end of an epoch."""


class SWA(Average):
    """Stochastic weight averaging (Izmailov et al. 2018): the mean over the ends of epochs from `start` on.

    Batch norm is refreshed by one pass over clean, augmented *training* images before the average is used,
    as in VITA-Group/Alleviate-Robust-Overfitting.
    """

    kind: Literal["swa"] = "swa"

    refreshes: ClassVar[bool] = True

    def after_epoch(self, average: nn.Module, model: nn.Module, epoch: int) -> None:
        """Add the weights at the end of an epoch, counted from 1."""
        mix(average, model, 1 / max(1, epoch - self.start + 1))


class EMA(Average):
    """Exponential moving average of the weights after every step; batch-norm statistics are copied."""

    kind: Literal["ema"] = "ema"
    decay: float = Field(default=0.995, ge=0, lt=1)
    """Share of the old average that a step keeps."""

    def after_step(self, average: nn.Module, model: nn.Module, epoch: int) -> None:
        """Add the weights after a step of an epoch, counted from 1."""
        mix(average, model, 1 - self.decay if epoch >= self.start else 1.0)


@torch.no_grad()
def mix(average: nn.Module, model: nn.Module, share: float) -> None:
    """average <- (1 - share) average + share model, in place; buffers become the model's."""
    for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
        mean.copy_(parameter) if share == 1 else mean.lerp_(parameter, share)
    for copy, module in zip(average.modules(), model.modules(), strict=True):
        for name, buffer in module._buffers.items():
            put_buffer(copy, name, buffer)


@torch.no_grad()
def refresh(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Compute batch-norm statistics anew, in place: the mean over all images that the batches hold.

    A batch counts by its images, as in VITA-Group/Alleviate-Robust-Overfitting, each time that a batch norm
    is used; in `torch.optim.swa_utils.update_bn` a short last batch counts as much as a full one, and dropout
    is on.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    images = dict.fromkeys(norms, 0)

    def weigh(norm: _BatchNorm, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        n = len(args[0] if args else named["input"])
        images[norm] += n
        norm.momentum = n / images[norm]

    with evaluating(model), ExitStack() as hooks:
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.train()
                handle = norm.register_forward_pre_hook(weigh, with_kwargs=True)
                hooks.callback(handle.remove)
            for x in batches:
                model(x)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


AnyAverage = Annotated[Average, Family(SWA, EMA)]
