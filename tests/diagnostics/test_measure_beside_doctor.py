"""No defect that changes a number by more than two points passes `measure` without a line, nor the doctor.

The same small network is brought with one defect after the other, in files as a person would bring it.
"""

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import seeded
from crossclass import diagnostics
from crossclass.analysis.measure import Measure, measure
from crossclass.analysis.records import Measurement
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.load import Source, load_checkpoints
from crossclass.core.runtime import Runtime
from crossclass.data import Split, Splits
from crossclass.diagnostics import Finding, examine
from crossclass.models import Wrapped, statistics
from faulty_networks import EPS, QUICK, splits_of

IMAGENET = statistics()["imagenet"]
TOLERANCE = 0.02
State = dict[str, Tensor]


class Bare(nn.Module):
    """Convolution, batch norm, head, which know nothing of any normalisation."""

    def __init__(self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(288, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(F.relu(self.bn(self.conv(self.before(x)))).flatten(1)))


def same(x: Tensor) -> Tensor:
    return x


def itself(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in IMAGENET)
    return (x - mean) / std


@dataclass(frozen=True)
class Case:
    """How the network is brought."""

    normalise: Any = "imagenet"
    """None: nobody says."""
    before: Callable[[Tensor], Tensor] = same
    after: Callable[[Tensor], Tensor] = same
    state: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    labels: Callable[[Tensor], Tensor] = same


def head(order: list[int]) -> dict[str, Callable[[Tensor], Tensor]]:
    return {"head.weight": lambda t: t[order], "head.bias": lambda t: t[order]}


def with_nan(t: Tensor) -> Tensor:
    return torch.where(torch.arange(t.numel()).view(t.shape) == 0, torch.nan, t)


def random(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=seeded(5))


DEFECTS = {
    "never normalised": Case("none"),
    "normalised twice": Case({"mean": [1.0] * 3, "std": [0.25] * 3}, before=itself),
    "nobody says the normalisation": Case(None),
    "other constants": Case({"mean": [1.2] * 3, "std": [0.2] * 3}),
    "divides by 255": Case(None, before=lambda x: itself(x / 255)),
    "wants [-1, 1]": Case(None, before=lambda x: itself((x + 1) / 2)),
    "blue, green, red": Case(before=lambda x: x.flip(1)),
    "transposed": Case(before=lambda x: x.transpose(2, 3)),
    "two classes swapped": Case(state=head([1, 0, 2, 3])),
    "classes shuffled": Case(state=head([1, 2, 3, 0])),
    "labels numbered otherwise": Case(labels=lambda y: 3 - y),
    "batch norm of other images": Case(state={"bn.running_mean": lambda t: t + 3 * random(t)}),
    "a layer of zeros": Case(state={"conv.weight": torch.zeros_like}),
    "a class never given": Case(state={"head.bias": lambda t: t - 1e3 * F.one_hot(torch.tensor(1), 4)}),
    "NaN": Case(state={"head.weight": with_nan}),
    "softmax": Case(after=lambda z: (100 * z).softmax(dim=1)),
    "rounds": Case(before=lambda x: (x * 16).round() / 16),
    "noise": Case(before=lambda x: x + 0.5 * torch.randn_like(x)),
}
MASKED = ("rounds", "noise")
"""Those that only attacks show."""
SOUND = {
    "as it was trained": Case(),
    "normalises itself": Case("none", before=itself),
    "normalises itself, nobody says so": Case(None, before=itself),
}


@pytest.fixture(scope="module")
def state() -> State:
    """The weights of the sound network."""
    data = splits_of(4)
    x, y = data.train.images.float() / 255, data.train.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Wrapped(Bare(same, same), 4, 3, *IMAGENET, 6)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(40):
            optimizer.zero_grad()
            F.cross_entropy(net.train()(x), y).backward()
            optimizer.step()
    return net.net.state_dict()


@pytest.fixture(scope="module")
def right() -> dict[str, Any]:
    """The numbers of the sound network, once they are known."""
    return {}


@pytest.fixture
def bring(state: State, tmp_path: Path, trusted: None, monkeypatch: pytest.MonkeyPatch):
    """Both commands on the network as a case says."""

    def brought(case: Case, attacked: bool = True) -> tuple[Measurement, list[Finding]]:
        module = types.ModuleType("patients")
        module.network = lambda: Bare(case.before, case.after)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "patients", module)
        write(relabelled(splits_of(4), case.labels), tmp_path)
        torch.save({n: case.state.get(n, same)(t) for n, t in state.items()}, tmp_path / "net.pt")
        model = {"kind": "python", "call": "patients:network", "normalise": case.normalise}
        changes = {f"model.{k}": v for k, v in model.items() if v is not None}
        source, cpu = Source(changes={"data.path": str(tmp_path), **changes}), Runtime(device="cpu")
        settings = Measure(attack_changes={"steps": 8, "threat": Linf(eps=EPS)})
        (result,) = measure([str(tmp_path / "net.pt")], settings, source, cpu, trust=True).results
        if not attacked:
            monkeypatch.setattr(diagnostics, "STAGES", diagnostics.STAGES[:3])
        (one,) = load_checkpoints([str(tmp_path / "net.pt")], source, cpu)
        return result, examine(one.model, one.splits, QUICK)

    return brought


def relabelled(data: Splits, labels: Callable[[Tensor], Tensor]) -> Splits:
    parts = [Split(p.images, labels(p.labels)) for p in (data.train, data.val, data.test)]
    return Splits(*parts, data.class_names, data.checksum)


def write(data: Splits, folder: Path) -> None:
    for name in ("train", "test"):
        part = data.part(name)
        images = part.images.permute(0, 2, 3, 1).numpy()
        np.savez(folder / f"{name}.npz", images=images, labels=part.labels, class_names=data.class_names)


@pytest.mark.parametrize("name", DEFECTS)
def test_no_defect_passes_in_silence(name: str, bring: Any, right: dict[str, Any]):
    if not right:
        right |= bring(SOUND["as it was trained"], attacked=False)[0].metrics
    result, found = bring(DEFECTS[name], attacked=name in MASKED)
    close = all(abs(result.metrics[k] - right[k]) <= TOLERANCE for k in ("clean", "robust"))
    assert result.warnings or close
    assert [f.name for f in found if f.level in ("fault", "warning")] or close


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_network_raises_no_alarm(name: str, bring: Any):
    result, found = bring(SOUND[name])
    assert result.warnings == []
    assert [f for f in found if f.level != "fine"] == []
