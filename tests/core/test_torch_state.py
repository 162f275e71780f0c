"""What somebody else set for all of torch changes no number, and is afterwards what it was."""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import crossclass as cc
from conftest import pictures, tiny_net
from crossclass.checkpoints.card import load_tensors
from crossclass.core.torch_state import usual_torch_state
from tiny_runs import CPU, TINY


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def without_gradients():
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


STATES = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "another device": lambda: default_device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": without_gradients,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "errors of numpy": lambda: np.errstate(all="raise"),
}


def switches():
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


def trained_and_measured(folder):
    run = cc.train(TINY, folder, "tiny", CPU)
    tensors, _ = load_tensors(run.checkpoint("last"))
    how = cc.Measure(n=6, attack_changes={"steps": 1})
    metrics = cc.measure([f"{run.path}@last"], how, cc.Source(), CPU).results[0].metrics
    return {name: t.numpy().tobytes() for name, t in tensors.items()}, dict(metrics)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trained_and_measured(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("state", STATES)
def test_training_and_measuring_are_the_same_to_the_bit(tmp_path, usual, state):
    torch.manual_seed(5)
    with STATES[state]():
        before = switches()
        weights, metrics = trained_and_measured(tmp_path)
        assert switches() == before
    assert weights == usual[0]
    assert metrics == usual[1]
    fresh = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(fresh, torch.rand(1))  # the global stream was not moved


@pytest.mark.parametrize("state", STATES)
def test_attacks_and_metrics_are_the_same_to_the_bit(state):
    net, x, y = tiny_net(), pictures(12), torch.arange(12) % 3
    attack = cc.PGD(threat=cc.Linf(eps=0.1), steps=8)
    features, W = torch.rand(30, 8, generator=torch.Generator().manual_seed(1)), torch.rand(3, 8)
    labels, metric = torch.arange(30) % 3, cc.CAS(3, 8)

    def numbers():
        metric.reset()
        metric.update(features, labels, W)
        x_adv = attack(net, x, y, torch.Generator().manual_seed(3))
        return x_adv.detach().numpy().tobytes(), x_adv.dtype, float(metric.compute())

    usual = numbers()
    with STATES[state]():
        assert numbers() == usual


def test_it_ends_with_an_error_too():
    before = switches()

    @usual_torch_state()
    def fails():
        assert torch.get_default_dtype() == torch.float32
        raise ZeroDivisionError

    with default_dtype(torch.float64):
        with pytest.raises(ZeroDivisionError):
            fails()
        assert torch.get_default_dtype() == torch.float64
    assert switches() == before
