"""Published runs are their repositories': the rate of every epoch as their code counts, and what it hides."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from crossclass.attacks import FGSM
from crossclass.paper.runs.paper import PAPER
from crossclass.paper.runs.published import PUBLISHED

RUNS = PUBLISHED | {name: PAPER[name] for name in ("wei2025-at-linf-8", "wei2025-te-linf-8")}


def thirds(epochs: int) -> Callable[[float], float]:
    """Rice's `piecewise`, of the time in epochs."""
    return lambda t: 0.1 if t / epochs < 0.5 else 0.01 if t / epochs < 0.75 else 0.001


def from_one(rate: float, *drops: int) -> Callable[[float], float]:
    """`adjust_learning_rate(epoch)` of TRADES and MART: called at the start of epochs 1, 2, ..."""
    return lambda t: rate * 0.1 ** sum(int(t) + 1 >= drop for drop in drops)


def from_zero(rate: float, *drops: int) -> Callable[[float], float]:
    """`MultiStepLR`, stepped after every epoch, and the paper's own `lr_schedule(epoch)`, from 0."""
    return lambda t: rate * 0.1 ** sum(int(t) >= drop for drop in drops)


# the rate at a time in the middle of a step, t = epochs done
RATES: dict[str, Callable[[float], float]] = {
    "rice2020": thirds(200),
    "rice2020-l2": thirds(200),
    "awp": thirds(200),
    "pang2021": lambda t: 0.1 if t < 100 else 0.01 if t < 105 else 0.001,
    "chen2021-kdswa": from_zero(0.1, 50, 150),
    "wong2020-fgsmrs": lambda t: float(np.interp(t, [0, 7.5, 15], [0, 0.2, 0])),
    "andriushchenko2020-gradalign": lambda t: float(np.interp(t, [0, 30 * 2 // 5, 30], [0, 0.3, 0])),
    "trades": from_one(0.1, 75, 90, 100),
    "mart": from_one(0.01, 75, 90, 100),
    "mo2022-deit": lambda t: 0.1 if t < 35 else 0.01 if t < 38 else 0.001,
    "wei2025-at-linf-8": from_zero(0.1, 100, 150),
    "wei2025-te-linf-8": from_zero(0.1, 100, 150),  # Dong et al. 2022's too
}


def test_every_published_run_is_checked():
    assert set(RATES) >= set(PUBLISHED)


@pytest.mark.parametrize("name", RATES)
def test_the_rate_of_every_epoch_is_theirs(name):
    run = RUNS[name]
    for epoch in range(1, run.epochs + 1):
        for done in (0.25, 0.5, 0.75):
            assert run.lr_at(epoch, done) == pytest.approx(RATES[name](epoch - 1 + done)), epoch


LINF = {"norm": "linf", "eps": 8 / 255, "step": 2 / 255, "steps": 10, "start": "uniform"}
SGD = {"batch": 128, "weight_decay": 5e-4, "momentum": 0.9, "clip": None}
IMAGES = {"padding": "reflect", "normalise": "cifar10"}
WHOLE: dict[str, dict[str, Any]] = {
    "rice2020": {**LINF, **SGD, **IMAGES, "bn": "train", "epochs": 200},
    "rice2020-l2": {
        **SGD,
        **IMAGES,
        **{"norm": "l2", "eps": 128 / 255, "step": 15 / 255, "steps": 10, "start": "uniform_radius"},
        "bn": "train",
        "epochs": 200,
    },
    "pang2021": {**LINF, **SGD, **IMAGES, "bn": "eval", "epochs": 110},
    "chen2021-kdswa": {**LINF, **SGD, **IMAGES, "bn": "train", "epochs": 200, "padding": "zero"},
    "wong2020-fgsmrs": {
        **LINF,
        **SGD,
        **IMAGES,
        **{"step": 10 / 255, "steps": 1, "bn": "train", "epochs": 15, "padding": "zero"},
    },
    "andriushchenko2020-gradalign": {
        **LINF,
        **SGD,
        **{"step": 8 / 255, "steps": 1, "start": "none", "bn": "train_frozen_stats", "epochs": 30},
        **{"padding": "zero", "normalise": "none"},
    },
    "trades": {
        **SGD,
        **{"norm": "linf", "eps": 0.031, "step": 0.007, "steps": 10, "start": "gauss", "bn": "eval"},
        **{"epochs": 76, "weight_decay": 2e-4, "padding": "zero", "normalise": "none"},
    },
    "mart": {
        **SGD,
        **{"norm": "linf", "eps": 0.031, "step": 0.007, "steps": 10, "start": "gauss", "bn": "eval"},
        **{"epochs": 120, "weight_decay": 3.5e-3, "padding": "zero", "normalise": "none"},
    },
    "awp": {**LINF, **SGD, **IMAGES, "bn": "train", "epochs": 200},
    "mo2022-deit": {
        **LINF,
        **SGD,
        **{"bn": "eval", "epochs": 40, "batch": 64, "weight_decay": 1e-4, "clip": 1.0},
        **{"padding": "zero", "normalise": "cifar10"},
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_recipe_hides_is_theirs(name):
    run = PUBLISHED[name]
    attack = run.recipe.crafting_attack
    one = attack.as_pgd() if isinstance(attack, FGSM) else attack
    found = {
        "norm": one.threat.kind,
        "eps": one.threat.eps,
        "step": one.alpha,
        "steps": one.steps,
        "start": one.start or one.threat.starts[0],
        "bn": one.bn,
        "epochs": run.epochs,
        "batch": run.batch,
        "weight_decay": run.weight_decay,
        "momentum": run.momentum,
        "clip": run.grad_clip_norm,
        "padding": run.augment.padding,
        "normalise": run.model.normalise,
    }
    assert found == {k: pytest.approx(v) if isinstance(v, float) else v for k, v in WHOLE[name].items()}
    assert run.decay_bias_and_norm  # all of them decay all parameters


def test_chen_averages_from_its_epoch_55_counted_from_0():
    average = PUBLISHED["chen2021-kdswa"].weight_averaging
    assert average is not None
    assert average.start - 1 == 55


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_check_costs_no_more_gradients_than_its_epoch(name):
    run = PUBLISHED[name]
    test, train = run.validation.n or 10_000, 50_000
    attack, check = run.recipe.crafting_attack, run.validation_attack()
    assert attack is not None
    assert (test + (run.data.n_val or 0)) * check.gradients <= train * (1 + attack.gradients)
