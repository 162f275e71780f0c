"""Where and how a run is executed: device, layout, threads, processes. The only import of Accelerate.

Nothing here may change what a run is; that is `Run`'s business. Models are never wrapped: inside an attack
nothing goes between processes, and a frozen view misses nothing.

Several processes (`torchrun`, `accelerate launch`) hold the same weights. Each takes its rows of the global
batch, and their gradients are summed once a step, before the optimizer: adversarial training takes eleven
gradients for every such message, so there is nothing to hide behind it. The first process writes the
files; what it does alone (`on_main_process`) ends in all of them alike, also when it fails.
"""

import atexit
import math
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from pydantic import Field, model_validator
from torch import Tensor, nn

from crossclass.core import allocator
from crossclass.core.config import Settings
from crossclass.core.errors import UserError, first_line
from crossclass.core.launcher import check_launcher, launcher_variables
from crossclass.core.sync_batchnorm import synced

T = TypeVar("T")
R = TypeVar("R")

Tracker = Literal[
    "tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio"
]


class Runtime(Settings):
    """Execution settings; kept in a run's env.json and not in its digest."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes a GPU if there is one."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; unset leaves torch's choice."""
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Memory layout of convolutions; `auto` is channels-last, which pays wherever we measured."""
    micro_batch: int | None = Field(default=None, ge=1)
    """At most so many images at once in a process; gradients add up to those of the whole batch."""
    sync_batch_norm: bool = False
    """Batch norm sees the images of all processes; unset, each process normalises its own."""
    graphs: Literal["auto", "off"] = "auto"
    """On a CUDA GPU `auto` replays crafting as a CUDA graph and draws its noise there; `off` does neither."""
    compile: bool = False
    """Compile the network for crafting: half a minute first; on CPUs it saves a tenth of it at most."""
    emulate_bf16: bool = False
    """Compute in bf16 even on a CPU that is slow at it; unset, such a CPU takes float32, and says so."""
    track: Tracker | None = None
    """Where else to send every epoch's numbers, by Accelerate's own integration."""

    @model_validator(mode="after")
    def _together(self) -> "Runtime":
        if self.sync_batch_norm and self.micro_batch is not None:
            raise ValueError(
                "sync_batch_norm wants the whole batch at once, and processes may cut theirs into "
                "unlike numbers of pieces; leave out micro_batch"
            )
        return self

    @cached_property
    def engine(self) -> Accelerator:
        """The engine; precision is ours (`frozen` and the loop's autocast), so it stays at fp32 here."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("runtime.device=cuda, but torch sees no GPU; use runtime.device=auto")
        if self.device == "mps" and not torch.backends.mps.is_available():
            raise UserError("runtime.device=mps, but torch sees none; use runtime.device=auto")
        check_launcher()
        none = not (torch.cuda.is_available() or torch.backends.mps.is_available())
        cpu = self.device == "cpu" or (self.device == "auto" and none)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no supported trackers")  # said below, in our words
            engine = _accelerator(cpu, self.track)
        if cpu:
            allocator.keep_freed_memory()
        if engine.num_processes > 1:  # else gloo's threads outlive the interpreter, and abort
            atexit.register(PartialState().destroy_process_group)
        if self.threads is not None:  # after the engine, which sets them itself for several processes
            torch.set_num_threads(self.threads)
        if self.track is not None and not engine.log_with:  # Accelerate leaves out what is not installed
            raise UserError(
                f"runtime.track={self.track} needs its package: pip install {self.track}; metrics.csv and "
                "events.jsonl are written without it"
            )
        return engine

    @property
    def torch_device(self) -> torch.device:
        """The device of tensors and models.

        The engine is one per Python process and keeps the device it was first asked for; this does not.
        """
        engine, kind = self.engine, self.device
        if kind == "auto":
            cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
            kind = "cuda" if cuda else "mps" if mps else "cpu"
        return torch.device(kind, engine.local_process_index) if kind == "cuda" else torch.device(kind)

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and convolutions."""
        return torch.contiguous_format if self.layout == "contiguous" else torch.channels_last

    def to_device(self, model: nn.Module) -> nn.Module:
        """The model on the device, in the layout."""
        model = model.to(self.torch_device)
        return model.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model as it is trained: the same module, its batch norm joined with the others' if so set."""
        if self.sync_batch_norm and self.processes > 1:
            synced(model)
        return model

    def crafting(self, model: nn.Module) -> nn.Module:
        """The same network as attacks call it in training: compiled, if so set.

        Never the loss: GradAlign differentiates twice and AWP exchanges weights, and neither can be compiled.
        Raises UserError if there is nothing to compile with.
        """
        if not self.compile:
            return model
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
        if self.torch_device.type == "cpu" and not compiler:
            raise UserError("runtime.compile=true needs a C++ compiler (g++); install one, or leave it out")
        # only full batches go through it: one shape, and no second compilation for shapes in general
        compiled: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
        return compiled

    @property
    def uses_graphs(self) -> bool:
        """Whether crafting is replayed as CUDA graphs, its noise drawn on the GPU."""
        return self.graphs == "auto" and self.torch_device.type == "cuda"

    @property
    def noise_device(self) -> torch.device:
        """Where crafting's noise is drawn: a CPU's is the same on every machine, but a GPU waits for it."""
        return self.torch_device if self.uses_graphs else torch.device("cpu")

    @contextmanager
    def cudnn_benchmark(self) -> Iterator[None]:
        """Inside, on a GPU, cuDNN tries its algorithms for every shape once and keeps the fastest."""
        before = torch.backends.cudnn.benchmark
        try:
            torch.backends.cudnn.benchmark = before or self.torch_device.type == "cuda"
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    def uses_bf16(self, before: bool | None = None) -> bool:
        """Whether bf16, where a run asks for it, is computed: always but on a CPU that is slow at it.

        A run that is resumed keeps to what it did `before`: another timing might decide otherwise.
        """
        if self.emulate_bf16:
            return True
        if before is not None:
            return before
        return self.torch_device.type != "cpu" or self.on_main_process(bf16_pays)

    @property
    def oversubscribed(self) -> bool:
        """Whether others keep half of the cores busy: threads that wait for each other then crawl."""
        if self.torch_device.type != "cpu" or torch.get_num_threads() == 1 or not hasattr(os, "getloadavg"):
            return False
        return os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1)

    @property
    def processes(self) -> int:
        """How many train or measure together."""
        return int(self.engine.num_processes)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return bool(self.engine.is_main_process)

    def rows(self, n: int) -> slice:
        """This process's rows of a global batch of n; all rows where there are fewer than processes."""
        if n < self.processes:
            return slice(0, n)
        at, of = self.engine.process_index, self.processes
        return slice(at * n // of, (at + 1) * n // of)

    def weight(self, n: int) -> float:
        """How much each of this process's rows counts in sums over processes (`rows` may repeat them)."""
        return 1.0 if n >= self.processes else 1 / self.processes

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over processes in place of every tensor, in one message."""
        if self.processes == 1 or not tensors:
            return
        flat = reduce(torch.cat([t.reshape(-1) for t in tensors]), "sum")
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def average(self, model: nn.Module) -> None:
        """Buffers such as batch-norm statistics become the mean over processes; counts stay."""
        buffers = [b for b in model.buffers() if b.is_floating_point()]
        self.sum(buffers)
        for buffer in buffers if self.processes > 1 else ():
            buffer.div_(self.processes)

    def distributed_map(self, items: Sequence[T], work: Callable[[int, T], R]) -> list[R]:
        """`work(i, item)` of every item, each done by one process; every process gets all, in order."""
        at, of = self.engine.process_index, self.processes
        mine = [(i, work(i, item)) for i, item in enumerate(items) if i % of == at]
        found = gather_object(mine) if of > 1 else mine
        return [result for _, result in sorted(found, key=lambda pair: pair[0])]

    def on_main_process(self, work: Callable[[], R]) -> R:
        """Do something in the first process; all get its result, or its UserError."""
        if self.processes == 1:
            return work()
        outcome: list[Any] = [None]
        if self.is_first:
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

    @contextmanager
    def entered(self, context: AbstractContextManager[Any]) -> Iterator[None]:
        """Inside, the first process is in a context, such as one that holds a lock."""
        with ExitStack() as stack:

            def enter() -> None:
                stack.enter_context(context)

            self.on_main_process(enter)
            yield

    @contextmanager
    def tracked(
        self, name: str, folder: Path, settings: Mapping[str, Any]
    ) -> Iterator[Callable[[Mapping[str, Any], int], None]]:
        """Where to send numbers of an epoch: `send(row, epoch)`; to nobody unless `track` is set."""
        if self.track is None:
            yield lambda row, epoch: None
            return
        plain = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in settings.items()}
        self.engine.project_configuration.logging_dir = str(folder)
        self.engine.init_trackers(name, config=plain)

        def send(row: Mapping[str, Any], epoch: int) -> None:
            numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "epoch"}
            self.engine.log(numbers, step=epoch)

        try:
            yield send
        finally:
            for tracker in self.engine.trackers if self.is_first else ():
                tracker.finish()
            self.engine.trackers.clear()

    def about(self) -> dict[str, Any]:
        """What a number was made with, for env.json."""
        gpu = torch.cuda.get_device_name() if self.torch_device.type == "cuda" else None
        return {
            "crossclass": version("crossclass"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": str(self.torch_device),
            "processor": gpu or platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "layout": str(self.memory_format).removeprefix("torch."),
            "processes": self.processes,
            "micro_batch": self.micro_batch,
            "sync_batch_norm": self.sync_batch_norm,
            "graphs": self.uses_graphs,
            "compile": self.compile,
        }


def _accelerator(cpu: bool, track: str | None) -> Accelerator:
    names = launcher_variables()  # before Accelerate sets more of them
    # Accelerate refuses a CPU after a GPU in one process; `torch_device` decides where tensors go
    on_gpu = PartialState._shared_state and PartialState().device.type != "cpu"
    try:
        return Accelerator(cpu=cpu and not on_gpu, mixed_precision="no", log_with=track, project_dir=".")
    except Exception as e:
        if not names:
            raise
        raise UserError(
            f"the environment sets {', '.join(names)}, which cannot be followed here "
            f"({first_line(e)}); unset what another launcher left, or start with torchrun"
        ) from e


@cache
def bf16_pays() -> bool:
    """Whether this CPU is faster at a convolution and its gradient in bf16: tried once, in about 20 ms.

    Tried and not looked up, because a processor that has the instructions may meet a torch that does not use
    them, and emulation takes several times as long as float32. The least of eight tries each, in turns.
    """
    least = dict.fromkeys((True, False), math.inf)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        layer = nn.Conv2d(32, 32, 3, padding=1).requires_grad_(False)
        x = torch.rand(16, 32, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
        for lower in (True, False) * 8:
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=lower):
                torch.autograd.grad(layer(x).float().sum(), x)
            least[lower] = min(least[lower], time.perf_counter() - started)
    return least[True] <= 1.25 * least[False]  # near 1 it does not matter, and the settings are obeyed


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
