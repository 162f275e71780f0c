"""Attacks as other people write them: one that behaves, and one for every way of misbehaving.

Each is called as `External` calls it, `function(model, x, y, **arguments)`.
"""

import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def ascent(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int = 3, norm: str = "linf") -> Tensor:
    """PGD from a random start, drawn from the global stream, with nothing of the library that calls it."""
    draw = 2 * torch.rand(x.shape, device=x.device) - 1
    if norm == "l2":
        draw = F.normalize(draw.flatten(1)).view(x.shape)
    x_adv = (x + eps * draw).clamp(0, 1)
    for _ in range(steps):
        x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        if norm == "linf":
            delta = (x_adv.detach() - x + eps / 2 * gradient.sign()).clamp(-eps, eps)
        else:
            delta = x_adv.detach() - x + eps / 2 * F.normalize(gradient.flatten(1)).view(x.shape)
            length = delta.flatten(1).norm(dim=1).clamp(min=eps)
            delta = delta * (eps / length).view(-1, *[1] * (x.ndim - 1))
        x_adv = (x + delta).clamp(0, 1)
    return x_adv


def stays(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Does nothing."""
    return x


# --- what comes back is wrong


def moves(model: nn.Module, x: Tensor, y: Tensor, by: float, clip: bool = True) -> Tensor:
    """Every pixel by the same, up or down, away from the nearer border."""
    x_adv = x + by * torch.where(x < 0.5, 1.0, -1.0)
    return x_adv.clamp(0, 1) if clip else x_adv


def raises_pixels(model: nn.Module, x: Tensor, y: Tensor, by: float) -> Tensor:
    """Upwards, without clipping."""
    return x + by


def one_nan(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """One pixel of one image is lost."""
    x[1, 0, 0, 0] = float("nan")
    return x


def first_only(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Drops all images but one."""
    return x[:1]


def pairs(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images and labels, as some libraries do."""
    return x, y


def as_bytes(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Images of uint8."""
    return (255 * x).to(torch.uint8)


def in_255(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Images in 0..255."""
    return 255 * x


def in_double(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Images of float64 that require a gradient, in another layout."""
    return x.double().requires_grad_().to(memory_format=torch.channels_last)


def spoils_its_input(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Works in place, so that x_adv - x would look like nothing; spoils the labels too."""
    y.zero_()
    return x.add_(0.05).clamp_(0, 1)


# --- what is left behind in the model


def leaves_training(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Train mode, and batch norm that no longer tracks."""
    model.train()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.track_running_stats = False
    return x


def goes_backward(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Thaws all parameters and leaves gradients in them."""
    for p in model.parameters():
        p.requires_grad_(True)
    F.cross_entropy(model(x), y).backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "extra" not in n)
    return x


def moves_statistics(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Forward passes in train mode."""
    model.train()
    model(x)
    model(x)
    return x


def replaces_buffers(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Other tensors in the place of buffers, and a hook."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean = torch.ones_like(m.running_mean)
            m.register_buffer("more", torch.ones(1))
            m.register_forward_hook(lambda m, x, out: 0 * out)
    return x


def changes_a_weight(model: nn.Module, x: Tensor, y: Tensor, how: str = "data") -> Tensor:
    """In place, past autograd's notice, by another parameter, or by another precision."""
    head = next(m for m in model.modules() if isinstance(m, nn.Linear))
    if how == "data":
        head.weight.data.mul_(1.5)
    elif how == "new":
        head.weight = nn.Parameter(head.weight.detach() + 1)
    elif how == "gone":
        head.register_parameter("bias", None)
    else:
        model.half()
    return x


def reloads(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The same weights in new places: nothing has changed."""
    head = next(m for m in model.modules() if isinstance(m, nn.Linear))
    head.weight = nn.Parameter(head.weight.detach().clone())
    head.bias.data = head.bias.data.clone()
    return x


def on_a_copy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Perturbs the weights of a copy: allowed; the copy must be one."""
    from copy import deepcopy

    other = deepcopy(model)
    for p in other.parameters():
        p.data.mul_(0.5)
    assert not torch.equal(other(x), model(x))
    return x


# --- what is left behind elsewhere


def seeds_by_the_clock(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Seeds all global streams and draws from them."""
    now = time.time_ns() % 2**32
    random.seed(now)
    np.random.seed(now)  # noqa: NPY002
    torch.manual_seed(now)
    return x


def draws(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Noise from all three streams."""
    noise = random.random() + np.random.rand() + torch.rand(x.shape)  # noqa: NPY002
    return (x + 0.01 * noise).clamp(0, 1)


def turns_switches(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Precision, determinism and gradients, for everyone from now on."""
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_grad_enabled(False)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic
    torch.backends.cuda.matmul.allow_tf32 = not torch.backends.cuda.matmul.allow_tf32
    return x


def fails(model: nn.Module, x: Tensor, y: Tensor, after: str = "") -> Tensor:
    """Raises, after another misdeed if one is named."""
    if after:
        globals()[after](model, x, y)
    raise RuntimeError("the gradient\nhas been lost")
