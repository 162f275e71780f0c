"""A factory that returns the same layers at each call, as `NET = Net()` and `def factory(): return NET` do.

The best and the last network of a run, or those of two files, would be one then, and a second run would start
from the weights at the end of the first.
"""

import copy
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from crossclass.core.errors import UserError

_first: "WeakKeyDictionary[nn.Module, dict[str, Tensor]]" = WeakKeyDictionary()
"""Layers that a factory has returned, and their own tensors as they were then."""


def own_network(net: nn.Module, name: str) -> nn.Module:
    """The network, or a copy of it as it was at first if any layer with tensors was returned before.

    Args:
        net: What a factory returned.
        name: The factory, for the error.

    Raises:
        UserError: Such a network cannot be copied.
    """
    layers = [m for m in net.modules() if _tensors(m)]
    if not any(m in _first for m in layers):
        _first.update({m: {k: t.detach().clone() for k, t in _tensors(m).items()} for m in layers})
        return net
    try:
        own: nn.Module = copy.deepcopy(net)
    except Exception as e:
        raise UserError(
            f"{name} gives layers that it gave before, so that several networks would share them; let it "
            "make new ones at each call"
        ) from e
    with torch.no_grad():
        for layer, copied in zip(net.modules(), own.modules(), strict=True):
            for key, tensor in _tensors(copied).items():
                before = _first.get(layer, {}).get(key)
                if before is not None and before.shape == tensor.shape:
                    tensor.copy_(before)
    return own


def _tensors(layer: nn.Module) -> dict[str, Tensor]:
    own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    return {name: tensor for name, tensor in own if not is_lazy(tensor)}
