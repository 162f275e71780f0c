"""Batch norm over the images of all processes, so that several processes compute what one would.

Each process adds its sums to those of the others (differentiably: the backward pass adds too), then
normalises its own images with the mean and the variance of all of them. torch's own SyncBatchNorm works on
GPUs only, and would communicate inside the attack; this one does not while its parameters are frozen.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from crossclass.core.errors import UserError


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of [n, c, h, w] whose statistics in train mode are those of all processes' images."""

    communicates = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [n, c, h, w]; all processes must call it together where it communicates.

        It does not communicate in eval mode, with frozen parameters (as in crafting), or inside `no_sync`.
        """
        if not (self.communicates and self.training and self.weight.requires_grad):
            return super().forward(x)
        n = x.new_full((), x.numel() / x.shape[1], dtype=torch.float32)
        sums = all_reduce(torch.cat([x.float().sum(dim=(0, 2, 3)), n[None]]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = x.float() - mean[:, None, None]
        variance = all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
        self._update_running(mean.detach(), variance.detach(), count)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)  # unbiased, as torch's


@contextmanager
def no_sync(model: nn.Module, holds: bool = True) -> Iterator[None]:
    """Inside, no batch norm of the model communicates: for a batch that every process has as a whole.

    Nothing changes if `holds` is false.
    """
    norms = [m for m in model.modules() if isinstance(m, SyncedBatchNorm2d)]
    try:
        for norm in norms:
            norm.communicates = not holds
        yield
    finally:
        for norm in norms:
            norm.communicates = True


def synchronize_batch_norm(model: nn.Module) -> None:
    """Turn every batch norm of a model, in place, into one whose statistics are those of all processes.

    Names and weights stay. Raises UserError for a batch norm that is not of images, or that has no weights:
    frozen weights are how it recognises crafting.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncedBatchNorm2d):
            if type(module) is not nn.BatchNorm2d or not module.affine:
                raise UserError(
                    f"runtime.sync_batch_norm=true works on BatchNorm2d with weights, and {name} is "
                    f"{type(module).__name__}; leave it out: each process then normalises its own images"
                )
            module.__class__ = SyncedBatchNorm2d
