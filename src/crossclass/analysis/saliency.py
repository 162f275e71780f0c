"""Where a model looks: Grad-CAM of the true class, and how far its maps spread (paper, Fig. 3c and 11).

With F_k the k-th channel of a layer's map and f_y the true logit,

    map(u, v) = ReLU( sum_k a_k F_k(u, v) ),    a_k = mean over (u, v) of  d f_y / d F_k(u, v).

At the last map before the mean pooling the gradient is W[y, k] / (h w) everywhere. Without its ReLU the
map is then h w times too small a picture of the attribution A_y(x) = W[y] * g(x) (eq. 4): it *sums* over
(u, v) to sum_k A_y(x)_k = f_y - b_y, so h w times its mean does: the map shows
where in the image the attributions that CAS compares come from.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossclass.attacks import require_images
from crossclass.core.classes import Classes, require_labels, whole_labels
from crossclass.core.device import full_precision
from crossclass.core.errors import UserError
from crossclass.core.torch_state import usual_torch_state
from crossclass.models import Classifier
from crossclass.models.model_state import evaluating, frozen, in_float32


@usual_torch_state()
def grad_cam(
    model: Classifier,
    x: Float[Tensor, "n c h w"],
    y: Classes,
    *,
    layer: nn.Module | None = None,
    relu: bool = True,
    batch: int = 250,
) -> Float[Tensor, "n u v"]:
    """Grad-CAM of class y at the layer's own resolution (unset: `saliency_layer()`), float32 on the CPU.

    The model runs in eval mode and is handed back as it was. `relu=False` keeps what speaks against the
    class. Raises UserError if the layer is not the model's, is not used, or has no map of the image, and for
    labels that are no classes of the network.
    """
    require_images(x)
    if x.ndim != 4:
        raise UserError(f"images have shape {list(x.shape)}; give [n, c, h, w]")
    y = whole_labels(y, len(x)).long()
    require_labels(y, len(model.head.weight))
    return _maps(model, model, x, y, layer, relu=relu, batch=batch)


class _Features(nn.Module):
    """A model's features as a network of their own."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        g: Tensor = self.model.features(x)
        return g


@usual_torch_state()
def feature_maps(
    model: Classifier,
    x: Float[Tensor, "n c h w"],
    features: Int[Tensor, " m"],
    *,
    layer: nn.Module | None = None,
    batch: int = 250,
) -> Float[Tensor, "n u v"]:
    """Where in each image one of its features lies: Grad-CAM of the feature, float32 on the CPU.

    The map sums to what the feature is, if the layer is followed by a mean over space: then it is the
    feature's own channel, divided by the number of positions. Elsewhere it is the usual first-order picture.

    Args:
        model: The network, handed back as it was.
        x: Images in [0, 1].
        features: The number of a feature for each image.
        layer: Unset is `feature_layer`.
        batch: Images at once.

    Raises:
        UserError: for a layer that is not the model's, is not used, or has no map of the image, and for a
            feature that the network does not have.
    """
    require_images(x)
    d = model.head.weight.shape[1]
    if len(features) != len(x) or bool(((features < 0) | (features >= d)).any()):
        raise UserError(f"give one feature for each of {len(x)} images, a number from 0 to {d - 1}")
    if layer is None and len(x):
        layer = feature_layer(model, x[:1])
    return _maps(model, _Features(model), x, features.long(), layer, relu=True, batch=batch)


