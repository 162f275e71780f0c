"""A loss or a gradient that is no number: the first step in which it is, and the batch of that step.

Checking costs no wait for the device: the first bad batch is kept there, and asked for at the end of the
epoch. It is written into the run's folder, with a card that says how to come back to that step.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from crossclass.checkpoints.card import save_tensors
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.runtime import Runtime
from crossclass.training.alarms import Alarm

_NEVER = torch.iinfo(torch.int64).max


class FirstNonFinite:
    """The first step of an epoch whose loss or gradient is not finite, and its batch, on the device."""

    def __init__(self, device: torch.device) -> None:
        self._step = torch.full((), _NEVER, dtype=torch.int64, device=device)
        self._size = torch.zeros((), dtype=torch.int64, device=device)
        self._batch: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, step: int, finite: Bool[Tensor, ""], batch: Mapping[str, Tensor]) -> None:
        """Copy the batch if it is the first that is not finite; `step` counts from 0."""
        now = ~finite & (self._step == _NEVER)
        # not torch.where: it copies a Python number to the device, and waits for that
        self._step = self._step.masked_fill(now, step)
        for name, tensor in batch.items():
            self._size = self._size.masked_fill(now, len(tensor))
            if name not in self._batch:
                self._batch[name] = tensor.clone()
            else:
                copy = self._batch[name]
                if len(tensor) > len(copy):  # a last batch may give a process more rows than the others did
                    copy = self._batch[name] = torch.cat([copy, tensor[len(copy) :]])
                rows = copy[: len(tensor)]
                rows.copy_(torch.where(now, tensor, rows))

    @property
    def occurred(self) -> bool:
        """Whether a step was not finite; waits for the device."""
        return int(self._step) != _NEVER

    @property
    def step(self) -> int:
        """The first such step, counted from 0; 2^63 - 1 if there is none."""
        return int(self._step)

    @property
    def batch(self) -> dict[str, Tensor]:
        """What `update` was given in that step."""
        return {name: tensor[: int(self._size)] for name, tensor in self._batch.items()}


class NotFiniteError(ArithmeticError):
    """The training loss, or its gradient, is not a number."""

    def __init__(self, first: FirstNonFinite, epoch: int, lr: float) -> None:
        super().__init__(f"not finite in epoch {epoch}, step {first.step + 1}")
        self.first, self.epoch, self.lr = first, epoch, lr


def write_failure(folder: RunFolder, e: NotFiniteError, runtime: Runtime, labels: Tensor) -> Alarm:
    """Write the batch to `<run>/failure/` and what happened to failure.json; raises UserError if it cannot.

    Every process in whose step it came first writes its part of the batch.
    """
    group = runtime.group
    steps = group.map(range(group.size), lambda i, rank: e.first.step)
    first = min(steps)
    card: dict[str, Any] = {
        "epoch": e.epoch,
        "step": first + 1,
        "lr": e.lr,
        "images": "x and x_adv in [0, 1], the labels y, and their places (index) among the training images",
        "again": f"the state before is resume/epoch_{e.epoch - 1:05d}.safetensors (none before epoch 1)",
    }

    def file(rank: int) -> str:
        return "failure/batch.safetensors" if group.size == 1 else f"failure/batch_{rank}.safetensors"

    where = f"its sum at lr {e.lr:g}"  # where every step was finite
    if first != _NEVER:
        where = f"step {first + 1} at lr {e.lr:g}; its batch is kept in {file(steps.index(first))}"
        if e.first.step == first:
            batch = e.first.batch
            batch["y"] = labels.cpu()[batch["index"].cpu()]
            save_tensors(folder.path / file(group.rank), batch, card)
    evidence = f"the training loss or its gradient is not a number in {where}"
    alarm = Alarm("not-finite", e.epoch, e.epoch, evidence)
    group.on_main_process(lambda: folder.write("failure.json", {**asdict(alarm), "card": card}))
    return alarm
