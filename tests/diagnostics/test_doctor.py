"""The doctor finds what was planted, by name.

A small trained network is made ill in one way at a time; a table holds an illness for every finding.
"""

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import seeded
from crossclass import diagnostics
from crossclass.attacks.norms import Linf
from crossclass.data import Split, Splits
from crossclass.diagnostics import FINDINGS, examine
from crossclass.diagnostics.findings import finding
from crossclass.models import Model, Variant
from faulty_networks import EPS, FULL, QUICK, TRIPLE, WIDE, Small, by_name, infinite, relabelled


class Reversed(torch.autograd.Function):
    """The identity, whose gradient has the wrong sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class AlwaysOn(nn.Module):
    def forward(self, g: Tensor) -> Tensor:
        return F.dropout(g, 0.2)


def rounded(x: Tensor) -> Tensor:
    return (x * 32).round() / 32


def shattered(x: Tensor) -> Tensor:
    return x + 1e-3 * torch.sin(1e4 * x)


def distance(x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square distance to the nearest remembered image, and that image; no gradient."""
    with torch.no_grad():
        apart = torch.cdist(x.flatten(1), memory.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        return apart.amin(dim=1)[:, None, None, None] / math.sqrt(memory[0].numel()), memory[apart.argmin(1)]


def remembers(beyond: float) -> Callable[[Small, Splits], None]:
    """Far from the images it knows it answers with the nearest of them, which has no gradient."""

    def plant(net: Small, data: Splits) -> None:
        memory = data.test.images.float() / 255

        def before(x: Tensor) -> Tensor:
            far, nearest = distance(x, memory)
            return torch.where(far > beyond, nearest, x)

        net.before = before

    return plant


def a_sixth_has_no_gradient(net: Small, data: Splits) -> None:
    """At every sixth of the images it knows the gradient is zero."""
    memory = data.test.images[::6].float() / 255

    def before(x: Tensor) -> Tensor:
        far, _ = distance(x, memory)
        return torch.where(far < 1e-6, x.detach(), x)

    net.before = before


def only_corners(net: Small, data: Splits) -> None:
    """The gradient is right at a known image only; inside the ball it answers for the known image."""
    memory = data.test.images.float() / 255

    def before(x: Tensor) -> Tensor:
        far, nearest = distance(x, memory)
        inside = torch.where(far < 1e-6, x, nearest)
        return torch.where(far < 0.9 * EPS, inside, x)

    net.before = before


def other_origin(net: Small, data: Splits) -> None:
    """The same logits from features that are one lower."""
    with torch.no_grad():
        net.head.bias += net.head.weight.sum(dim=1)
    features = net.features
    net.features = lambda x: features(x) - 1


def constants(mean: float, std: float) -> Callable[[Small, Splits], None]:
    return change(mean=torch.full((1, 1, 1, 1), mean), std=torch.full((1, 1, 1, 1), std))


def change(**what: Any) -> Callable[[Small, Splits], None]:
    def plant(net: Small, data: Splits) -> None:
        for name, value in what.items():
            setattr(net, name, value)

    return plant


def fill(path: str, index: Any, value: float) -> Callable[[Small, Splits], None]:
    def plant(net: Small, data: Splits) -> None:
        with torch.no_grad():
            tensor: Any = net
            for part in path.split("."):
                tensor = getattr(tensor, part)
            tensor[index] = value

    return plant


def twins(net: Small, data: Splits) -> None:
    with torch.no_grad():
        net.head.weight[1] = net.head.weight[0]


def half_frozen(net: Small, data: Splits) -> None:
    net.train().bn.eval()


def reset(net: Small, data: Splits) -> None:
    net.bn.reset_running_stats()


def common(z: Tensor, x: Tensor) -> Tensor:
    """Softmax saturates (p = 1 in float32), and what is common to all logits then rules the gradient."""
    return 12 * z + 1e5 * x.mean(dim=(1, 2, 3))[:, None]


def guessed(y: Tensor) -> Tensor:
    return torch.randint(3, y.shape, generator=seeded(0))


def one_class_more(data: Splits) -> Splits:
    return Splits(data.train, data.val, data.test, (*data.class_names, "new"), data.checksum)


def without_the_last_class(data: Splits) -> Splits:
    kept = data.test.labels < 2
    test = Split(data.test.images[kept], data.test.labels[kept])
    return Splits(data.train, data.val, test, data.class_names, data.checksum)


def nan_root(x: Tensor) -> Tensor:
    return x + 0 * (x - x).sqrt()


def rolled(x: Tensor) -> Tensor:
    return x.roll(3, dims=2)


class SmallSettings(Model):
    """Of `Small`; `before` of a network that has its weights."""

    kind: str = "small"
    roll: bool = False

    def __call__(self, classes: int, channels: int, mean: Any, std: Any, size: int = 32) -> Small:
        net = Small(classes, channels, side=size)
        net.before = rolled if self.roll else net.before
        return net


UPRIGHT = Variant(SmallSettings(), "roll")

Case = tuple[str, str, dict[str, Any]]


CASES: list[Case] = [
    ("cannot-run", "fault", {"ill": change(head=nn.Linear(7, 3))}),
    ("non-finite-weights", "fault", {"ill": fill("conv.weight", (0, 0, 0, 0), math.nan)}),
    ("zero-layers", "warning", {"ill": fill("conv.weight", slice(None), 0.0)}),
    ("constant-outputs", "fault", {"ill": fill("conv.weight", slice(None), 0.0)}),
    ("degenerate-head", "warning", {"ill": twins}),
    ("degenerate-head", "warning", {"ill": fill("head.weight", 2, 0.0)}),
    ("dead-features", "warning", {"ill": fill("bn.bias", slice(0, 5), -100.0)}),
    ("train-mode", "warning", {"ill": lambda net, data: net.train()}),
    ("frozen-batch-norm", "note", {"ill": half_frozen}),
    ("never-updated-batch-norm", "fault", {"ill": reset}),
    ("stale-batch-norm", "fault", {"ill": fill("bn.running_mean", slice(None), 3.0)}),
    ("wrong-class-count", "fault", {"data": one_class_more}),
    ("non-finite-outputs", "fault", {"ill": change(after=infinite)}),
    ("softmax-outputs", "fault", {"ill": change(after=lambda z, x: z.softmax(dim=1))}),
    ("sigmoid-outputs", "fault", {"ill": change(after=lambda z, x: z.sigmoid())}),
    ("log-softmax-outputs", "warning", {"ill": change(after=lambda z, x: z.log_softmax(dim=1))}),
    ("head-mismatch", "warning", {"ill": change(after=lambda z, x: 2 * z)}),
    ("collapsed-predictions", "warning", {"ill": fill("head.bias", 0, 1e3)}),
    ("unpredicted-classes", "warning", {"ill": fill("head.bias", 0, -1e3)}),
    ("classes-without-images", "warning", {"data": without_the_last_class}),
    ("random-outputs", "warning", {"ill": change(before=lambda x: x + 0.1 * torch.randn_like(x))}),
    ("random-outputs", "warning", {"ill": change(drop=AlwaysOn())}),
    ("batch-dependent", "fault", {"ill": change(before=lambda x: x - x.mean(0) + 0.5)}),
    ("wrong-normalisation", "fault", {"net": "imagenet", "ill": constants(0.0, 1.0)}),
    ("normalised-twice", "fault", {"ill": constants(1.0, 0.25)}),
    ("wrong-range", "fault", {"net": "bytes", "ill": change(std=torch.ones(1, 1, 1, 1))}),
    ("wrong-channel-order", "fault", {"ill": change(before=lambda x: x.flip(1))}),
    ("transposed-images", "fault", {"ill": change(before=lambda x: x.transpose(2, 3))}),
    ("turned-images", "fault", {"ill": change(before=lambda x: x.flip(3))}),
    ("turned-images", "fault", {"ill": change(before=lambda x: x.transpose(2, 3).flip(3))}),
    ("inverted-images", "fault", {"ill": change(before=lambda x: 1 - x)}),
    ("wrong-variant", "fault", {"ill": change(before=rolled), "variants": (UPRIGHT,)}),
    ("permuted-labels", "fault", {"data": relabelled(lambda y: (y + 1) % 3)}),
    ("permuted-labels", "fault", {"data": relabelled(lambda y: torch.tensor([1, 0, 2])[y])}),
    ("chance-accuracy", "fault", {"data": relabelled(guessed)}),
    ("movable-cas", "note", {"ill": other_origin, "settings": QUICK}),
    ("zero-gradients", "fault", {"ill": change(before=rounded), "settings": FULL}),
    ("zero-gradients", "fault", {"ill": change(before=lambda x: x.detach()), "settings": FULL}),
    ("non-finite-gradients", "fault", {"ill": change(before=nan_root), "settings": FULL}),
    ("wrong-gradients", "fault", {"ill": change(before=Reversed.apply), "settings": FULL}),
    ("wrong-gradients", "fault", {"ill": change(before=shattered), "settings": FULL}),
    ("saturated-loss", "warning", {"ill": change(after=lambda z, x: 1e4 * z), "settings": FULL}),
    ("weak-cross-entropy", "warning", {"ill": change(after=common), "settings": FULL}),
    ("attack-without-effect", "warning", {"ill": change(before=Reversed.apply), "settings": FULL}),
    ("attack-without-effect", "note", {"settings": FULL.replace(threat=Linf(eps=1e-5))}),
    ("gradient-masking-eps", "fault", {"ill": remembers(1.5 * EPS), "settings": FULL}),
    ("gradient-masking-steps", "fault", {"ill": remembers(0.95 * 0.15), "settings": TRIPLE}),
    ("gradient-masking-unbounded", "fault", {"ill": change(before=Reversed.apply), "settings": FULL}),
    ("gradient-masking-unbounded", "warning", {"ill": a_sixth_has_no_gradient, "settings": FULL}),
    ("gradient-masking-fgsm", "fault", {"ill": only_corners, "settings": FULL}),
    ("gradient-masking-noise", "fault", {"ill": change(before=Reversed.apply), "settings": WIDE}),
    ("gradient-masking-black-box", "fault", {"ill": change(before=shattered), "settings": FULL}),
    ("gradient-masking-transfer", "fault", {"ill": change(before=rounded), "settings": FULL, "on": "none"}),
    ("not-examined", "note", {"ill": change(after=infinite), "settings": QUICK}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "level", "case"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_an_illness_is_found_by_its_name(
    name: str, level: str, case: dict[str, Any], nets: dict[str, Small], data: Splits, monkeypatch
):
    if "settings" not in case:  # found before anything is attacked
        monkeypatch.setattr(diagnostics, "STAGES", diagnostics.STAGES[:3])
    net = copy.deepcopy(nets[case.get("net", "none")])
    case.get("ill", lambda net, data: None)(net, data)
    surrogate = copy.deepcopy(nets[case["on"]]) if "on" in case else None
    splits = case.get("data", lambda d: d)(data)
    variants = case.get("variants", ())
    found = by_name(examine(net, splits, case.get("settings", QUICK), surrogate=surrogate, variants=variants))
    assert found[name].level == level, found[name]
    assert found[name].remedy
    json.dumps([f.numbers for f in found.values()], allow_nan=False)


def test_every_finding_has_an_illness():
    assert {name for name, _, _ in CASES} == set(FINDINGS)
    with pytest.raises(KeyError):
        finding("no-such-name", "note", True, "", "")