@torch.no_grad()
def feature_layer(model: Classifier, x: Float[Tensor, "n c h w"]) -> nn.Module:
    """The module whose output, averaged over space, is the features of these images; else `saliency_layer()`.

    It is looked for by comparing: the last module of which this is so. Where features are no spatial mean, as
    of a class token, there is none.
    """
    found: list[nn.Module] = []
    seen: list[tuple[nn.Module, Tensor]] = []

    def remember(module: nn.Module, inputs: Any, out: Any) -> None:
        if isinstance(out, Tensor) and out.ndim == 4 and out.shape[1] == model.head.weight.shape[1]:
            seen.append((module, out.mean(dim=(2, 3))))

    hooks = [module.register_forward_hook(remember) for module in model.modules()]
    try:
        with full_precision(), evaluating(model), in_float32(model):
            g = model.features(x.to(model.head.weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    for module, mean in seen:
        if mean.shape == g.shape and torch.allclose(mean.float(), g.float(), rtol=1e-3, atol=1e-5):
            found.append(module)
    return found[-1] if found else model.saliency_layer()


def _maps(
    model: Classifier,
    outputs: nn.Module,
    x: Tensor,
    target: Int[Tensor, " n"],
    layer: nn.Module | None,
    *,
    relu: bool,
    batch: int,
) -> Float[Tensor, "n u v"]:
    """Grad-CAM of one of the outputs for each image."""
    from captum.attr import LayerGradCam  # slow to import

    if len(x) == 0:  # captum needs an image to know the resolution
        blank = torch.zeros(1, *x.shape[1:]), torch.zeros(1, dtype=torch.int64)
        return _maps(model, outputs, *blank, layer, relu=relu, batch=batch)[:0]
    layer = model.saliency_layer() if layer is None else layer
    layer_name(model, layer)
    device = model.head.weight.device
    probe, maps, reached = nn.Identity(), [], False

    def through_probe(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
        """Let the map pass the probe and give the layer's output back, unchanged to the last bit.

        The pull-back of `as_map` carries the map's gradient to the tokens it was read from, so weights
        average over the positions of the map: neither over channels nor over a class token.
        """
        nonlocal reached
        reached = True
        F_map, pull_back = torch.func.vjp(model.as_map, out)[:2]
        if F_map.ndim != 4:
            raise UserError(
                f"Grad-CAM needs a map [n, d, h, w] but '{layer_name(model, layer)}' gives "
                f"{list(F_map.shape)}; name another layer, or reshape its tokens in as_map"
            )
        # a node of its own: captum differentiates with respect to what the probe is given
        (unchanged,) = pull_back(probe(F_map.clone()) - F_map)
        return out + unchanged

    hook = layer.register_forward_hook(through_probe)
    try:
        with full_precision(), in_float32(model), frozen(outputs) as forward:
            cam = LayerGradCam(forward, probe)
            for start in range(0, len(x), batch):
                part = slice(start, start + batch)
                images = x[part].detach().to(device).requires_grad_()
                cam_maps = cam.attribute(images, target=target[part].to(device), relu_attributions=relu)
                maps.append(cam_maps.detach()[:, 0].float().cpu())
    except AssertionError as e:
        if reached:
            raise
        name = layer_name(model, layer)
        raise UserError(f"'{name}' is not used by {type(model).__name__}; name another layer") from e
    finally:
        hook.remove()
    return torch.cat(maps)


def resized(maps: Float[Tensor, "n u v"], size: int | tuple[int, int]) -> Float[Tensor, "n h w"]:
    """The maps at the size of the images, bilinear: for drawings, not for measurements."""
    to = (size, size) if isinstance(size, int) else size
    return F.interpolate(maps[:, None], to, mode="bilinear", align_corners=False)[:, 0]


def half_mass_area(maps: Float[Tensor, "n u v"]) -> Float[Tensor, " n"]:
    """The smallest share of the area that holds half of a map's positive mass, in (0, 0.5].

    Positions are taken from the brightest down, the last one in part, so the number is continuous: 0.5 for
    a flat map, 0.5 / (h w) if all is in one position. Only a map without positive mass is 0. Compare maps of
    one resolution only: finer ones can be narrower.
    """
    mass = _mass(maps).sort(dim=1, descending=True).values
    reached = mass.cumsum(dim=1)
    half = reached[:, -1:] / 2
    whole = (reached < half).sum(dim=1, keepdim=True).clamp(max=mass.shape[1] - 1)  # positions taken in full
    before = (reached - mass).gather(1, whole)
    last = mass.gather(1, whole)
    area = (whole + (half - before) / torch.where(last > 0, last, 1)) / mass.shape[1]
    return torch.where(half > 0, area, 0)[:, 0].to(maps.dtype)


def entropy(maps: Float[Tensor, "n u v"]) -> Float[Tensor, " n"]:
    """Shannon entropy of the positive mass over log(h w): 1 for a flat map, 0 for one position.

    A map without positive mass is 0 as well. A map of one position is flat: 1.
    """
    mass = _mass(maps)
    total = mass.sum(dim=1)
    p = mass / torch.where(total > 0, total, 1)[:, None]
    nats = torch.special.entr(p).sum(dim=1)
    relative = nats / math.log(mass.shape[1]) if mass.shape[1] > 1 else torch.ones_like(nats)
    return torch.where(total > 0, relative, 0).to(maps.dtype)


def right_then_wrong(
    labels: Int[Tensor, " n"], best: Int[Tensor, " n"], last: Int[Tensor, " n"]
) -> Int[Tensor, " m"]:
    """Indices of the samples that are right at best and wrong at last, as in the paper's figures."""
    return ((best == labels) & (last != labels)).nonzero()[:, 0]


def layer_name(model: nn.Module, layer: nn.Module) -> str:
    """What the model calls this module; raises UserError if it is not one of its own."""
    for name, module in model.named_modules():
        if module is layer:
            return name
    raise UserError(
        f"the layer given to Grad-CAM ({type(layer).__name__}) is not part of {type(model).__name__}; "
        "take one from model.named_modules()"
    )


def _mass(maps: Float[Tensor, "n u v"]) -> Float[Tensor, "n uv"]:
    """What speaks for the class, in float64: float32 sums would tell a map from its permutation."""
    return maps.flatten(1).clamp(min=0).double()
