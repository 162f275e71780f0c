"""Several processes that train or measure together (`torchrun`, `accelerate launch`), by Accelerate.

All processes hold the same weights. Each takes its rows of the global batch, and their gradients are summed
once a step, before the optimizer. Models are never wrapped, and nothing is sent inside an attack: adversarial
training takes eleven gradients for every such message, so overlapping the two would save nothing. The first
process writes the files; what it does alone (`on_main_process`) returns or fails in all processes alike.
"""

import atexit
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor, nn

from crossclass.core.errors import UserError, first_line
from crossclass.core.launch_environment import check_launcher, launcher_variables

T = TypeVar("T")
R = TypeVar("R")


class ProcessGroup:
    """The processes of one launch, of which the process with rank 0 is the main process."""

    def __init__(self, engine: Accelerator) -> None:
        self.engine = engine
        self.rank = int(engine.process_index)
        """This process's number, from 0."""
        self.local_rank = int(engine.local_process_index)
        """This process's number on its machine, from 0."""
        self.size = int(engine.num_processes)
        """How many processes there are."""

    def rows(self, n: int) -> slice:
        """This process's rows of a global batch of n; all rows if n is less than the number of processes."""
        if n < self.size:
            return slice(0, n)
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def weight(self, n: int) -> float:
        """The weight of each of this process's `rows(n)` in sums over processes; below 1 if they repeat."""
        return 1.0 if n >= self.size else 1 / self.size

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor, in place, by its sum over processes; one message for all."""
        if self.size == 1 or not tensors:
            return
        flat = reduce(torch.cat([t.reshape(-1) for t in tensors]), "sum")
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def average_buffers(self, model: nn.Module) -> None:
        """Replace floating-point buffers, such as batch-norm statistics, by their mean over processes."""
        buffers = [b for b in model.buffers() if b.is_floating_point()]
        self.sum(buffers)
        for buffer in buffers if self.size > 1 else ():
            buffer.div_(self.size)

    def map(self, items: Sequence[T], work: Callable[[int, T], R]) -> list[R]:
        """`[work(i, item), ...]` in order, in every process; each call is made by one process only."""
        mine = [(i, work(i, item)) for i, item in enumerate(items) if i % self.size == self.rank]
        pairs = gather_object(mine) if self.size > 1 else mine
        return [result for _, result in sorted(pairs, key=lambda pair: pair[0])]

    def on_main_process(self, work: Callable[[], R]) -> R:
        """Call `work` in the main process; all processes get its result, or raise its UserError.

        The error then has `in_every_process` set.
        """
        if self.size == 1:
            return work()
        outcome: list[Any] = [None]
        if self.rank == 0:
            try:
                outcome = [(True, work())]
            except UserError as e:
                outcome = [(False, e)]
        fine, result = broadcast_object_list(outcome)[0]
        if not fine:
            result.in_every_process = True
            raise result
        value: R = result
        return value


def join_processes(cpu: bool, tracker: str | None) -> ProcessGroup:
    """Start Accelerate in this process and join the others, if a launcher started several.

    Accelerate has one state per Python process, which keeps the device of the first call. Its mixed precision
    is off: this package chooses the precision itself. Raises UserError if the environment holds variables of
    a launcher that cannot be followed.
    """
    check_launcher()
    names = launcher_variables()  # before Accelerate sets more of them
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no supported trackers")  # `require_tracker` raises
        try:
            # Accelerate refuses a CPU after a GPU in one process; `torch_device` decides where tensors go
            on_gpu = PartialState._shared_state and PartialState().device.type != "cpu"
            engine = Accelerator(
                cpu=cpu and not on_gpu, mixed_precision="no", log_with=tracker, project_dir="."
            )
        except Exception as e:
            if not names:
                raise
            raise UserError(
                f"the environment sets {', '.join(names)}, which cannot be followed here "
                f"({first_line(e)}); unset what another launcher left, or start with torchrun"
            ) from e
    if engine.num_processes > 1:  # else gloo's threads outlive the interpreter, and abort
        atexit.register(PartialState().destroy_process_group)
    return ProcessGroup(engine)
