"""What stands for torch's and numpy's own functions while a pickle is followed.

Each checks what it is given: a file may claim a tensor that is larger than its memory. Tensors that cannot be
weights as they are (quantised, sparse, without memory) become `NoTensor`, which keeps the reason.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, UntypedStorage

from crossclass.checkpoints.inert import Dict, Inert, Name, Table, TooMuchError

LARGEST_COPY = 2**24
"""Elements of an expanded tensor, which repeats a few numbers of the file."""
_STORAGES = {
    **{"Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8},
    **{"Byte": torch.uint8, "Bool": torch.bool, "Untyped": torch.uint8},
    **{"ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
    **{"QInt8": torch.int8, "QUInt8": torch.uint8, "QInt32": torch.int32},
    **{"QUInt4x2": torch.uint8, "QUInt2x4": torch.uint8},
}


@dataclass(frozen=True)
class NoTensor:
    """A tensor that holds no plain numbers."""

    kind: str
    """`quantised`, `sparse`, `meta`."""


@dataclass(frozen=True)
class Memory:
    """Numbers of a file, of which tensors are views."""

    bytes: UntypedStorage
    dtype: torch.dtype


def storage_dtype(kind: Any) -> torch.dtype:
    """Of the name of a storage, such as `torch.FloatStorage`. Raises KeyError."""
    name = kind.name if isinstance(kind, Name) else str(kind)
    return _STORAGES[name.removesuffix("Storage").removesuffix("Tensor")]


def tensor(memory: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor | Inert:
    """A view of the memory. Raises ValueError where it would reach beyond it."""
    if not isinstance(memory, Memory):
        return Inert("torch.Tensor")
    dtype = memory.dtype
    if len(rest) > 2 and isinstance(rest[2], Name):  # rebuilt as version 3, of memory without a type
        dtype = getattr(torch, rest[2].name, dtype)
    size, stride = tuple(size), tuple(stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise ValueError("a tensor with a negative or broken shape")
    needed = offset + (1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if prod(size) else 0)
    there = memory.bytes.nbytes() // dtype.itemsize
    if needed > there:
        raise ValueError("a tensor reaches beyond its memory")
    if prod(size) > max(there, LARGEST_COPY):
        raise TooMuchError(f"a tensor of {prod(size)} numbers of which the file holds {there}")
    return torch.empty(0, dtype=dtype).set_(memory.bytes, offset, size, stride)


class _Dtype:
    """Stands for numpy.dtype and keeps its code and its byte order."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = code, "="

    def take_state(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = state[1]


class Numbers:
    """Stands for numpy.ndarray and keeps its state, of which only numbers are read."""

    def __init__(self, state: Any = ()) -> None:
        self.state = state

    def take_state(self, state: Any) -> None:
        """As `numpy.ndarray.__setstate__`: version, shape, dtype, order, bytes."""
        self.state = state

    def array(self) -> np.ndarray | None:
        """A new numpy array of the numbers; None for Python objects and for a state that makes no sense."""
        with suppress(Exception):
            _, shape, kind, fortran, raw = self.state
            raw = raw.encode("latin-1") if isinstance(raw, str) else raw  # as Python 2 wrote it
            if isinstance(raw, bytes | bytearray) and re.fullmatch(r"[biuf]\d{1,2}", kind.code):
                dtype = np.dtype(kind.code).newbyteorder("=" if kind.order == "|" else kind.order)
                return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
        return None

    def objects(self) -> Any:
        """Of an array of Python objects: the only one, or a list of them; None if it is none."""
        listed = self.state[4] if isinstance(self.state, tuple) and len(self.state) > 4 else None
        if not isinstance(listed, list):
            return None
        return listed[0] if len(listed) == 1 else listed


def _scalar(kind: Any, raw: Any = b"") -> None:
    """Of a numpy scalar, such as a best accuracy, which is no tensor."""


def _empty_array(*_: Any) -> Numbers:
    return Numbers()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any, *_: Any) -> Numbers:
    return Numbers((1, shape, kind, order == "F", raw))


def _encoded(text: Any = "", *_: Any) -> bytes:
    return text.encode("latin-1", "replace") if isinstance(text, str) else b""


def _own_bytes(value: Any = b"", *_: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | bytearray | list) else b""


def _ordered(pairs: Any = ()) -> Dict:
    if isinstance(pairs, dict):
        return Dict(pairs)
    two = ((p[0], p[1]) for p in pairs if isinstance(p, list | tuple) and len(p) == 2)
    return Dict((key, value) for key, value in two if isinstance(key, str | int))


def _first(value: Any = None, *_: Any) -> Any:
    return value


def _sized(value: Any = (), *_: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()


def _listed(value: Any = (), *_: Any) -> list[Any]:
    """For a set, which hashes what is put into it."""
    return list(value) if isinstance(value, list | tuple) else []


def _no_tensor(kind: str) -> Callable[..., NoTensor]:
    return lambda *_: NoTensor(kind)


_BUILTINS = ("builtins", "__builtin__")
_CORES = ("numpy.core", "numpy._core")
TABLE: Table = {
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch._tensor._rebuild_from_type_v2": lambda function, kind, args, state: (
        TABLE[str(function)](*args) if str(function) in TABLE else Inert(str(kind), tuple(args))
    ),
    "torch._utils._rebuild_qtensor": _no_tensor("quantised"),
    "torch._utils._rebuild_sparse_tensor": _no_tensor("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": _no_tensor("sparse"),
    "torch._utils._rebuild_meta_tensor_no_storage": _no_tensor("meta"),
    "torch._utils._rebuild_nested_tensor": _no_tensor("nested"),
    "torch.Size": _sized,
    "torch.jit._pickle.restore_type_tag": _first,
    "torch.jit._pickle.build_tensorlist": _first,
    "collections.OrderedDict": _ordered,
    **{f"{module}.{kind}": _listed for module in _BUILTINS for kind in ("set", "frozenset", "list")},
    **{f"{module}.{kind}": _own_bytes for module in _BUILTINS for kind in ("bytes", "bytearray")},
    "_codecs.encode": _encoded,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _empty_array,
    **{f"{c}.multiarray.scalar": _scalar for c in _CORES},
    **{f"{c}.multiarray._reconstruct": _empty_array for c in _CORES},
    **{f"{c}.numeric._frombuffer": _from_buffer for c in _CORES},
}
"""The only functions that are called. A tensor that torch saved by itself is added by the reader of files."""
