"""The matrix products of a forward pass that give one number per class: candidates for W g(x) + b.

A product is recorded with what it multiplies, so subclasses of `nn.Linear`, parametrized or normalised
weights, hooks, functional calls and 1x1 convolutions are all judged by the numbers, and nothing that happens
to an output afterwards, in place or not, is taken for the product.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Pooling = Literal["", "mean", "first", "last", "flat"]
"""What was done with tokens or a map: their mean, the first or last token, or all positions side by side."""

Views = Literal["", "one after the other", "side by side"]
"""Of several views of each image in one batch the mean is taken: all images again, or each image again."""


class Key(NamedTuple):
    """Which product of a forward pass it is."""

    layer: str
    """Dotted name of the module that computes it."""
    call: int
    """How many products of this layer came before it."""
    own: bool
    """Whether it is that of the layer's own input with its own `weight` and `bias`, as the layer has them."""
    pooling: Pooling
    views: Views = ""
    direct: bool = False
    """Whether the weight is a parameter as it is, in a layer that has no `weight` of its own."""
    rows: tuple[int, ...] = ()
    """Which rows of the weight are meant, one for each class; empty is all in their order."""


class Product(NamedTuple):
    """Features [n, d], copied when they were multiplied, and the weight [k, d] and bias [k] they met."""

    key: Key
    g: Float[Tensor, "n d"]
    W: Float[Tensor, "k d"]
    b: Float[Tensor, " k"] | None

    @property
    def z(self) -> Float[Tensor, "n k"]:
        """W g + b, computed anew in float64."""
        z = self.g.double() @ self.W.double().T
        return z if self.b is None else z + self.b.double()


