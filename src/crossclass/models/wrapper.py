"""Anyone's network as a `Classifier`: its features g(x) are the input of its last linear layer.

One probe forward in eval mode shows which layers run, in which order and with which shapes: the head is
the last `nn.Linear` that runs and gives one column per class, whatever its name, and Grad-CAM looks at
the last map of the image. Hooks live for one forward only, and the network's function and weights stay as
they are; some convolutions are computed in another way, for the reason that `subsample_first` gives.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossclass.core.errors import UserError, did_you_mean, first_line
from crossclass.core.rng import generator
from crossclass.data.base import PerChannel
from crossclass.models.base import Classifier, Size, sides, subsample_first
from crossclass.models.model_state import evaluating

_BEFORE_ATTENTION = ("norm1", "ln_1", "norm_1", "ln1", "layernorm_before", "attention_norm")
"""What timm, torchvision, transformers and others call the layer norm in front of a block's attention."""
_PREFIX = 5
"""At most so many tokens stand before the patches: class, distillation, four registers."""


class Wrapped(Classifier):
    """`net` behind our normalisation; logits are what it returns (the first tensor of a tuple).

    Raises UserError where the network or the layers named do not serve. `notes` says what a user should
    know, such as logits that are not W g(x) + b.
    """

    net: nn.Module
    notes: tuple[str, ...]

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
        subsample_first(net)
        x = torch.rand(2, channels, *sides(size), generator=generator(0))
        device = next((t.device for t in net.parameters()), x.device)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(net):
            calls, returned = _calls(net, self.normalise(x).to(device), name)
        logits = _first_tensor(returned, name)
        if logits.shape != (2, classes):
            raise UserError(
                f"{name} returns {list(logits.shape)} for 2 images, not [2, {classes}]; tell it how many "
                f"classes, as in model.arguments={{num_classes: {classes}}}, or give the data it is for (if "
                "these merely lack images of some classes, name all of them in class_names)"
            )
        found = _head(calls, dict(net.named_modules()), classes, head, name)
        g = found.input
        assert g is not None
        self.head_name = found.name
        self._saliency = _saliency(calls, dict(net.named_modules()), saliency, name)
        self.notes = tuple(_notes(returned, logits, self.head(g), found.name, name))

    @property
    def head(self) -> nn.Linear:  # type: ignore[override]  # a view of the net's own layer, held once
        """The linear layer whose input are the features."""
        layer = self.net.get_submodule(self.head_name)
        assert isinstance(layer, nn.Linear)
        return layer

    def outputs(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Features and logits of one forward pass; the features are caught on their way into the head."""
        caught: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
        try:
            logits = self(x)
        finally:
            handle.remove()
        return caught[-1], logits

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """g(x), the input of the head."""
        return self.outputs(x)[0]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """What the network returns for normalised images."""
        return _first_tensor(self.net(self.normalise(x)), self.name)

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


class _LayerCall(NamedTuple):
    """One layer that ran: the shape of its output, and the input of a linear layer."""

    name: str
    shape: tuple[int, ...]
    input: Tensor | None
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
        given = args[0] if isinstance(module, nn.Linear) and args else None
        calls.append(_LayerCall(name, tuple(output.shape), given, (x.shape[2], x.shape[3])))

    handles = [m.register_forward_hook(partial(record, name=name)) for name, m in net.named_modules() if name]
    try:
        return calls, net(x)
    except Exception as e:
        raise UserError(
            f"{what} fails on images {list(x.shape)} ({type(e).__name__}: {first_line(e)}); it must take "
            "float32 images [n, channels, height, width]; set model.arguments={...} if that helps"
        ) from e
    finally:
        for handle in handles:
            handle.remove()


def _head(
    calls: list[_LayerCall], layers: Mapping[str, nn.Module], classes: int, name: str | None, what: str
) -> _LayerCall:
    linear = [c for c in calls if isinstance(layers[c.name], nn.Linear)]
    if name is not None:
        if name not in layers:
            raise UserError(
                f"{what} has no layer model.head={name}{did_you_mean(name, [c.name for c in linear])}"
            )
        if not isinstance(layers[name], nn.Linear):
            kind = type(layers[name]).__name__
            raise UserError(f"model.head={name} is a {kind} of {what}, not a linear layer; name an nn.Linear")
        linear = [c for c in linear if c.name == name]
        if not linear:
            raise UserError(f"model.head={name} does not run in a forward of {what}; name one that does")
    if not linear:
        raise UserError(
            f"{what} runs no linear layer (a convolutional head?); features are the input of an nn.Linear, "
            "so end it in one, behind the pooling"
        )
    fitting = [c for c in linear if c.shape[-1] == classes]
    if not fitting:
        last = linear[-1]
        raise UserError(
            f"no linear layer of {what} gives {classes} columns, one per class (the last to run, "
            f"'{last.name}', gives {last.shape[-1]}); name another with model.head=..."
        )
    chosen = fitting[-1]
    if chosen.input is None or chosen.input.ndim != 2:
        shape = "by keyword" if chosen.input is None else f"of shape {list(chosen.input.shape)} for 2 images"
        raise UserError(
            f"the head '{chosen.name}' of {what} gets its input {shape}, not [n, d]; name another linear "
            "layer with model.head=..."
        )
    return chosen


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


def _notes(returned: Any, logits: Tensor, expected: Tensor, head: str, what: str) -> Iterator[str]:
    if not isinstance(returned, Tensor):
        yield f"{what} returns a {type(returned).__name__}; its logits, or else its first tensor, are used"
    if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-4):
        yield (
            f"what {what} returns is not W g(x) + b of its layer '{head}' (a softmax, a scale, a second "
            "head?), so attributions W[y] * g(x) do not add up to its outputs"
        )


def _first_tensor(returned: Any, what: str) -> Tensor:
    """The logits in what a network returns: a tensor, `.logits`, or the first tensor of a tuple."""
    if isinstance(returned, Tensor):
        return returned
    items = returned if isinstance(returned, tuple | list) else ()
    for item in (getattr(returned, "logits", None), *items):
        if isinstance(item, Tensor):
            return item
    raise UserError(f"{what} returns a {type(returned).__name__}, no logits [n, classes]; return a tensor")


def _grid(tokens: int, sides: tuple[int, int]) -> tuple[int, int] | None:
    """The grid, shaped like the images, that ends such a row of tokens; none if there is no such grid."""
    h, w = sides
    for lead in range(_PREFIX + 1):
        n = max(tokens - lead, 0)
        u = round((n * h / w) ** 0.5)
        if u > 0 and n % u == 0 and n > u > 1 and u * w == n // u * h:
            return u, n // u
    return None
