"""A network with dropout is determined by its run's seed, resumes to the bit and moves no global stream."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from crossclass import models
from crossclass.attacks import External
from crossclass.core.rng import stream_seed
from crossclass.core.runtime import Runtime
from crossclass.models import AnyModel, Classifier, ViT, WideResNet
from crossclass.training.averaging import SWA
from crossclass.training.loop import iterate_epochs, train
from crossclass.training.recipes import AT, AWP, Trades
from crossclass.training.run import Run
from crossclass.training.state import TrainState
from tiny_runs import CPU, TINY, killed_after, same, weights

DROPOUT = TINY.replace(
    model=WideResNet(depth=10, widen=1, dropout=0.3, normalise="data"),
    epochs=2,
    lr_milestones=(),
    checkpoint_every=0,
)
RUNS = {
    "at": DROPOUT.replace(recipe=AT(attack=DROPOUT.recipe.attack.replace(bn="train"))),
    "awp": DROPOUT.replace(recipe=AWP(inner=Trades(attack=Trades().attack.replace(steps=1)), warmup=0)),
}


def trained(run: Run, out: Path, runtime: Runtime = CPU) -> dict[str, torch.Tensor]:
    return weights(train(run, out, "x", runtime))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_one_run_gives_one_network_and_the_global_streams_go_on(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.random.get_rng_state(), np.random.get_state()  # noqa: NPY002
    first = trained(run, tmp_path / "a")
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1][1], np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(2)
    assert same(first, trained(run, tmp_path / "b"))
    assert not same(first, trained(run.replace(seed=1), tmp_path / "c"))
    without = run.replace(model=run.model.replace(dropout=0.0))
    assert not same(first, trained(without, tmp_path / "d"))  # it does drop


@pytest.mark.parametrize("inside", [False, True])
def test_killed_and_resumed_is_uninterrupted(inside: bool, tmp_path: Path) -> None:
    run = RUNS["at"]
    killed_after(1, tmp_path / "killed", run, inside)
    torch.rand(5)
    assert same(trained(run, tmp_path / "killed"), trained(run, tmp_path / "whole"))


def test_pieces_of_a_batch_drop_differently(tmp_path: Path) -> None:
    seeds = {stream_seed(0, 1, 2, "network", row) for row in range(8)}
    assert len(seeds) == 8
    assert stream_seed(0, 1, 2, "network", 0) == stream_seed(0, 1, 2, "network")
    pieces, log = Runtime(device="cpu", micro_batch=4), list[str]()
    next(iterate_epochs(RUNS["at"], tmp_path / "n", "x", pieces, log=log.append))
    notes = [line for line in log if not line.startswith(("warning", str(tmp_path)))]
    assert "batch norm and random layers" in notes[0]
    first = trained(RUNS["at"], tmp_path / "a", pieces)
    assert same(first, trained(RUNS["at"], tmp_path / "b", pieces))


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks add noise to their images, without a layer for it, and in eval mode too."""
    forward = Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda f, x: forward(f, x + 0.2 * torch.rand_like(x)))


def test_an_average_of_a_network_that_always_draws_is_its_seeds(noisy: None, tmp_path: Path) -> None:
    run = TINY.replace(weight_averaging=SWA(), epochs=2, lr_milestones=(), checkpoint_every=0)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = trained(run, tmp_path / "a")
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert same(first, trained(run, tmp_path / "b"))


@pytest.mark.parametrize("model", [TINY.model, ViT(patch=8, width=16, depth=1, heads=2, normalise="data")])
def test_a_network_that_draws_is_noticed(model: AnyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TINY.replace(model=model)
    splits = run.data()
    before = torch.random.get_rng_state()

    def coupling(run: Run) -> list[str]:
        return TrainState(run, CPU, models.build(run.model, splits.train.images, 3, 0), splits).batch_coupling

    norm = ["batch norm"] if model is TINY.model else []
    assert coupling(run) == norm
    external = External(call="anything:at_all", threat=run.recipe.threat)
    assert coupling(run.replace(recipe=AT(attack=external))) == [*norm, "External"]
    assert torch.equal(before, torch.random.get_rng_state())
    forward = Classifier.forward
    for noise in (lambda x: torch.rand_like(x), lambda x: random.random(), lambda x: np.random.rand()):  # noqa: NPY002
        monkeypatch.setattr(Classifier, "forward", lambda f, x, noise=noise: forward(f, x + noise(x)))
        assert coupling(run) == [*norm, "random layers"]
