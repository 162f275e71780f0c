"""Anyone's network as a `Classifier`: its features g(x) are what its head W g(x) + b multiplies.

Forward passes of noise in eval mode show which layers run and with which shapes, and which product equals the
logits; `choose_head` looks again on real images. Grad-CAM looks at the last map of the image. Hooks live for
one forward only, and the network's function and weights stay as they are; some convolutions are computed in
another way, for the reason that `subsample_first` gives.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossclass.core.device import full_precision
from crossclass.core.errors import UserError, did_you_mean, first_line
from crossclass.core.logits import of_a_map, without_positions
from crossclass.core.rng import generator
from crossclass.data.base import PerChannel
from crossclass.models.base import Classifier, Size, sides, subsample_first
from crossclass.models.head import LinearHead, Term, distances, find_head, find_rows
from crossclass.models.model_state import OTHER_FLOATS, evaluating, other_floats
from crossclass.models.products import Key, Product, eager, own_weight, recorded, unwrapped

_BEFORE_ATTENTION = ("norm1", "ln_1", "norm_1", "ln1", "layernorm_before", "attention_norm")
"""What timm, torchvision, transformers and others call the layer norm in front of a block's attention."""
_PREFIX = 5
"""At most so many tokens stand before the patches: class, distillation, four registers."""


