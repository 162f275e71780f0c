"""Equations of recipes written out slowly in float64, and a small smooth network to hold them against."""

import math

import torch
from torch import Tensor, nn

from conftest import seeded
from crossclass.training.recipes import (
    AT,
    MART,
    AnyRecipe,
    KnowledgeDistillation,
    Standard,
    Trades,
)

K = 4


class Net(nn.Module):
    """Two layers with a smooth bend, in float64; logits can be scaled into saturation."""

    def __init__(self, seed: int, scale: float = 3.0) -> None:
        super().__init__()
        g = seeded(seed)
        self.a = nn.Parameter(torch.randn(5, 12, generator=g, dtype=torch.float64))
        self.b = nn.Parameter(scale * torch.randn(K, 5, generator=g, dtype=torch.float64))
        self.c = nn.Parameter(torch.randn(K, generator=g, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1).to(self.a.dtype) @ self.a.T) @ self.b.T + self.c


def batch(seed: int, n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    g = seeded(seed)
    x = torch.rand(n, 3, 2, 2, generator=g, dtype=torch.float64)
    x_adv = (x + 0.6 * (torch.rand(x.shape, generator=g, dtype=torch.float64) - 0.5)).clamp(0, 1)
    return x, x_adv, torch.randint(0, K, (n,), generator=g)


def softmax(z: list[float], T: float = 1.0) -> list[float]:
    top = max(v / T for v in z)
    e = [math.exp(v / T - top) for v in z]
    return [v / sum(e) for v in e]


def literal_kl(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def rows(model: nn.Module, x: Tensor) -> list[list[float]]:
    with torch.no_grad():
        return model(x).tolist()


def literal(recipe: AnyRecipe, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> float:
    """The loss of a batch, sample by sample, from the papers' equations."""
    clean, adv, total = rows(model, x), rows(model, x_adv), 0.0
    for i, label in enumerate(y.tolist()):
        p, q = softmax(clean[i]), softmax(adv[i])
        if isinstance(recipe, Standard):
            total += -math.log(p[label])
        elif isinstance(recipe, AT):
            total += -math.log(q[label])
        elif isinstance(recipe, Trades):
            total += -math.log(p[label]) + recipe.beta * literal_kl(p, q)
        elif isinstance(recipe, MART):
            rival = max(v for k, v in enumerate(q) if k != label)
            bce = -math.log(q[label]) - math.log(1.0001 - rival)
            total += bce + recipe.beta * literal_kl(p, q) * (1 - p[label])
        elif isinstance(recipe, KnowledgeDistillation):
            total += (1 - recipe.lam) * -math.log(q[label])
            weights = sum(t.weight for t in recipe.teachers)
            for t in recipe.teachers:
                assert t.module is not None
                told = rows(t.module, x_adv if recipe.teacher_input == "adversarial" else x)[i]
                taught, learnt = softmax(told, recipe.T), softmax(adv[i], recipe.T)
                forward = recipe.direction == "teacher_student"
                kl = literal_kl(taught, learnt) if forward else literal_kl(learnt, taught)
                share = recipe.lam * t.weight / weights * (recipe.T**2 if recipe.scale_by_T2 else 1)
                total += share * kl
        else:
            raise AssertionError(recipe)
    return total / len(y)
