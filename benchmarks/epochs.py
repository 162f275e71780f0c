"""An epoch of each recipe by our loop, and by the standard loop written literally (for speed.py)."""

from collections.abc import Callable, Sequence

import torch
from peers import literal
from torch import Tensor, nn
from torch.nn import functional as F

from crossclass import models
from crossclass.attacks import FGSM, PGD
from crossclass.core.device import to_device
from crossclass.core.progress import silent
from crossclass.core.runtime import Runtime
from crossclass.data import Npz, Split, Splits
from crossclass.models import AnyModel
from crossclass.training.epoch import train_epoch
from crossclass.training.recipes import AT, KnowledgeDistillation, Teacher, Trades, map_teachers
from crossclass.training.run import Run
from crossclass.training.state import TrainState

STEPS = 10
BF16 = PGD(steps=STEPS, precision="bf16")
OURS = {
    "AT": AT(attack=BF16),
    "KD": KnowledgeDistillation(inner=AT(attack=BF16)),
    "TRADES": Trades(attack=BF16.replace(start="gauss", loss="kl")),
    "FGSM-RS": AT(attack=FGSM(start="uniform", rel_step=1.25, precision="bf16")),
}
WORK = {"AT": 2 * STEPS + 3, "KD": 2 * STEPS + 4, "TRADES": 2 * STEPS + 1 + 6, "FGSM-RS": 2 + 3}
"""Forwards' worth of work per image at least: a gradient with respect to the input costs one more forward,
one with respect to input and weights two; a teacher's forward is one, and so is TRADES' clean prediction."""


def epochs(
    settings: AnyModel, batch: int, images: int, kinds: Sequence[str]
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Jobs `<kind>, ours` and `<kind>, standard loop`, and the ideal work of each in forwards of an epoch."""
    g = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (images, 3, 32, 32), generator=g, dtype=torch.uint8)
    split = Split(raw, torch.randint(0, 10, (images,), generator=g))
    splits = Splits(split, split, split, tuple("0123456789"), "")
    jobs: dict[str, Callable[[], object]] = {}
    for kind in kinds:
        run = Run(data=Npz(), model=settings, recipe=OURS[kind], batch=batch, epochs=10, lr_milestones=(5,))
        jobs[f"{kind}, ours"] = _ours(run, splits)
        jobs[f"{kind}, standard loop"] = _standard(kind, settings, split, batch)
    return jobs, {name: float(WORK[name.partition(",")[0]]) for name in jobs}


def _network(settings: AnyModel) -> nn.Module:
    return models.build(settings, torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 10, 0)


def _ours(run: Run, splits: Splits) -> Callable[[], object]:
    """A whole epoch of our loop: order, augmentation, crafting, steps, watching."""
    runtime = Runtime(device="cpu")
    state = TrainState(run, runtime, _network(run.model), splits)  # type: ignore[arg-type]
    network = to_device(_network(run.model), runtime.torch_device, runtime.memory_format)
    teacher = Teacher(module=network.requires_grad_(False))
    recipe = map_teachers(run.recipe, lambda kd, unnamed: teacher)
    return lambda: train_epoch(recipe, state, splits, 1, silent, lambda text: None)


def _standard(kind: str, settings: AnyModel, split: Split, batch: int) -> Callable[[], object]:
    """float32, contiguous, `.backward()` in the attack; images prepared beforehand and not augmented."""
    model, teacher = _network(settings).train(), _network(settings).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    x_all, y_all = split.images.float() / 255, split.labels
    attack = literal("linf", 8 / 255, STEPS)

    def craft(x: Tensor, y: Tensor) -> Tensor:
        if kind == "TRADES":
            return _trades(model, x)
        if kind != "FGSM-RS":
            return attack(model, x, y)
        delta = torch.zeros_like(x).uniform_(-8 / 255, 8 / 255).requires_grad_()
        F.cross_entropy(model(x + delta), y).backward()
        assert delta.grad is not None
        moved = (delta.detach() + 10 / 255 * delta.grad.sign()).clamp(-8 / 255, 8 / 255)
        return (x + moved).clamp(0, 1)

    def loss(x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
        logits = model(x_adv)
        if kind == "KD":
            with torch.no_grad():
                told = (teacher(x_adv) / 2).softmax(dim=1)
            soft = F.kl_div((logits / 2).log_softmax(dim=1), told, reduction="batchmean")
            return 0.5 * F.cross_entropy(logits, y) + 0.5 * 4 * soft
        if kind == "TRADES":
            clean = model(x)
            far = F.kl_div(logits.log_softmax(dim=1), clean.softmax(dim=1), reduction="batchmean")
            return F.cross_entropy(clean, y) + 6 * far
        return F.cross_entropy(logits, y)

    def epoch() -> None:
        model.train()
        for index in torch.randperm(len(y_all)).split(batch):
            x, y = x_all[index], y_all[index]
            x_adv = craft(x, y)
            optimizer.zero_grad()
            loss(x, x_adv, y).backward()
            optimizer.step()

    return epoch


def _trades(model: nn.Module, x: Tensor) -> Tensor:
    """The inner loop of TRADES' code: KL to the clean prediction, recomputed in every step, in eval mode."""
    model.eval()
    x_adv = x + 0.001 * torch.randn_like(x)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        clean = model(x).softmax(dim=1)
        F.kl_div(model(x_adv).log_softmax(dim=1), clean, reduction="sum").backward()
        assert x_adv.grad is not None
        x_adv = x_adv.detach() + 2 / 255 * x_adv.grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - 8 / 255), x + 8 / 255).clamp(0, 1)
    model.train()
    return x_adv.detach()
