"""Other people's attacks with one signature and the settings of ours (for speed.py), and the standard loop.

A peer is `attack(model, x, y) -> x_adv` for images in [0, 1]: PGD with a random start and steps of eps/4
(l_2: eps/8). Libraries that are not installed are left out. torchvision and visdom, which adv-lib imports and
its PGD does not use, are empty modules here, so that no CUDA build is needed.
"""

import sys
import types
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
SHARE = {"linf": 0.25, "l2": 0.125}
"""Of eps, a step."""


def literal(norm: str, eps: float, steps: int) -> Attack:
    """The loop of Rice 2020 and the paper's code: the whole backward pass in every step."""
    alpha = SHARE[norm] * eps

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if norm == "linf":
            delta = torch.zeros_like(x).uniform_(-eps, eps)
        else:
            delta = torch.randn_like(x)
            length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            delta = delta * torch.rand_like(length) / length * eps
        delta = torch.max(torch.min(delta, 1 - x), -x).requires_grad_()
        for _ in range(steps):
            F.cross_entropy(model(x + delta), y).backward()
            g = delta.grad
            assert g is not None
            if norm == "linf":
                d = (delta.detach() + alpha * g.sign()).clamp(-eps, eps)
            else:
                unit = g / (g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) + 1e-10)
                d = (delta.detach() + alpha * unit).flatten(1).renorm(2, 0, eps).view_as(x)
            delta.data = torch.max(torch.min(d, 1 - x), -x)
            g.zero_()
        return (x + delta).detach()

    return attack


def peers(norm: str, eps: float, steps: int) -> dict[str, Attack]:
    """What is installed, by name; the standard loop first."""
    found: dict[str, Attack] = {"standard loop": literal(norm, eps, steps)}
    for name, make in (
        ("torchattacks", _torchattacks),
        ("foolbox", _foolbox),
        ("ART", _art),
        ("adv-lib", _adv_lib),
        ("pyautoattack APGD", _apgd),
    ):
        with suppress(ImportError, KeyError):
            found[name] = make(norm, eps, steps)
    return found


def _torchattacks(norm: str, eps: float, steps: int) -> Attack:
    import torchattacks

    kind = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    return lambda model, x, y: kind(model, eps=eps, alpha=SHARE[norm] * eps, steps=steps, random_start=True)(
        x, y
    )


def _foolbox(norm: str, eps: float, steps: int) -> Attack:
    import foolbox

    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    attack = kind(rel_stepsize=SHARE[norm], steps=steps)

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        return attack(wrapped, x, y, epsilons=[eps])[1][0]

    return run


def _art(norm: str, eps: float, steps: int) -> Attack:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    order = {"linf": np.inf, "l2": 2}[norm]
    settings = {"max_iter": steps, "num_random_init": 1, "verbose": False}

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        loss, shape = nn.CrossEntropyLoss(), tuple(x.shape[1:])
        wrapped = PyTorchClassifier(model, loss, shape, 10, clip_values=(0.0, 1.0), device_type="cpu")
        attack = ProjectedGradientDescent(
            wrapped, order, eps, SHARE[norm] * eps, batch_size=len(x), **settings
        )
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    return run


def _adv_lib(norm: str, eps: float, steps: int) -> Attack:
    for name in ("torchvision", "torchvision.models", "visdom"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from adv_lib.attacks import pgd_linf

    attack = {"linf": pgd_linf}[norm]
    return lambda model, x, y: attack(model, x, y, eps, steps=steps, absolute_step_size=SHARE[norm] * eps)


def _apgd(norm: str, eps: float, steps: int) -> Attack:
    from pyautoattack.autopgd_base import APGDAttack

    kind = {"linf": "Linf", "l2": "L2"}[norm]
    return lambda model, x, y: APGDAttack(model, n_iter=steps, norm=kind, eps=eps, device=x.device).perturb(
        x, y
    )