class Wrapped(Classifier):
    """`net` behind our normalisation; logits are what it returns (of a tuple: those of its head).

    The head is the layer for which W g(x) + b equals the logits, whatever its name and whenever it runs. If
    there is none, `head`, `features` and `outputs` raise UserError, unless one is named.

    Raises UserError where the network or the layers named do not serve.
    """

    net: nn.Module
    head_name: str
    casts_itself: bool = False
    """Whether the network computes in its own floating types, and fails in float32."""

    def __init__(
        self,
        net: nn.Module,
        classes: int,
        channels: int,
        mean: PerChannel,
        std: PerChannel,
        size: Size,
        *,
        name: str = "the network",
        head: str | None = None,
        saliency: str | None = None,
    ) -> None:
        super().__init__(mean, std)
        self.net, self.channels, self.name, self.sides = net, channels, name, sides(size)
        self.classes, self._named, self._obeyed, self._output = classes, head, head is not None, _Output()
        self._order: Tensor | None = None
        if isinstance(net, torch.jit.ScriptModule):
            raise UserError(
                f"{name} is a TorchScript module, whose layers cannot be watched; give the network in Python "
                "(its weights can be read from the file: model=python:MODULE:FUNCTION)"
            )
        subsample_first(net)
        noise = torch.rand(_images_for(classes), channels, *sides(size), generator=generator(0))
        device = next((t.device for t in net.parameters()), noise.device)
        self._made_in = other_floats(net)
        tensors = (*net.parameters(), *net.buffers()) if self._made_in else ()
        before = [(t, t.data) for t in tensors if t.dtype in OTHER_FLOATS]
        for tensor, data in before:
            tensor.data = data.float()
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(net):
            x = self.normalise(noise[:2]).to(device)
            try:
                calls, returned = _calls(net, x, name)
            except UserError:
                if not before:
                    raise
                for tensor, data in before:  # a network that casts between its own types itself
                    tensor.data = data
                self.casts_itself = True
                calls, returned = _calls(net, x, name)
        logits = self._output.of(returned, name)
        if logits.shape != (2, classes) and all(t.shape != (2, classes) for _, t in _tensors(returned)):
            if logits.shape[:2] == (2, classes):
                raise UserError(
                    f"{name} returns {list(logits.shape)} for 2 images, not [2, {classes}]{of_a_map(logits)}"
                )
            raise UserError(
                f"{name} returns {list(logits.shape)} for 2 images, not [2, {classes}]; tell it how many "
                f"classes, as in model.arguments={{num_classes: {classes}}}, or give the data it is for (if "
                "these merely lack images of some classes, name all of them in class_names)"
            )
        self._saliency = _saliency(calls, dict(net.named_modules()), saliency, name)
        self._probe = noise.to(device)
        self.choose_head()

    @torch.no_grad()
    def choose_head(self, x: Float[Tensor, "n c h w"] | None = None) -> None:
        """Look for the head, as with weights that were just loaded.

        Args:
            x: Images in [0, 1], eight or more; unset is noise.

        Raises UserError if no layer has a row per class, or if the one that was named does not serve.
        """
        x = self._probe.to(self.mean.device) if x is None else x[: _images_for(self.classes)]
        with torch.random.fork_rng(devices=[]), evaluating(self.net), full_precision():
            products, returned = self._recorded(x, None)
            outputs = [t for _, t in _tensors(returned)] if not isinstance(returned, Tensor) else [returned]
            if hasattr(self, "_head") and not all(bool(t.isfinite().all()) for t in outputs):
                return  # what is no number tells nothing: the head stays the one that was found before
            self._output, logits = self._choose_output(returned, products, len(x))
            products, logits = _of_finite(products, logits)
            heads = find_head(self._named_ones(products), logits)
            if len(heads) > 1:
                heads = [h for h in heads if h.keys in self._still_equal(x, heads)] or heads
            if not heads:
                heads = find_rows(self._named_ones(self._recorded(x, None, wider=True)[0]), logits)
            if heads:
                self._head = heads[-1]
            else:
                serving = self._serving(products)
                far = distances(serving, logits)
                closest = [key for key, _ in far if key.layer == self._named] or [far[0][0]]
                by_layer = {key.layer or "the network itself": d for key, d in reversed(far)}
                near = tuple(sorted(by_layer.items(), key=lambda item: item[1]))
                self._head = LinearHead((Term(closest[0]),), "none", candidates=near)
        self.head_name = self._head.name
        layer = dict(self.net.named_modules())[self._head.keys[0].layer]
        self._kind = type(layer).__name__
        self._is_plain = self._head.plain and isinstance(layer, nn.Linear)

    def _named_ones(self, products: list[Product]) -> list[Product]:
        name = self._named
        return [p for p in products if name is None or f"{p.key.layer}.".startswith(f"{name}.")]

    def _serving(self, products: list[Product]) -> list[Product]:
        """The products of the layer that was named, or all. Raises UserError for none."""
        what, name, layers = self.name, self._named, dict(self.net.named_modules())
        names = list(dict.fromkeys(p.key.layer for p in products))
        columns = f"gives {self.classes} columns, one per class"
        if name is None:
            if not products:
                raise UserError(
                    f"no linear layer of {what} {columns}; C and CAS are of a layer W g(x) + b that gives "
                    "the logits (an nn.Linear, a 1x1 convolution, a product with a weight), so end it in one"
                )
            return products
        if name not in layers:
            raise UserError(f"{what} has no layer model.head={name}{did_you_mean(name, names)}")
        inside = self._named_ones(products)
        if not inside:
            which = f"; name another, such as {', '.join(names[-3:])}" if names else ""
            weights = own_weight(layers[name])
            if weights is not None and len(weights[0]) == self.classes:
                raise UserError(f"model.head={name} does not run in a forward of {what}{which}")
            raise UserError(
                f"model.head={name} is a {type(layers[name]).__name__} of {what}, and no linear layer "
                f"(nn.Linear) in it {columns}{which}"
            )
        return inside

    def _choose_output(self, returned: Any, products: list[Product], n: int) -> tuple["_Output", Tensor]:
        """Which of the tensors that the network returns are the logits: those of a head, if any are."""
        shape = (n, self.classes)
        fitting = [(where, t) for where, t in _tensors(returned) if t.shape == shape]
        if not fitting or isinstance(returned, Tensor):
            return _Output(), _Output().of(returned, self.name)
        if len(fitting) > 1:
            heads = [(w, t, find_head(products, t)) for w, t in fitting]
            given = {p.key: p.g for p in products}
            # what the head of another one multiplies are features, even if they are as wide as the logits
            used = [given[key] for *_, found in heads for head in found for key in head.keys]
            fitting = [
                (w, t) for w, t, found in heads if found and not any(torch.equal(t, g) for g in used)
            ] or fitting
        (where, logits), *more = fitting
        return _Output(where, type(returned).__name__, len(more)), logits

    def _still_equal(self, x: Tensor, heads: list[LinearHead]) -> set[tuple[Key, ...]]:
        """Which of several heads that equal the logits still do so with other weights.

        Weights that are zero or equal make layers equal that are not the head.
        """
        layers = dict(self.net.named_modules())
        moved = {p for h in heads for p in layers[h.keys[0].layer].parameters() if len(p) == self.classes}
        before = [(p, p.clone()) for p in moved]
        try:
            for i, (p, values) in enumerate(before):
                size = float(values.abs().mean()) or 1.0
                p.add_(size * torch.randn(p.shape, generator=generator(0, i + 1)).to(p))
            products, returned = self._recorded(x, None)
            return {h.keys for h in find_head(products, self._output.of(returned, self.name))}
        finally:
            for p, values in before:
                p.copy_(values)

    def _require_head(self) -> None:
        if not self.head_is_known and not self._obeyed:
            raise UserError(
                f"{self._mismatch()}, so C and CAS would explain something else; name a layer with "
                "model.head=... to take it all the same, or let the network return W g(x) + b"
            )

    def _mismatch(self) -> str:
        if all(d == inf for _, d in self._head.candidates):
            return f"what {self.name} returns is not finite (NaN or infinite), and W g(x) + b of no layer"
        near = [f"'{layer}' differs by {100 * d:.3g} %" for layer, d in self._head.candidates[:5]]
        far = f"{', '.join(near)} of the largest logit"
        if self._obeyed:
            why = "which was named" if self._named else "the closest that it has"
            return (
                f"what {self.name} returns is not W g(x) + b of its layer '{self.head_name}', {why} ({far}): "
                "C and CAS do not explain it"
            )
        return f"what {self.name} returns is not W g(x) + b of any of its layers ({far})"

    @property
    def head_weights(self) -> frozenset[str]:
        """The names in `net` of the tensors that its head is made of."""
        names = set[str]()
        for layer in {key.layer for key in self._head.keys}:
            own = self.net.get_submodule(layer).named_parameters(layer, remove_duplicate=False)
            # of a whole network, in which a product with a parameter is the head, only what has its rows
            some = any(key.rows for key in self._head.keys) and layer
            names |= {
                n for n, p in own if layer in n.rpartition(".")[0] and (some or self.classes in p.shape)
            }
        return frozenset(names)

    @property
    def head_is_known(self) -> bool:
        """Whether the logits are W g(x) + b of a layer, or of several, perhaps up to constants."""
        return self._head.relation != "none"

    def take_closest_head(self) -> None:
        """If no layer gives the logits, take the closest for the head, and warn of it."""
        self._obeyed = True

    @property
    def head(self) -> nn.Linear:  # type: ignore[override]  # a view of the net's own layer, held once
        """The linear layer whose input are the features; a copy of W and b if it is none of the net's own.

        Raises UserError if no layer gives the logits and none is named.
        """
        self._require_head()
        if self._is_plain and self._order is None:
            layer = self.net.get_submodule(self.head_name)
            assert isinstance(layer, nn.Linear)
            return layer
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(self.net):
            products, _ = self._recorded(self._probe[:1].to(self.mean.device), self._head.keys)
        W, b = self._head.weight(products), self._head.bias(products)
        layer = nn.utils.skip_init(nn.Linear, W.shape[1], len(W), device=W.device, dtype=W.dtype)
        rows = slice(None) if self._order is None else self._order.to(W.device)
        layer.weight, layer.bias = (nn.Parameter(t[rows].clone(), requires_grad=False) for t in (W, b))
        return layer

    def renumber(self, class_of_output: tuple[int, ...]) -> None:
        """Put the logits, and the rows of the head, into the order of the classes that they mean."""
        rows = [*class_of_output, *range(len(class_of_output), self.classes)]
        order = torch.tensor(rows, device=self.mean.device).argsort()
        self._order = order if self._order is None else self._order[order]

    def outputs(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Features and logits of one forward pass; the features are caught on their way into the head."""
        self._require_head()
        products, returned = self._recorded(x, self._head.keys)
        return self._head.features(products), self._logits(returned)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """g(x), the input of the head."""
        return self.outputs(x)[0]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """What the network returns for normalised images."""
        return self._logits(self.net(self.normalise(x)))

    def _logits(self, returned: Any) -> Tensor:
        logits = self._output.of(returned, self.name)
        return logits if self._order is None else logits[:, self._order.to(logits.device)]

    def _recorded(
        self, x: Tensor, wanted: Collection[Key] | None, wider: bool = False
    ) -> tuple[list[Product], Any]:
        dtype = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), x.dtype)
        z = self.normalise(x).to(dtype)
        return recorded(self.net, lambda: unwrapped(self.net)(z), self.classes, len(z), wanted, wider)

    @property
    def head_warnings(self) -> tuple[str, ...]:
        """What a reader of C and CAS must know of the head."""
        if self._head.relation == "none":
            return (self._mismatch(),)
        sentence = self._head.sentence(self.name, self._kind)
        return (sentence,) if sentence else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What else is worth knowing: where the logits are, what the head is made of, types of numbers."""
        how = "computes in its own types" if self.casts_itself else "is computed in float32"
        made = f"{self.name} is made in {' and '.join(self._made_in)} and {how}" if self._made_in else ""
        return tuple(n for n in (self._output.note(self.name), self._head.note(self.name), made) if n)

    def saliency_layer(self) -> nn.Module:
        """The layer named by model.saliency; else the last that gives a map of the image.

        For token models it is the norm before the last attention, since behind it only the class token
        may reach the head. Raises UserError if there is no map.
        """
        if self._saliency is None:
            raise UserError(
                f"{self.name} has no layer with a map of the image, so there is no Grad-CAM of it"
            )
        return self.net.get_submodule(self._saliency)

    def as_map(self, activation: Tensor) -> Float[Tensor, "n d h w"]:
        """A map as it is; tokens [n, t, d] as a map without the tokens that lead them."""
        if activation.ndim == 4:
            return activation
        grid = _grid(activation.shape[1], self.sides)
        if grid is None:
            raise UserError(
                f"{activation.shape[1]} tokens are no grid of the images' shape; name a layer: "
                "model.saliency=..."
            )
        return activation[:, -(grid[0] * grid[1]) :].transpose(1, 2).unflatten(2, grid)


@contextmanager
def closest_head(model: nn.Module) -> Iterator[None]:
    """Networks without a head take the closest layer for it, until this is left."""
    inside = [m for m in model.modules() if isinstance(m, Wrapped)]
    before = [m._obeyed for m in inside]
    try:
        for m in inside:
            m.take_closest_head()
        yield
    finally:
        for m, obeyed in zip(inside, before, strict=True):
            m._obeyed = obeyed


class _LayerCall(NamedTuple):
    """One layer that ran, and the shape of its output."""

    name: str
    shape: tuple[int, ...]
    sides: tuple[int, int]
    """Height and width of the images."""

    @property
    def is_map(self) -> bool:
        return len(self.shape) == 4 and self.shape[2] * self.shape[3] > 1

    @property
    def is_grid(self) -> bool:
        return len(self.shape) == 3 and _grid(self.shape[1], self.sides) is not None


def _calls(net: nn.Module, x: Tensor, what: str) -> tuple[list[_LayerCall], Any]:
    """The layers that run, in the order in which they finish, and what the network returns."""
    calls: list[_LayerCall] = []

    def record(module: nn.Module, args: tuple[Any, ...], output: Any, name: str) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(x):
            return
        calls.append(_LayerCall(name, tuple(output.shape), (x.shape[2], x.shape[3])))

    inner = [(n, m) for n, m in net.named_modules() if n and not isinstance(m, torch.jit.ScriptModule)]
    handles = [m.register_forward_hook(partial(record, name=n)) for n, m in inner]
    try:
        with eager(net):
            return calls, unwrapped(net)(x)
    except Exception as e:
        raise UserError(
            f"{what} fails on images {list(x.shape)} ({type(e).__name__}: {first_line(e)}); it must take "
            "float32 images [n, channels, height, width]; set model.arguments={...} if that helps"
        ) from e
    finally:
        for handle in handles:
            handle.remove()


def _saliency(
    calls: list[_LayerCall], layers: Mapping[str, nn.Module], name: str | None, what: str
) -> str | None:
    seen = {c.name: c for c in calls if c.is_map or c.is_grid}
    if name is not None:
        if name in seen:
            return name
        shape = next((f" gives {list(c.shape)}" for c in calls if c.name == name), " does not run")
        problem = shape if name in layers else " does not exist"
        raise UserError(
            f"model.saliency={name}{problem} in {what}, where a map [n, d, h, w] or tokens [n, t, d] are "
            f"needed{did_you_mean(name, seen)}"
        )
    last = next((c for c in reversed(calls) if c.is_map or c.is_grid), None)
    if last is None or last.is_map:
        return last.name if last else None
    tokens = [c.name for c in calls if c.shape == last.shape]
    return next((n for n in reversed(tokens) if n.split(".")[-1] in _BEFORE_ATTENTION), last.name)


@dataclass(frozen=True)
class _Output:
    """Where the logits are in what a network returns: the tensor itself, or under a key of a container."""

    where: str | int | None = None
    """Unset: `.logits`, or else the first tensor."""
    kind: str = ""
    others: int = 0
    """How many more might be logits too."""

    def of(self, returned: Any, what: str) -> Tensor:
        """The logits; in train mode a network may return another container than in eval mode."""
        if isinstance(returned, Tensor):
            return without_positions(returned)
        tensors = list(_tensors(returned))
        for where, tensor in tensors:
            if where == self.where:
                return tensor
        if tensors:
            return tensors[0][1]
        raise UserError(
            f"{what} returns a {type(returned).__name__}, no logits [n, classes]; return a tensor"
        )

    def note(self, what: str) -> str | None:
        """Which tensor was taken, if there were several things to take."""
        if not self.kind:
            return None
        more = f"; {self.others} more might be logits too" if self.others else ""
        return f"{what} returns a {self.kind}; its logits are read from [{self.where!r}]{more}"


def _tensors(returned: Any) -> Iterator[tuple[str | int, Tensor]]:
    """The tensors in what a network returns, `.logits` first, and under which key or number."""
    named = returned if isinstance(returned, Mapping) else getattr(returned, "__dict__", {})
    items: list[tuple[Any, Any]] = [("logits", getattr(returned, "logits", named.get("logits")))]
    items += enumerate(returned) if isinstance(returned, tuple | list) else named.items()
    before: list[Tensor] = []
    for where, item in items:
        if isinstance(item, Tensor) and all(item is not b for b in before):
            before.append(item)
            yield where, without_positions(item)


def _of_finite(products: list[Product], logits: Tensor) -> tuple[list[Product], Tensor]:
    """Without the images whose logits are no numbers, if enough are left."""
    some = logits.isfinite().all(dim=1) if logits.ndim == 2 else torch.ones(len(logits), dtype=torch.bool)
    if bool(some.all()) or int(some.sum()) < 8:
        return products, logits
    return [p._replace(g=p.g[some]) for p in products], logits[some]


def _images_for(classes: int) -> int:
    """So many images tell a head from a product that fits a few by chance."""
    return min(32, max(8, -(-80 // classes)))


def _grid(tokens: int, sides: tuple[int, int]) -> tuple[int, int] | None:
    """The grid, shaped like the images, that ends such a row of tokens; none if there is no such grid."""
    h, w = sides
    for lead in range(_PREFIX + 1):
        n = max(tokens - lead, 0)
        u = round((n * h / w) ** 0.5)
        if u > 0 and n % u == 0 and n > u > 1 and u * w == n // u * h:
            return u, n // u
    return None
