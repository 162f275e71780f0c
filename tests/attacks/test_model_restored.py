"""Attacks: every attack in every ball hands the model back as it was found."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attack_cases import BN, Net, Y, every, every_mode, every_net, make, mixed, ours, state, trips
from conftest import Forwards, Tripped, pictures, seeded, tiny_net
from crossclass.attacks import FGSM, PGD
from crossclass.models.model_state import evaluating, frozen

pytestmark = pytest.mark.usefixtures("trusted")


@every_mode
@every_net
def test_the_model_comes_back_as_it_was(net: Net, attack: type, ball: type, bn: str) -> None:
    model = Forwards(mixed(net=net))
    before = state(model, bn)
    make(attack, ball, bn=bn)(model, pictures(5), Y, seeded(0))
    assert model.count > 0
    assert state(model, bn) == before


@every_mode
@pytest.mark.parametrize("backward", [False, True], ids=["in-forward", "in-backward"])
def test_the_model_comes_back_as_it_was_when_it_raises(
    attack: type, ball: type, bn: str, backward: bool
) -> None:
    a = make(attack, ball, bn=bn)
    takes_gradient: list[bool] = []

    def noted(x: Tensor) -> Tensor:
        takes_gradient.append(x.requires_grad and torch.is_grad_enabled())
        return tiny_net()(x)

    a(noted, pictures(5), Y, seeded(0))
    candidates = [i for i, takes in enumerate(takes_gradient) if takes or not backward]
    for trip in {candidates[0], candidates[len(candidates) // 2], candidates[-1]}:
        model = Forwards(mixed(), trip, backward)
        before = state(model, bn)
        with trips(attack):
            a(model, pictures(5), Y, seeded(0))
        assert state(model, bn) == before
        assert torch.is_grad_enabled()


@every_mode
@every_net
@pytest.mark.parametrize("mode", [True, False], ids=["found-training", "found-eval"])
def test_batch_norm_moves_by_the_documented_count(
    net: Net, attack: type, ball: type, bn: str, mode: bool
) -> None:
    model = Forwards(net().train(mode))
    before, count = state(model), int(model.inner.bn.num_batches_tracked)
    make(attack, ball, bn=bn)(model, pictures(5), Y, seeded(0))
    moved = int(model.inner.bn.num_batches_tracked) - count
    uses = getattr(model.inner, "uses", 1)
    assert moved == (uses * model.count if bn == "train" else 0)
    assert (state(model) == before) == (bn != "train")


@pytest.mark.parametrize(
    ("attack", "forwards"),
    [
        (PGD(steps=4, bn="train"), 4),
        (PGD(steps=0, bn="train"), 0),
        (PGD(steps=4, loss="kl", bn="train"), 5),  # one for the clean prediction
        (PGD(steps=4, return_iterate="best", bn="train"), 5),  # one to score the last iterate
        (PGD(steps=4, restarts=3, bn="train"), 15),
        (FGSM(bn="train"), 1),
    ],
    ids=str,
)
def test_forwards_in_train_mode_are_no_more_than_needed(attack: Any, forwards: int) -> None:
    model = tiny_net()
    attack(model, pictures(5), Y, seeded(0))
    assert int(model.bn.num_batches_tracked) == 5 + forwards


@every
def test_frozen_statistics_hold_for_instance_and_spectral_norm_too(attack: type, ball: type) -> None:
    model = nn.Sequential(
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.Flatten(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(108, 3)),
    )
    for bn in ("eval", "train_frozen_stats"):
        before = state(model)
        make(attack, ball, bn=bn)(model, pictures(5), Y, seeded(0))
        assert state(model) == before


@ours
def test_each_bn_mode_crafts_against_the_net_in_that_mode(attack: type, ball: type) -> None:
    x, still = pictures(5), nn.Identity()
    wanted = {"start": "none", "steps": 1}
    made = {}
    for bn in BN:
        model = tiny_net()
        model.drop = still
        made[bn] = make(attack, ball, bn=bn, **wanted)(model, x, Y)
    assert torch.equal(made["train"], made["train_frozen_stats"])
    assert not torch.equal(made["train"], made["eval"])
    model = tiny_net().train()  # whatever mode it is found in, eval means eval: dropout is off too
    assert torch.equal(make(attack, ball, **wanted)(model, x, Y), made["eval"])


def test_freezing_is_undone_for_every_way_out() -> None:
    model = mixed()
    before = state(model, "train")
    for bn in BN:
        with frozen(model, bn) as f:
            assert all(m.training == (bn != "eval") for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())
            assert f(pictures(2)).dtype == torch.float32
        assert state(model, "train") == before
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert state(model, "train") == before
    for context in (evaluating(model), *(frozen(model, bn) for bn in BN)):
        with pytest.raises(Tripped), context:
            raise Tripped
        assert state(model, "train") == before
