"""Freeze a model, set its mode or exchange its tensors for a while; on leaving it is as before.

`frozen(model, bn)` freezes the parameters and sets the mode for crafting; on leaving, also after an
exception, every module's `training` and every parameter's `requires_grad` are as before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossclass.core.errors import UserError
from crossclass.core.logits import logits_of

BNMode = Literal["eval", "train", "train_frozen_stats"]
Precision = Literal["fp32", "bf16"]


@contextmanager
def frozen(
    model: Callable[[Tensor], Tensor], bn: BNMode = "eval", precision: Precision = "fp32"
) -> Iterator[Callable[[Tensor], Tensor]]:
    """The model as a function of its input only, under mode `bn`; logits come out in float32.

    `eval`: running statistics (TRADES, MART, Pang's BNeval). `train`: batch statistics, and every
    forward moves the running ones (Rice 2020 and the paper's code). `train_frozen_stats`: batch
    statistics, nothing moves. `precision="bf16"` runs the forward under autocast; input, perturbation
    and projection stay float32, because 8/255 is 8.03/255 in bf16 and sums reach 9.5/255.
    A network whose parameters are of several floating types computes in float32. A plain function may be
    passed as `model`; then there is nothing to restore.
    Calling the function raises UserError for what is no logits [n, K] (see `logits_of`), and for images on
    another device.
    """
    types = {p.dtype for p in model.parameters()} if isinstance(model, nn.Module) else set()
    mixed = sum(t.is_floating_point for t in types) > 1
    with in_float32(model) if mixed else nullcontext(), _frozen(model, bn, precision) as forward:
        yield forward


@contextmanager
def _frozen(
    model: Callable[[Tensor], Tensor], bn: BNMode, precision: Precision
) -> Iterator[Callable[[Tensor], Tensor]]:
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    training = [(m, m.training) for m in modules]
    requires_grad = [(p, p.requires_grad) for p in parameters]
    tracking = [(m, m.track_running_stats) for m in modules if isinstance(m, _BatchNorm)]
    # instance and spectral norm know no such switch: what they move is put back
    movable = [m for m in modules if bn == "train_frozen_stats" and not isinstance(m, _BatchNorm)]
    held = [(m._buffers, name, b) for m in movable for name, b in m._buffers.items()]
    buffers = [(b, b.clone()) for _, _, b in held if b is not None]
    try:
        for module in modules:
            module.training = bn != "eval"
        if bn == "train_frozen_stats":
            for module, _ in tracking:
                module.track_running_stats = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        dtype = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
        devices = {p.device for p in parameters}
        if torch.device("meta") in devices:  # weights that are brought when they are needed
            devices.clear()

        def forward(x: Tensor) -> Tensor:
            if devices and x.device not in devices:
                there = next(iter(devices))
                raise UserError(f"images are on {x.device}, the network on {there}; give x.to('{there}')")
            with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
                return logits_of(model(x if x.dtype == dtype else x.to(dtype)), len(x)).float()

        yield forward
    finally:
        for module, mode in training:
            module.training = mode
        for module, mode in tracking:
            module.track_running_stats = mode
        for parameter, flag in requires_grad:
            parameter.requires_grad_(flag)
        for tensors, name, buffer in held:
            tensors[name] = buffer  # a forward may have put another one there
        for buffer, before in buffers:
            if buffer.layout is not torch.strided or not torch.equal(buffer, before):
                buffer.copy_(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode, each module's own mode restored on leaving."""
    training = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        yield model
    finally:
        for module, mode in training:
            module.training = mode


@contextmanager
def exchanged(model: nn.Module, pairs: Sequence[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Inside, the model computes with the second tensor of every pair in place of the first, its own.

    Each attribute of each module is exchanged once, however many names lead to it, and all that hold one
    tensor get the same replacement (`torch.func.functional_call` exchanges a module with two names twice,
    and the second restores what the first had put there).
    """
    replacement = {id(own): other for own, other in pairs}
    held = [
        (tensors, name, tensor)
        for module in model.modules()
        for tensors in (module._parameters, module._buffers)
        for name, tensor in tensors.items()
        if id(tensor) in replacement
    ]
    try:
        for tensors, name, tensor in held:
            tensors[name] = replacement[id(tensor)]  # type: ignore[assignment]  # for a while, no Parameter
        yield
    finally:
        for tensors, name, tensor in held:
            tensors[name] = tensor  # type: ignore[assignment]


OTHER_FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float64))
"""Types of parameters that are computed in float32 all the same."""


def other_floats(model: nn.Module) -> list[str]:
    """The floating types of the parameters beside float32, such as `float16`."""
    return sorted(
        {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.dtype in OTHER_FLOATS}
    )


@contextmanager
def in_float32(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, a network with half, bfloat16 or double parameters computes with float32 copies of its tensors.

    Nothing changes for a network in float32 or one that casts itself (`Wrapped`), nor for a plain function.
    """
    pairs = list[tuple[Tensor, Tensor]]()
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    if (
        isinstance(model, nn.Module)
        and not any(getattr(m, "casts_itself", False) for m in modules)
        and other_floats(model)
    ):
        with torch.inference_mode(False):
            tensors = {id(t): t for t in (*model.parameters(), *model.buffers()) if t.dtype in OTHER_FLOATS}
            pairs = [(t, t.detach().float().requires_grad_(t.requires_grad)) for t in tensors.values()]
    with exchanged(model, pairs) if isinstance(model, nn.Module) else nullcontext():
        yield
