"""The state of any network as dense tensors under names, and back: what a checkpoint and a resume state hold.

A state dict may also hold extra state (kept as JSON in a tensor of bytes), sparse buffers and buffers in
which many entries share memory (kept dense), and buffers that have grown since the network was made.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from crossclass.core.errors import UserError, first_line

Network = TypeVar("Network", bound=nn.Module)

_JSON = ".json"
"""Ends the name of a tensor that holds extra state as JSON."""


def saved_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a network as dense tensors; raises UserError that names what cannot be one."""
    out = dict[str, Tensor]()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            out[name + _JSON] = torch.frombuffer(bytearray(_json(name, value), "utf-8"), dtype=torch.uint8)
        elif value.is_quantized or value.is_nested:
            kind = "nested" if value.is_nested else str(value.dtype)
            raise UserError(
                f"'{name}' of the network is a {kind} tensor, which a checkpoint cannot hold; keep it as an "
                "ordinary tensor"
            )
        else:
            out[name] = value if value.layout is torch.strided else value.to_dense()
    return out


def load_saved(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put a state back that `saved_state` gave; raises RuntimeError if the names or shapes do not fit."""
    sparse = list[tuple[dict[str, Tensor | None], str, Tensor]]()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, own in module._buffers.items():
            saved = tensors.get(f"{prefix}.{name}" if prefix else name)
            if saved is None or (own is not None and own.shape == saved.shape and _writable(own)):
                continue
            if own is not None and own.layout is not torch.strided:
                sparse.append((module._buffers, name, own))
            like = saved if own is None else own
            device = saved.device if own is None else own.device
            module._buffers[name] = torch.empty(saved.shape, dtype=like.dtype, device=device)
    state: dict[str, Any] = {n: t for n, t in tensors.items() if not n.endswith("_extra_state" + _JSON)}
    for name in tensors.keys() - state.keys():
        state[name.removesuffix(_JSON)] = json.loads(bytes(tensors[name].tolist()))
    model.load_state_dict(state)
    for buffers, name, own in sparse:
        dense = buffers[name]
        assert dense is not None
        buffers[name] = dense.to_sparse(layout=own.layout)


def put_buffer(module: nn.Module, name: str, value: Tensor | None) -> None:
    """Give a module's buffer the value of another network's: in place where that is possible."""
    own = module._buffers[name]
    if own is None or value is None or own.shape != value.shape or not _writable(own):
        module._buffers[name] = None if value is None else value.clone()
    else:
        own.copy_(value)


def copied(model: Network) -> Network:
    """A copy that shares nothing with the model; raises UserError if it cannot be copied.

    torch's old weight norm keeps a weight with a history as a plain attribute, which `copy.deepcopy` refuses;
    it is computed anew in every forward pass.
    """
    memo = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and value.grad_fn is not None
    }
    try:
        return copy.deepcopy(model, memo)
    except Exception as e:
        raise UserError(
            f"the network cannot be copied for an average of its weights ({first_line(e)}); leave out "
            "weight_averaging, or keep what cannot be copied outside of the network"
        ) from e


def _json(name: str, value: Any) -> str:
    try:
        text = json.dumps(value)
        if json.loads(text) == value:
            return text
    except (TypeError, ValueError, RecursionError):
        pass
    raise UserError(
        f"the extra state '{name}' of the network is a {type(value).__name__} that JSON does not give back; "
        "return numbers, texts, lists and dictionaries with text keys from get_extra_state, or a tensor"
    )


def _writable(buffer: Tensor) -> bool:
    """Whether each entry has memory of its own."""
    if buffer.layout is not torch.strided:
        return False
    return all(stride > 0 or size <= 1 for size, stride in zip(buffer.shape, buffer.stride(), strict=True))
