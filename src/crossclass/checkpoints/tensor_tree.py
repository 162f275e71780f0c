"""The content of a file becomes nested dictionaries of tensors; everything else is left out.

A pickled network is a tree of objects whose `_parameters`, `_buffers` and `_modules` are plain dictionaries:
its state dict is read off them without the code of its classes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossclass.checkpoints.inert import Dict, Inert, TooMuchError
from crossclass.checkpoints.stand_ins import NoTensor, Numbers

_DEEPEST = (
    12  # levels of dictionaries that are looked at: a pickle can hold a dictionary that contains itself
)
_DEEPEST_MODULE = 60
_MOST_VISITS = 1_000_000  # a pickle can name the same few objects so often that they never end
_MODULE = 20  # visits that looking at one module costs
_MOST_KEPT = 100_000  # dictionaries and tensors
_LONGEST = 1000  # characters of a name
_SCALARS = (str, int, float, bool, bytes, type(None))
_QUANTISED = frozenset(
    {"_packed_params", "qweight", "qzeros", "SCB", "weight_format", "absmax", "quant_map", "quant_state"}
)
"""Last parts of names in files of torch.ao, GPTQ, AWQ and bitsandbytes."""
EXTRA = "_extra_state"
"""Ends the names under which modules keep what is no tensor."""


class Extra:
    """The extra state of a module: plain data that only its own `load_state_dict` understands."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Tree(dict[str, Any]):
    """Tensors, `Extra` states and further trees by name."""

    versions: Mapping[str, Any] | None = None
    """What torch notes beside a state dict: the version of each module's format."""


class Reduction:
    """Reduces one file's content; keeps which kinds of tensors it left out."""

    def __init__(self) -> None:
        self.left_out: dict[str, list[str]] = {}
        """Kind (`quantised`, `sparse`) to names."""
        self._visits = self._kept = 0

    def tree(self, value: Any) -> Any:
        """A `Tree`, a lone tensor, or None."""
        return self._tidy(value, (), frozenset())

    def _tidy(self, value: Any, path: tuple[str, ...], above: frozenset[int]) -> Any:
        self._visit(value)
        if isinstance(value, Numbers):
            array = value.array()
            value = value.objects() if array is None else array
        if isinstance(value, NoTensor):
            self._leave_out(value.kind, path)
            return None
        if isinstance(value, Tensor):
            return self._plain(value, path)
        if isinstance(value, np.ndarray):
            return _from_numpy(value)
        if id(value) in above or len(path) > _DEEPEST:
            return None
        inner = above | {id(value)}
        if isinstance(value, nn.Module):
            value = value.state_dict()
        elif isinstance(value, Inert) and (parts := _module_parts(value)) is not None:
            return Tree(self._state(value, parts, path, (), inner))
        elif isinstance(value, Inert):
            value = _attributes(value)
        elif isinstance(value, list) and value and all(map(_is_named_tensor, value)):
            value = dict(value)  # list(model.named_parameters())
        elif isinstance(value, list | tuple) and (not path or any(map(_may_hold, value))):
            value = dict(enumerate(value))  # torch.save((model.state_dict(), epoch))
        if isinstance(value, list | tuple):
            for part in value:
                if isinstance(part, NoTensor):
                    self._leave_out(part.kind, path)
        if not isinstance(value, Mapping) or {"state", "param_groups"} <= value.keys():  # an optimiser's
            return None
        tree = Tree()
        versions = value.versions if isinstance(value, Dict) else getattr(value, "_metadata", None)
        tree.versions = versions if isinstance(versions, Mapping) else None
        for key, item in list(value.items()):
            if isinstance(key, bytes):  # as Python 2 wrote names
                key = key.decode("utf-8", "replace")
            if not isinstance(key, str | int) or isinstance(key, bool):
                continue
            name = str(key)
            if name.rpartition(".")[2] in _QUANTISED:
                self._leave_out("quantised", (*path, name))
            if name.endswith(EXTRA) and not isinstance(item, Tensor):
                with_plain = self._plain_data(item)
                if with_plain is not None:
                    tree[name] = Extra(with_plain)
                continue
            if len(name) > _LONGEST:
                raise TooMuchError(f"a name of {len(name)} characters")
            part = self._tidy(item, (*path, name), inner)
            if isinstance(part, Tensor) or part:
                tree[name] = part
                self._kept += 1
        if self._kept > _MOST_KEPT:
            raise TooMuchError(f"more than {_MOST_KEPT} dictionaries and tensors")
        return tree

    def _visit(self, value: Any, cost: int = 1) -> None:
        self._visits += cost + (len(value) // 20 if isinstance(value, list | tuple | dict) else 0)
        if self._visits > _MOST_VISITS:
            raise TooMuchError(f"more than {_MOST_VISITS} objects in its dictionaries and lists")

    def _state(
        self,
        module: Inert,
        parts: tuple[dict[Any, Any], dict[Any, Any], list[Any]],
        path: tuple[str, ...],
        under: tuple[str, ...],
        above: frozenset[int],
    ) -> Iterator[tuple[str, Any]]:
        """The state dict of a module that was pickled whole, as its `state_dict()` would name it."""
        own, modules, passing = parts
        self._visit(own)
        self._visit(modules, _MODULE)
        for name, item in own.items():
            if name not in passing:
                tensor = self._tidy(item, (*path, ".".join((*under, str(name)))), above)
                if isinstance(tensor, Tensor):
                    yield ".".join((*under, str(name))), tensor
        for name, child in modules.items():
            inner = _module_parts(child) if isinstance(child, Inert) else None
            if inner is not None and id(child) not in above and len(under) < _DEEPEST_MODULE:
                yield from self._state(child, inner, path, (*under, str(name)), above | {id(child)})

    def _plain(self, value: Tensor, path: tuple[str, ...]) -> Tensor | None:
        for kind, odd in (
            ("quantised", value.is_quantized),
            ("sparse", value.layout != torch.strided),
            ("meta", value.is_meta),
        ):
            if odd:
                self._leave_out(kind, path)
                return None
        return value.detach()

    def _plain_data(self, value: Any, depth: int = 0) -> Any:
        """Numbers, texts, tensors and collections of them; None where there is anything else."""
        self._visit(value)
        if isinstance(value, (*_SCALARS, Tensor)):
            return value
        if depth < _DEEPEST and isinstance(value, list | tuple):
            return type(value)(self._plain_data(v, depth + 1) for v in value)
        if depth < _DEEPEST and isinstance(value, dict):
            return {k: self._plain_data(v, depth + 1) for k, v in value.items()}
        return None

    def _leave_out(self, kind: str, path: tuple[str, ...]) -> None:
        self.left_out.setdefault(kind, []).append(".".join(path))


def _from_numpy(value: np.ndarray) -> Tensor | None:
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        return None
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))


