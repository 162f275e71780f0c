"""Attacks of others as they are called here, and all that one of them could leave changed."""

import logging
import random
import sys
from typing import Any

import numpy as np
import torch
from torch import nn

from conftest import tiny_net
from crossclass.attacks import AutoAttack, External
from crossclass.attacks.norms import Linf


def stranger(name: str, threat: Any = None, **arguments: Any) -> External:
    return External(call=f"external_attacks:{name}", arguments=arguments, threat=threat or Linf(eps=0.1))


def mixed(found_training: bool = True) -> nn.Module:
    """Modules in both modes, parameters frozen and not, a gradient in one of them."""
    model = tiny_net().train(found_training)
    model.bn.eval()
    model.extra = nn.BatchNorm1d(2, track_running_stats=False).train()
    model.conv.weight.requires_grad_(False)
    model.head.bias.grad = torch.full_like(model.head.bias, 0.25)
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that anyone could leave changed, with the identity of its tensors."""
    modules = {
        name: (m.training, getattr(m, "track_running_stats", None), list(vars(m)["_forward_hooks"]))
        for name, m in model.named_modules()
    }
    parameters = {n: (id(p), p.data_ptr(), p.dtype, p.requires_grad) for n, p in model.named_parameters()}
    gradients = {n: (id(p.grad), p.grad is not None and p.grad.tolist()) for n, p in model.named_parameters()}
    buffers = {n: id(b) for n, b in model.named_buffers()}
    values = {n: v.tolist() for n, v in model.state_dict().items()}
    return {"modules": modules, "p": parameters, "g": gradients, "b": buffers, "values": values}


def streams() -> list[Any]:
    """Where Python's, numpy's and torch's global streams stand."""
    numpy = np.random.get_state()  # noqa: NPY002
    return [random.getstate(), *(v.tolist() if isinstance(v, np.ndarray) else v for v in numpy),
            torch.get_rng_state().tolist()]  # fmt: skip


def switches() -> list[Any]:
    cudnn = torch.backends.cudnn
    return [
        torch.get_default_dtype(), torch.get_deterministic_debug_mode(), torch.is_anomaly_enabled(),
        torch.is_grad_enabled(), torch.get_num_threads(), sys.gettrace(), sys.stdout,
        cudnn.benchmark, cudnn.deterministic, torch.backends.cuda.matmul.allow_tf32,
        logging.getLogger("auto-attack").disabled,
    ]  # fmt: skip


def quick(threat: Any, *attacks: str, **changes: Any) -> AutoAttack:
    """AutoAttack, but seconds short."""
    known = {"steps": 10, "queries": 20, **changes}
    return AutoAttack(threat=threat, attacks=attacks or ("apgd-ce",), **known)
