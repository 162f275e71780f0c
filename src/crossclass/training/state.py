"""What changes during training: the network, its optimizer, an average of the weights, past predictions.

As plain tensors it is the state a run resumes from, bit for bit.
"""

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossclass.attacks import AutoAttack, External, Images
from crossclass.attacks.cuda_graphs import CudaGraphs
from crossclass.core.device import compile_for_crafting, out_of_memory, to_device
from crossclass.core.rng import isolated_rng, stream_seed
from crossclass.core.runtime import Runtime
from crossclass.core.sync_batchnorm import synchronize_batch_norm
from crossclass.data import Splits, as_float
from crossclass.models import Classifier
from crossclass.models.model_state import frozen
from crossclass.models.saved_state import copied, load_saved, saved_state
from crossclass.training.averaging import refresh
from crossclass.training.run import Run


class TrainState:
    """What changes during the training of one run, on its device."""

    def __init__(self, run: Run, runtime: Runtime, built: Classifier, splits: Splits) -> None:
        self.run, self.runtime = run, runtime
        self.model = to_device(built, runtime.torch_device, runtime.memory_format)
        self._normed = any(isinstance(m, _BatchNorm) for m in self.model.modules())
        few = splits.train.images[: 2 if self._normed else 1].to(runtime.torch_device)
        self._draws = draws_random_numbers(self.model, as_float(few))
        if runtime.sync_batch_norm and runtime.group.size > 1:
            synchronize_batch_norm(self.model)
        compiled = runtime.compile
        self.crafting = compile_for_crafting(self.model, runtime.torch_device) if compiled else self.model
        """The network as attacks call it: the same weights, maybe compiled."""
        self.graphs = CudaGraphs() if runtime.uses_graphs else None
        # frozen, so that no process waits for another while its batch norm is refreshed
        averaged = run.weight_averaging is not None
        self.average = copied(self.model).eval().requires_grad_(False) if averaged else None
        self.optimizer = optimizer(run, self.model)
        self.micro_batch = runtime.micro_batch
        """At most so many images at once; falls when the memory is too small."""
        n, classes = len(splits.train), len(splits.class_names)
        memory = run.ensembling.memory(n, classes) if run.ensembling is not None else {}
        self.memory = {name: tensor.to(runtime.torch_device) for name, tensor in memory.items()}
        self._keep_memory()

    def eval_model(self, epoch: int, images: Iterable[Images]) -> Classifier:
        """The network that is validated and saved: the average if there is one, else the network itself.

        Batch norm of the average is refreshed on `images`, batches of training images, if its kind needs it.
        """
        if self.average is None or self.run.weight_averaging is None:
            return self.model
        if self.run.weight_averaging.refreshes:
            # row 1: the order of the images has the stream of row 0
            seed = stream_seed(self.run.seed, epoch, 0, "refresh", 1)
            with isolated_rng(seed, self.runtime.torch_device):
                refresh(self.average, images)
        return self.average

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimizer updates."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def batch_coupling(self) -> list[str]:
        """What makes a training step depend on which images go through the network together."""
        names = ["batch norm"] if self._normed else []
        names += ["random layers"] if self._draws else []
        names += [type(r).__name__ for r in self.run.recipe.walk() if r.couples_batch]
        attack = self.run.recipe.crafting_attack
        return names + ([type(attack).__name__] if isinstance(attack, AutoAttack | External) else [])

    def sync_epoch(self) -> None:
        """End an epoch: batch norm of several processes becomes their mean, memories are put together."""
        for network in (self.model, self.average):
            if network is not None:
                self.runtime.group.average_buffers(network)
        if self.run.ensembling is not None and self.runtime.group.size > 1:
            self.run.ensembling.join(self.memory, self._memory_before, self.runtime.group.sum)
            self._keep_memory()

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, names like `model/conv1.weight`, `momentum/...`, `average/...`, `memory/...`."""
        out = {f"model/{k}": v for k, v in saved_state(self.model).items()}
        names = {id(p): n for n, p in self.model.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            if state.get("momentum_buffer") is not None:
                out[f"momentum/{names[id(parameter)]}"] = state["momentum_buffer"]
        if self.average is not None:
            out |= {f"average/{k}": v for k, v in saved_state(self.average).items()}
        return out | {f"memory/{k}": v for k, v in self.memory.items()}

    def restore(self, tensors: dict[str, Tensor], of_parent: bool = False) -> None:
        """Put a state back that `tensors` gave.

        That `of_parent` may come from other settings: an average that it lacks begins with the network, a
        memory that it lacks is new, and what this run has no use for is left out.
        """
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "momentum": {}, "average": {}, "memory": {}}
        for name, tensor in tensors.items():
            head, _, tail = name.partition("/")
            parts[head][tail] = tensor
        load_saved(self.model, parts["model"])
        by_name = dict(self.model.named_parameters())
        for name, buffer in parts["momentum"].items():
            like = by_name[name]
            self.optimizer.state[like]["momentum_buffer"] = torch.empty_like(like).copy_(buffer)
        if self.average is not None:
            load_saved(self.average, parts["average"] or parts["model"] if of_parent else parts["average"])
        for name, tensor in parts["memory"].items():
            if name in self.memory or not of_parent:
                self.memory[name].copy_(tensor)
        self._keep_memory()

    def _keep_memory(self) -> None:
        """Keep the memory as it is between epochs, by which several processes see what each has changed."""
        several = self.runtime.group.size > 1
        self._memory_before = {name: t.clone() for name, t in self.memory.items()} if several else {}


def draws_random_numbers(model: nn.Module, x: Images) -> bool:
    """Whether a forward pass of `x` in train mode draws from a global stream, as dropout and noise do.

    The model is left as it was. False also where the memory is too small for it, which training will say.
    """

    def next_draws(forward: Callable[[Tensor], object]) -> list[float]:
        with isolated_rng(0, x.device), torch.no_grad():
            forward(x)
            drawn = float(torch.rand(())), float(torch.rand((), device=x.device))
            return [*drawn, np.random.rand(), random.random()]  # noqa: NPY002

    try:
        with frozen(model, "train_frozen_stats") as network:
            return next_draws(network) != next_draws(lambda x: x)
    except (RuntimeError, MemoryError) as e:
        if not out_of_memory(e):
            raise
        return False


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