def _is_named_tensor(value: Any) -> bool:
    named = isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)
    return named and isinstance(value[1], Tensor | np.ndarray | Numbers)


def _may_hold(value: Any, levels: int = 3) -> bool:
    """Whether it is, or is a list of what is, something that may hold named tensors."""
    if levels and isinstance(value, list | tuple):
        return any(_may_hold(part, levels - 1) for part in value[:1000])
    return isinstance(value, Mapping | Inert | nn.Module)


def _states(value: Inert) -> dict[Any, Any]:
    """The attributes that an object would have been given, also by slots."""
    states = value.state if isinstance(value.state, tuple) else (value.state,)
    return {k: v for state in states if isinstance(state, dict) for k, v in state.items()}


def _attributes(value: Inert) -> dict[Any, Any]:
    """What an object holds, as a dictionary: its arguments, attributes, items and elements."""
    first = value.args[0] if len(value.args) == 1 else None
    whole = dict(first) if isinstance(first, Mapping) else {}  # a dictionary of another class
    given = () if whole else value.args
    return {
        **{i: v for i, v in enumerate((*given, *value.elements)) if _may_hold(v)},
        **whole,
        **_states(value),
        **value.items,
    }


def _module_parts(value: Inert) -> tuple[dict[Any, Any], dict[Any, Any], list[Any]] | None:
    """Parameters and buffers, submodules, names of buffers that are not saved; None for another object."""
    inside = _states(value)
    if value.args and isinstance(value.args[0], dict) and "_modules" in value.args[0]:
        inside = value.args[0] | inside  # as torch.fx writes a network
    if isinstance(inside.get("_parameters"), dict) and isinstance(inside.get("_modules"), dict):
        buffers = inside.get("_buffers")
        passing = inside.get("_non_persistent_buffers_set")
        own = {**inside["_parameters"], **(buffers if isinstance(buffers, dict) else {})}
        return own, inside["_modules"], passing if isinstance(passing, list) else []
    if value.of.startswith("__torch__"):  # TorchScript: attributes of all kinds in one dictionary
        return inside, inside, []
    return None
