"""What changes during training: the network, its optimizer, an average of the weights, past predictions.

As plain tensors it is the state a run resumes from, bit for bit.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from crossclass.attacks.cuda_graphs import CudaGraphs
from crossclass.core.device import compile_for_crafting, to_device
from crossclass.core.runtime import Runtime
from crossclass.core.sync_batchnorm import synchronize_batch_norm
from crossclass.models import Classifier
from crossclass.training.averaging import refresh
from crossclass.training.run import Run


class TrainState:
    """What changes during the training of one run, on its device."""

    def __init__(self, run: Run, runtime: Runtime, built: Classifier, n: int, classes: int) -> None:
        self.run, self.runtime = run, runtime
        self.model = to_device(built, runtime.torch_device, runtime.memory_format)
        if runtime.sync_batch_norm and runtime.group.size > 1:
            synchronize_batch_norm(self.model)
        compiled = runtime.compile
        self.crafting = compile_for_crafting(self.model, runtime.torch_device) if compiled else self.model
        """The network as attacks call it: the same weights, maybe compiled."""
        self.graphs = CudaGraphs() if runtime.uses_graphs else None
        # frozen, so that no process waits for another while its batch norm is refreshed
        averaged = run.weight_averaging is not None
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False) if averaged else None
        self.optimizer = optimizer(run, self.model)
        self.micro_batch = runtime.micro_batch
        """At most so many images at once; falls when the memory is too small."""
        memory = run.ensembling.memory(n, classes) if run.ensembling is not None else {}
        self.memory = {name: tensor.to(runtime.torch_device) for name, tensor in memory.items()}
        self._visits = self.memory["visits"].clone() if self.memory else torch.zeros(0)

    def eval_model(self, images: Iterable[Tensor]) -> nn.Module:
        """The network that is checked and kept: the average if there is one, its batch norm refreshed."""
        if self.average is None:
            return self.model
        assert self.run.weight_averaging is not None
        if self.run.weight_averaging.refreshes:
            refresh(self.average, images)
        return self.average

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimizer updates."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def batch_coupling(self) -> list[str]:
        """What makes a training step depend on which images go through the network together."""
        modules = list(self.model.modules())
        names = ["batch norm"] if any(isinstance(m, _BatchNorm) for m in modules) else []
        names += ["dropout"] if any(_drops(m) for m in modules) else []
        return names + [type(r).__name__ for r in self.run.recipe.walk() if r.couples_batch]

    def sync_epoch(self) -> None:
        """End an epoch: batch norm of several processes becomes their mean, memories are put together."""
        for network in (self.model, self.average):
            if network is not None:
                self.runtime.group.average_buffers(network)
        if self.run.ensembling is not None and self.runtime.group.size > 1:
            self.run.ensembling.join(self.memory, self._visits, self.runtime.group.sum)
            self._visits = self.memory["visits"].clone()

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, names like `model/conv1.weight`, `momentum/...`, `average/...`, `memory/...`."""
        out = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        names = {id(p): n for n, p in self.model.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            if state.get("momentum_buffer") is not None:
                out[f"momentum/{names[id(parameter)]}"] = state["momentum_buffer"]
        if self.average is not None:
            out |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        return out | {f"memory/{k}": v for k, v in self.memory.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put a state back that `tensors` gave."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "momentum": {}, "average": {}, "memory": {}}
        for name, tensor in tensors.items():
            head, _, tail = name.partition("/")
            parts[head][tail] = tensor
        self.model.load_state_dict(parts["model"])
        by_name = dict(self.model.named_parameters())
        for name, buffer in parts["momentum"].items():
            like = by_name[name]
            self.optimizer.state[like]["momentum_buffer"] = torch.empty_like(like).copy_(buffer)
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        for name, tensor in parts["memory"].items():
            self.memory[name].copy_(tensor)
        if self.memory:
            self._visits = self.memory["visits"].clone()


def _drops(module: nn.Module) -> bool:
    """Whether a module draws what it leaves out: the draws depend on which images go through together."""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return type(module).__name__ in ("DropPath", "StochasticDepth")  # timm's and torchvision's


def optimizer(run: Run, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum; `decay_bias_and_norm=false` gives biases and batch norm a group without decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": run.weight_decay}]
    if not run.decay_bias_and_norm:
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": run.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    fused = all(p.is_cuda for p in parameters) or None  # one kernel for all of them
    return torch.optim.SGD(groups, lr=run.lr, momentum=run.momentum, fused=fused)