def own_weight(layer: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The weight and bias that a layer shows, those of quantised layers as numbers; none if it has none."""
    W, b = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if callable(W) and not isinstance(W, Tensor):  # quantised layers have methods
        W, b = W(), b() if callable(b) else b
    if not isinstance(W, Tensor) or W.ndim < 2:
        return None
    b = b if isinstance(b, Tensor) and b.ndim == 1 else None
    return (W.dequantize() if W.is_quantized else W), b


def recorded(
    net: nn.Module,
    run: Callable[[], Any],
    rows: int,
    n: int,
    wanted: Collection[Key] | None = None,
    wider: bool = False,
) -> tuple[list[Product], Any]:
    """The products with `rows` rows of a forward pass, in order, and what `run` returns.

    Args:
        net: The network whose layers are watched.
        run: Runs it once.
        rows: The number of classes.
        n: The number of images.
        wanted: Only these products; unset is all.
        wider: Those with more rows too.
    """
    watch = _Watch(rows, n, wanted, wider)
    only_own = wanted is not None and all(key.own for key in wanted)
    with ExitStack() as stack:
        for name, module in net.named_modules():
            if only_own and name not in {key.layer for key in wanted or ()}:
                continue
            if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
                continue
            enter = module.register_forward_pre_hook(watch.entering(name), with_kwargs=True)
            leave = module.register_forward_hook(watch.leave, always_call=True)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(eager(net))
        if not only_own:
            stack.enter_context(watch)
        returned = run()
    return watch.products, returned


def unwrapped(net: nn.Module) -> nn.Module:
    """The module behind `torch.compile` and the wrappers of several devices, which would hide its layers."""
    while True:
        inner = getattr(net, "_orig_mod", None)
        if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = net.module
        if not isinstance(inner, nn.Module):
            return net
        net = inner


class _Watch(TorchFunctionMode):
    """Records products while it is active; modules tell it when they begin and end."""

    def __init__(self, rows: int, n: int, wanted: Collection[Key] | None, wider: bool) -> None:
        super().__init__()
        self.rows, self.n, self.wanted = rows, n, wanted
        self.wider = wider or any(key.rows for key in wanted or ())
        self.products: list[Product] = []
        self.inside: list[tuple[str, bool]] = []
        self.calls: Counter[tuple[str, bool]] = Counter()

    def entering(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            weights = own_weight(module)
            self.inside.append((name, weights is not None))
            given = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
            if given and weights is not None:
                self.add(Key(name, 0, True, ""), given[0], *weights)

        return enter

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.inside:
            self.inside.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        find = _OPERANDS.get(func)
        if find is not None:
            name, has_own = self.inside[-1] if self.inside else ("", False)
            for x, W, b in find(*args, **(kwargs or {})):
                whole = isinstance(W, nn.Parameter) or isinstance(W._base, nn.Parameter)
                self.add(Key(name, 0, False, "", direct=whole and not has_own), x, W, b)
        return func(*args, **(kwargs or {}))

    def add(self, key: Key, x: Tensor, W: Tensor, b: Tensor | None) -> None:
        if W.ndim < 2 or len(W) < self.rows or not (x.is_floating_point() and W.is_floating_point()):
            return
        key = key._replace(call=self.calls[key.layer, key.own])
        self.calls[key.layer, key.own] += 1
        if len(W) > self.rows and not self.wider:
            return
        b = b if b is not None and b.shape == (len(W),) else None
        for pooling, each in _pooled(x, W):
            for views, g in _of_images(each, self.n):
                this = key._replace(pooling=pooling, views=views)
                for one in [this] if self.wanted is None else self.wanted:
                    if one._replace(rows=()) != this or len(W) < max(self.rows, *one.rows, 0):
                        continue
                    rows = list(one.rows) or slice(None)
                    bias = b if b is None else b[rows]
                    self.products.append(Product(one, g.clone(), W.flatten(1)[rows].clone(), bias))


def _of_images(g: Tensor, n: int) -> Iterator[tuple[Views, Tensor]]:
    """One row for each image: of several views in one batch the mean, which head(mean) keeps."""
    if len(g) == n:
        yield "", g
    elif n and len(g) and len(g) % n == 0:
        yield "one after the other", g.unflatten(0, (-1, n)).mean(dim=0)
        yield "side by side", g.unflatten(0, (n, -1)).mean(dim=1)


def _pooled(x: Tensor, W: Tensor) -> Iterator[tuple[Pooling, Tensor]]:
    """Features [n, d] whose product with W may be the logits."""
    d = W[0].numel()
    if W.ndim == 2 and x.shape[-1:] == (d,):
        if x.ndim == 2:
            yield "", x
        elif x.ndim > 2:
            yield "mean", x.flatten(1, -2).mean(dim=1)
            if x.ndim == 3 and x.shape[1] > 1:
                yield "first", x[:, 0]
                yield "last", x[:, -1]
    elif W.ndim > 2 and x.ndim == W.ndim and x.shape[1] == W.shape[1]:
        if W.shape[2:].numel() == 1:
            yield "mean", x.flatten(2).mean(dim=2)
        elif x.shape[2:] == W.shape[2:]:
            yield "flat", x.flatten(1)


_Operands = Iterator[tuple[Tensor, Tensor, Tensor | None]]


def _of_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: Any, **__: Any) -> _Operands:
    yield input, weight, bias


def _of_addmm(input: Tensor, mat1: Tensor, mat2: Tensor, **_: Any) -> _Operands:
    if mat1.ndim == mat2.ndim == 2:
        yield mat1, mat2.T, input if isinstance(input, Tensor) else None


def _of_matmul(input: Tensor, other: Tensor, **_: Any) -> _Operands:
    if isinstance(input, Tensor) and isinstance(other, Tensor) and other.ndim == 2:
        yield input, other.T, None
        if input.ndim == 2:  # W g, one column per image
            yield other.T, input, None


def _of_reversed(self: Tensor, other: Tensor) -> _Operands:
    yield from _of_matmul(other, self)


def _of_distance(x1: Tensor, x2: Tensor, *_: Any, **__: Any) -> _Operands:
    yield x1, x2, None  # -|g - W|^2 is 2 W g - |W|^2, up to a constant of the image


def _of_einsum(equation: Any, *operands: Any) -> _Operands:
    pair = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if len(pair) == 2 and all(isinstance(t, Tensor) and t.ndim == 2 for t in pair):
        for x, W in (pair, pair[::-1]):
            yield x, W, None
            yield x, W.T, None


def _of_cosines(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> _Operands:
    g, W = x1.squeeze(1), x2.squeeze(0)
    if dim in (-1, max(x1.ndim, x2.ndim) - 1) and g.ndim == W.ndim == 2:
        yield F.normalize(g), F.normalize(W), None


_OPERANDS: dict[Any, Callable[..., _Operands]] = {
    **dict.fromkeys((F.linear, torch.conv2d, torch.conv1d, torch.conv3d), _of_linear),
    **dict.fromkeys((torch.addmm, Tensor.addmm), _of_addmm),
    **dict.fromkeys((torch.mm, torch.matmul, Tensor.mm, Tensor.matmul, Tensor.__matmul__), _of_matmul),
    **dict.fromkeys((torch.cdist, torch.functional.cdist), _of_distance),
    **dict.fromkeys((torch.einsum, torch.functional.einsum), _of_einsum),
    Tensor.__rmatmul__: _of_reversed,
    F.cosine_similarity: _of_cosines,
}


def eager(net: nn.Module) -> Any:
    """Compiled parts run as they were written: inside of a compiled graph no layer can be watched."""
    compiled = any(
        hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in net.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else ExitStack()
