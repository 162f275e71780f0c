"""How a run is executed: device, memory format, threads, processes, tracker.

None of these settings changes what a run is; that is `Run`'s business.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from crossclass.core.config import Settings
from crossclass.core.cpu_threads import threads_to_take
from crossclass.core.device import Device, bf16_pays, device_type, keep_freed_memory
from crossclass.core.distributed import ProcessGroup, join_processes
from crossclass.core.progress import Log
from crossclass.core.trackers import Tracker, require_tracker


class Runtime(Settings):
    """Execution settings; kept in a run's env.json and not in its digest."""

    device: Device = "auto"
    """`auto` takes a GPU if there is one."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; unset takes torch's choice, and to train only as many as the machine has idle cores."""
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Memory format of images and convolutions; `auto` is channels-last, the faster one wherever measured."""
    micro_batch: int | None = Field(default=None, ge=1)
    """The most images that a process computes at once; gradients add up to those of the whole batch."""
    sync_batch_norm: bool = False
    """Batch norm takes its statistics from the images of all processes; unset, from those of its own."""
    graphs: Literal["auto", "off"] = "auto"
    """On a CUDA GPU `auto` replays crafting as a CUDA graph and draws its noise there; `off` does neither."""
    compile: bool = False
    """Compile the network for crafting: half a minute at first; on CPUs it saves a tenth at most."""
    emulate_bf16: bool = False
    """Compute in bf16 even on a CPU that is slow at it; unset, such a CPU takes float32, with a note."""
    track: Tracker | None = None
    """The experiment tracker that gets every epoch's numbers too, by Accelerate's integration."""

    @model_validator(mode="after")
    def _together(self) -> "Runtime":
        if self.sync_batch_norm and self.micro_batch is not None:
            raise ValueError(
                "sync_batch_norm needs the whole batch at once, and processes may cut theirs into "
                "different numbers of pieces; leave out micro_batch"
            )
        return self

    @cached_property
    def group(self) -> ProcessGroup:
        """The processes that train or measure together, joined at the first use of this.

        Raises UserError if the device, the launcher's variables or the tracker cannot be used.
        """
        cpu = device_type(self.device) == "cpu"
        group = join_processes(cpu, self.track)
        if cpu:
            keep_freed_memory()
        if self.threads is not None:  # after Accelerate, which sets them itself for several processes
            torch.set_num_threads(self.threads)
        if self.track is not None:
            require_tracker(group.engine, self.track)
        return group

    @cached_property
    def torch_device(self) -> torch.device:
        """The device of tensors and models: that of these settings, also if Accelerate keeps another one."""
        local_rank, kind = self.group.local_rank, device_type(self.device)
        return torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of images and convolutions."""
        return torch.contiguous_format if self.layout == "contiguous" else torch.channels_last

    @property
    def uses_graphs(self) -> bool:
        """Whether crafting is replayed as CUDA graphs, its noise drawn on the GPU."""
        return self.graphs == "auto" and self.torch_device.type == "cuda"

    @property
    def noise_device(self) -> torch.device:
        """Where crafting's noise is drawn: a CPU's is the same on every machine, but a GPU waits for it."""
        return self.torch_device if self.uses_graphs else torch.device("cpu")

    def uses_bf16(self, before: bool | None = None) -> bool:
        """Whether bf16, where a run asks for it, is computed: always but on a CPU that is slow at it.

        `before` is what a resumed run did before, which it keeps: another timing might decide otherwise.
        """
        if self.emulate_bf16:
            return True
        if before is not None:
            return before
        return self.torch_device.type != "cpu" or self.group.on_main_process(bf16_pays)

    @contextmanager
    def training_threads(self, before: int | None, log: Log) -> Iterator[None]:
        """Inside, torch takes as many CPU threads as the machine can spare, unless they are given.

        `before` is how many a run that is resumed took, which it keeps. What differs from torch's own choice
        is logged.
        """
        usual = torch.get_num_threads()
        try:
            if self.threads is None and self.group.size == 1 and self.torch_device.type == "cpu":
                threads, note = threads_to_take(before)
                torch.set_num_threads(threads)
                if note:
                    log(note)
            yield
        finally:
            torch.set_num_threads(usual)

    def describe(self) -> dict[str, Any]:
        """Versions, device, processor and settings with which numbers were computed, for env.json."""
        gpu = torch.cuda.get_device_name() if self.torch_device.type == "cuda" else None
        return {
            "crossclass": version("crossclass"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": str(self.torch_device),
            "processor": gpu or platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "layout": str(self.memory_format).removeprefix("torch."),
            "processes": self.group.size,
            "micro_batch": self.micro_batch,
            "sync_batch_norm": self.sync_batch_norm,
            "graphs": self.uses_graphs,
            "compile": self.compile,
        }
