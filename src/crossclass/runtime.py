"""Where and how a run is executed: device, layout, threads, processes. The only import of Accelerate.

Nothing here may change what a run is; that is `Run`'s business. Attacks get the `bare` module: no
traffic between processes, and no wrapper that a frozen view would miss.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from pydantic import Field
from torch import Tensor, nn

from crossclass.errors import UserError
from crossclass.settings import Settings


class Runtime(Settings):
    """Execution settings; kept in a run's env.json and not in its digest."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes a GPU if there is one."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; unset leaves torch's choice."""
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Memory layout of convolutions; `auto` is channels-last, which pays wherever we measured."""

    @cached_property
    def engine(self) -> Accelerator:
        """The engine; precision is ours (`frozen` and the loop's autocast), so it stays at fp32 here."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("runtime.device=cuda, but torch sees no GPU; use runtime.device=auto")
        if self.device == "mps" and not torch.backends.mps.is_available():
            raise UserError("runtime.device=mps, but torch sees none; use runtime.device=auto")
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return Accelerator(cpu=self.device == "cpu", mixed_precision="no")

    @property
    def place(self) -> torch.device:
        """The device of tensors and models."""
        device: torch.device = self.engine.device
        return device

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and convolutions."""
        return torch.contiguous_format if self.layout == "contiguous" else torch.channels_last

    def placed(self, model: nn.Module) -> nn.Module:
        """The model on the device, in the layout."""
        model = model.to(self.place)
        return model.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def prepared(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Model and optimizer as the engine wants them for training."""
        both: tuple[nn.Module, torch.optim.Optimizer] = self.engine.prepare(model, optimizer)
        return both

    def bare(self, model: nn.Module) -> nn.Module:
        """The module without any wrapper of the engine's."""
        module: nn.Module = extract_model_from_parallel(model)
        return module

    def backward(self, loss: Tensor) -> None:
        """Back-propagate, summed over processes by the engine."""
        self.engine.backward(loss)

    def about(self) -> dict[str, Any]:
        """What a number was made with, for env.json."""
        gpu = torch.cuda.get_device_name() if self.place.type == "cuda" else None
        return {
            "crossclass": version("crossclass"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": str(self.place),
            "processor": gpu or platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "layout": str(self.memory_format).removeprefix("torch."),
            "processes": int(self.engine.num_processes),
        }


def native_bf16() -> bool:
    """Whether this CPU computes in bf16 itself; others emulate it, very slowly."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 without TF32 or autocast: the only precision in which numbers are reported."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
