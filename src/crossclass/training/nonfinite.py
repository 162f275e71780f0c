"""A loss or a gradient that is no number: which step it was first, and the batch that it was.

Looking costs no wait for the device: the first bad batch is kept where it lies, and asked for at the end of
the epoch. It is written into the run's folder, with a card that says how to come back to that step.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from crossclass.checkpoints.card import save_checkpoint
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.runtime import Runtime
from crossclass.training.alarms import Alarm

NAME = "not-finite"
_NEVER = torch.iinfo(torch.int64).max


class FirstNonFinite:
    """The first step of an epoch that is not finite, on the device."""

    def __init__(self, device: torch.device) -> None:
        self._step = torch.full((), _NEVER, dtype=torch.int64, device=device)
        self._size = torch.zeros((), dtype=torch.int64, device=device)
        self._kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def look(self, step: int, fine: Bool[Tensor, ""], batch: Mapping[str, Tensor]) -> None:
        """Keep the batch if it is the first that is not fine."""
        now = ~fine & (self._step == _NEVER)
        self._step = torch.where(now, step, self._step)
        for name, tensor in batch.items():
            self._size = torch.where(now, len(tensor), self._size)
            if name not in self._kept:
                self._kept[name] = tensor.clone()
            else:
                kept = self._kept[name]
                if len(tensor) > len(kept):  # a last batch may give a process more rows than the others did
                    kept = self._kept[name] = torch.cat([kept, tensor[len(kept) :]])
                place = kept[: len(tensor)]
                place.copy_(torch.where(now, tensor, place))

    @property
    def found(self) -> bool:
        """Whether a step was bad; waits for the device."""
        return int(self._step) != _NEVER

    @property
    def step(self) -> int:
        """The first bad step, counted from 0; a huge number if there is none."""
        return int(self._step)

    @property
    def batch(self) -> dict[str, Tensor]:
        """The images, adversarial images and indices of the first bad step."""
        return {name: tensor[: int(self._size)] for name, tensor in self._kept.items()}


class NotFiniteError(ArithmeticError):
    """The training loss, or its gradient, is not a number."""

    def __init__(self, watched: FirstNonFinite, epoch: int, lr: float) -> None:
        super().__init__(f"not finite in epoch {epoch}, step {watched.step + 1}")
        self.watched, self.epoch, self.lr = watched, epoch, lr


def written(folder: RunFolder, e: NotFiniteError, runtime: Runtime, labels: Tensor) -> Alarm:
    """Keep the batch in `<run>/failure/`, say what happened in failure.json; raises UserError if it cannot.

    Every process in whose step it came first writes its part of the batch.
    """
    steps = runtime.distributed_map(range(runtime.processes), lambda i, rank: e.watched.step)
    first = min(steps)
    at = steps.index(first)
    mine = runtime.engine.process_index
    card: dict[str, Any] = {
        "epoch": e.epoch,
        "step": first + 1,
        "lr": e.lr,
        "images": "x and x_adv in [0, 1], the labels y, and their places (index) among the training images",
        "again": f"the state before is resume/epoch_{e.epoch - 1:05d}.safetensors (none before epoch 1)",
    }
    name = "batch" if runtime.processes == 1 else f"batch_{mine}"
    if first != _NEVER and e.watched.step == first:
        batch = e.watched.batch
        batch["y"] = labels.cpu()[batch["index"].cpu()]
        save_checkpoint(folder.path / "failure" / f"{name}.safetensors", batch, card)
    where = f"{'batch' if runtime.processes == 1 else f'batch_{at}'}.safetensors"
    kept = f"; its batch is kept in failure/{where}" if first != _NEVER else ""
    step = f"step {first + 1}" if first != _NEVER else "its sum"
    evidence = f"the training loss or its gradient is not a number in {step} at lr {e.lr:g}{kept}"
    alarm = Alarm(NAME, e.epoch, e.epoch, evidence)
    runtime.on_main_process(lambda: folder.write("failure.json", {**asdict(alarm), "card": card}))
    return alarm
