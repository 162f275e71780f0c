"""A new norm is one class: defined here, registered, and seen everywhere without further edits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor

from crossclass.attacks import PGD, AutoAttack, reference_attack
from crossclass.attacks.norms import AnyThreat, Start, Threat
from crossclass.cli import main
from crossclass.cli.arguments import assign
from crossclass.core.config import Eps, load_yaml
from crossclass.core.errors import UserError
from crossclass.core.plugins import family, register
from crossclass.core.rng import uniform
from crossclass.training.run import Run
from run_file import TINY


class WeightedLinf(Threat):
    """|w delta|_inf <= eps: pixels of the left half may change twice as much."""

    kind: Literal["weighted"] = "weighted"
    eps: Eps = 6 / 255

    label: ClassVar[str] = "weighted l_inf"
    starts: ClassVar[tuple[Start, ...]] = ("uniform", "none")
    uniform_start: ClassVar[Start] = "uniform"
    usual_step: ClassVar[float] = 0.2
    smallest: ClassVar[float] = 1 / 255

    def bound(self, x: Tensor) -> Tensor:
        left = torch.arange(x.shape[-1], device=x.device) < x.shape[-1] // 2
        return torch.where(left, 2.0, 1.0)

    def norm(self, delta: Tensor) -> Tensor:
        return (delta / self.bound(delta)).flatten(1).abs().amax(dim=1)

    def sample(self, x: Tensor, start: Start, generator: torch.Generator | None) -> Tensor:
        if start == "none":
            return torch.zeros_like(x)
        return (2 * uniform(x, generator) - 1) * self.eps * self.bound(x)

    def steepest(self, gradient: Tensor, step: float) -> Tensor:
        return step * gradient.sign().nan_to_num(nan=0.0) * self.bound(gradient)

    def project(self, delta: Tensor) -> Tensor:
        limit = self.eps * self.bound(delta)
        return delta.clamp(-limit, limit)


@pytest.fixture
def registered() -> Iterator[None]:
    register(AnyThreat, WeightedLinf)
    try:
        yield
    finally:
        family(AnyThreat).remove(WeightedLinf)


def call(*arguments: str) -> None:
    with pytest.raises(SystemExit) as e:
        main(arguments)
    assert not e.value.code, arguments


def test_attacks_and_runs_take_its_attributes(registered: None) -> None:
    attack = reference_attack(WeightedLinf())
    assert attack.rel_step == 0.2
    assert str(attack).startswith("PGD-20, weighted l_inf 6/255, step 0.2 eps, uniform start")
    run = assign(Run(), ["recipe.attack.threat.kind=weighted"])
    assert run.final_attack() == attack
    assert load_yaml(Run, run.yaml(), "f") == run
    with pytest.raises(UserError, match="weighted l_inf"):
        assign(Run(), ["recipe.attack.threat.kind=weighted", "recipe.attack.threat.eps=1e-3"])
    with pytest.raises(ValueError, match="weighted l_inf"):
        AutoAttack(threat=WeightedLinf())
    with pytest.raises(UserError, match="known: uniform, none"):
        assign(PGD(), ["threat.kind=weighted", "start=ball"])


def test_it_is_listed_shown_trained_measured_and_printed_on_pages(
    registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    call("list")
    assert "weighted" in {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    call("show", "weighted")
    assert "eps: 6/255" in capsys.readouterr().out
    change = "recipe.attack.threat.kind=weighted"
    call("show", "tiny.yaml", change)
    assert "kind: weighted" in capsys.readouterr().out
    call("train", "tiny.yaml", change, "validation.final=null", "out=runs")
    (run,) = Path("runs").iterdir()
    call("measure", str(run), "out=measured.json")
    shown = capsys.readouterr().out
    text = Path("measured.json").read_text()
    assert "PGD-20, weighted l_inf 6/255" in text
    assert '"kind": "weighted"' in json.dumps(json.loads(text))
    assert "weighted l_inf 6/255" in shown
    for source in (str(run), "measured.json"):
        call("report", source, f"out={Path(source).stem}.html")
        assert "weighted l_inf 6/255" in Path(f"{Path(source).stem}.html").read_text()
