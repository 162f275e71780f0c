"""Crafting as one CUDA graph: all steps of PGD are recorded once, then replayed without the host.

At batch 128 a PGD step of PreActResNet-18 is 200 small kernels, and launching them takes longer than
computing them. A graph launches all of them at once. `PGD.ascend` is recorded once per attack, network and
shape, when the same comes twice in a row (a smaller last batch never does); images, labels and start are
copied into fixed tensors before each replay. The graph reads the weights from the network's own tensors, so a
replay uses what the optimizer wrote. In train mode batch norm's running statistics move in every replay as
they do without a graph.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from crossclass.attacks.base import AttackResult, Images, Network, validate_images
from crossclass.attacks.losses import Labels
from crossclass.core.classes import known_labels
from crossclass.core.errors import first_line
from crossclass.models.model_state import frozen

if TYPE_CHECKING:  # PGD asks for the graphs in use, so its module imports this one
    from crossclass.attacks.pgd import PGD

Outputs = tuple[Tensor, Tensor]
"""Adversarial images [n, ...] and the number of unusable gradients [n]."""
Job = Callable[[], Outputs]
Capture = Callable[[Job], tuple[Callable[[], object], Outputs]]
"""Records a job; returns what runs it again, and the tensors that hold its results after that."""

WARM_UP_RUNS = 3
"""Runs before recording, in which libraries choose their algorithms and allocate."""
MAX_GRAPHS = 4
"""At most so many graphs are kept; each holds the activations of a step."""


def capture_cuda_graph(job: Job) -> tuple[Callable[[], object], Outputs]:
    """Record a job as a CUDA graph, in the way that PyTorch's manual describes."""
    usual, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(usual)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_RUNS):
            job()
    usual.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            outputs = job()
    finally:
        torch.cuda.set_stream(usual)  # where recording fails, torch leaves its own stream current
    return graph.replay, outputs


class CudaGraphs:
    """The recorded attacks of one training run.

    `capture` records an attack; tests without a GPU give another one.
    """

    def __init__(self, capture: Capture = capture_cuda_graph) -> None:
        self._capture = capture
        self._recorded: dict[Hashable, _RecordedAttack] = {}
        self._last_key: Hashable = None
        self._warning: str | None = None
        self.failed = False
        """Whether recording failed; nothing is recorded any more then."""
        self.replays = 0
        """How many batches were crafted by replay."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, PGD crafts by replay where it can."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)

    def pop_warning(self) -> str | None:
        """Why there are no graphs, once; None if recording did not fail."""
        warning, self._warning = self._warning, None
        return warning

    def search(
        self, attack: "PGD", model: Network, x: Images, y: Labels, generator: torch.Generator | None
    ) -> AttackResult | None:
        """The result of `attack.search`, by replay; None where the attack must run without a graph."""
        if self.failed or not isinstance(model, nn.Module) or not _can_be_recorded(attack):
            return None
        key = (attack, id(model), *((t.shape, t.stride(), t.dtype, t.device) for t in (x, y)))
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            x = validate_images(x, attack.box)
            if key not in self._recorded:
                if key != self._last_key:
                    self._last_key = key
                    return None
                try:
                    recorded = _RecordedAttack(attack, model, x, y, self._capture)
                except RuntimeError as e:  # torch's and the driver's; what cannot be recorded can be run
                    self.failed = True
                    self._recorded.clear()
                    self._warning = (
                        "crafting could not be recorded as a CUDA graph and goes on without "
                        f"({first_line(e)})"
                    )
                    return None
                if len(self._recorded) == MAX_GRAPHS:
                    del self._recorded[next(iter(self._recorded))]  # the oldest
                self._recorded[key] = recorded
            self.replays += 1
            return self._recorded[key](x, attack.draw_start(x, generator), y)


class _RecordedAttack:
    """One recorded attack with the tensors that it reads and writes."""

    def __init__(self, attack: "PGD", model: nn.Module, x: Images, y: Labels, capture: Capture) -> None:
        self._model = model  # kept alive: the graph reads its weights
        self._x, self._y, self._delta = x.clone(), y.clone(), torch.zeros_like(x)
        buffers = [(b, b.clone()) for b in model.buffers()]
        devices = [x.device] if x.is_cuda else []
        with (
            torch.random.fork_rng(devices=devices),  # warm-up draws for dropout, and the replay draws again
            torch.enable_grad(),
            frozen(model, attack.bn, attack.precision) as f,
        ):

            def job() -> Outputs:
                with known_labels():  # reading them would end the recording; the loop has checked them
                    reference = f(self._x).detach() if attack.loss == "kl" else None
                    result, _ = attack.ascend(f, self._x, self._y, reference, self._delta, scored=False)
                return result.x_adv, result.dead_gradients

            try:
                self._replay, self._outputs = capture(job)
            finally:
                with torch.no_grad():
                    for buffer, before in buffers:  # warm-up has moved batch norm
                        buffer.copy_(before)

    def __call__(self, x: Images, delta: Tensor, y: Labels) -> AttackResult:
        for fixed, new in ((self._x, x), (self._delta, delta), (self._y, y)):
            fixed.copy_(new)
        self._replay()
        x_adv, dead_gradients = self._outputs
        return AttackResult(x_adv.clone(), None, dead_gradients.clone())


def _can_be_recorded(attack: "PGD") -> bool:
    """Whether every step is the same whatever comes out, and nothing of the network is restored after it."""
    return attack.return_iterate == "last" and attack.restarts == 1 and attack.bn != "train_frozen_stats"


_ACTIVE: ContextVar[CudaGraphs | None] = ContextVar("cuda_graphs", default=None)


def active_graphs() -> CudaGraphs | None:
    """The graphs of the training that is under way; None outside of `CudaGraphs.active`."""
    return _ACTIVE.get()
