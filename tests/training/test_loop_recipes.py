"""Every recipe in the loop: it moves the weights, and resumes to the same bits."""

import pytest
import torch

from crossclass import models
from crossclass.attacks import PGD
from crossclass.core.plugins import members
from crossclass.training.averaging import EMA, SWA
from crossclass.training.labels import Mix, TemporalEnsembling
from crossclass.training.loop import train
from crossclass.training.recipes import AT, AnyRecipe
from measuring import measure, read
from tiny_runs import CPU, RECIPES, TINY, killed_after, ones, same, untimed, weights

FORWARDS = {"trades": 2, "mart": 2, "gradalign": 3}  # in train mode, a step; the others make one


def test_every_recipe_is_listed_here():
    assert set(RECIPES) == {m.model_fields["kind"].default for m in members(AnyRecipe)}


@pytest.mark.parametrize("kind", RECIPES)
def test_every_recipe_moves_the_weights_and_batch_norm(tmp_path, kind):
    # T3, T4: the paper's code never steps in two of its three modes, ART never updates batch norm
    run = TINY.replace(recipe=RECIPES[kind], epochs=1, lr_milestones=(), checkpoint_every=0)
    splits = run.data()
    start = models.build(run.model, splits.train.images, 3, run.seed).state_dict()
    end = weights(train(run, tmp_path, "t", CPU))
    for name in start:
        if name.endswith("weight") or name.endswith("running_mean"):
            assert not torch.equal(start[name], end[name]), name
    steps = -(-len(splits.train) // run.batch)
    assert end["bn.num_batches_tracked"] == steps * FORWARDS.get(kind, 1)


EXTRAS = {
    **{kind: {"recipe": recipe} for kind, recipe in RECIPES.items()},
    "swa": {"weight_averaging": SWA(start=2)},
    "ema": {"weight_averaging": EMA(decay=0.9)},
    "ensembling": {"ensembling": TemporalEnsembling(start=1, ramp=2)},
    "mix": {"mix": Mix(prob=0.8), "label_smoothing": 0.1, "attack_labels": "soft"},
    "warm": {"eps_warmup": 3, "lr_warmup": 2},
    "cyclic": {"schedule": "cyclic", "lr_milestones": ()},
}


@pytest.mark.parametrize("what", EXTRAS)
def test_every_recipe_resumes_to_the_same_bits(tmp_path, what):
    run = TINY.replace(**{"epochs": 3, "lr_milestones": (2,), "checkpoint_every": 0, **EXTRAS[what]})
    one, two = tmp_path / "one", tmp_path / "two"
    straight = train(run, one, "tiny", CPU)
    killed_after(2, two, run=run, inside=True)
    resumed = train(run, two, "tiny", CPU)
    assert same(weights(straight), weights(resumed))
    assert same(weights(straight, "best.val"), weights(resumed, "best.val"))
    assert untimed(straight.rows()) == untimed(resumed.rows())
    if "recipe" not in EXTRAS[what]:
        plain = train(
            TINY.replace(epochs=3, lr_milestones=(2,), checkpoint_every=0), tmp_path / "plain", "tiny", CPU
        )
        assert not same(weights(straight), weights(plain)), "the setting does nothing"


@pytest.mark.parametrize("kind", ["swa", "ema"])
def test_an_average_is_what_is_checked_and_kept(tmp_path, kind):
    run = TINY.replace(**{"epochs": 3, "lr_milestones": (), **EXTRAS[kind]})
    folder = train(run, tmp_path, "tiny", CPU)
    plain = train(run.replace(weight_averaging=None), tmp_path, "tiny", CPU)
    one, two = weights(folder), weights(plain)
    assert not torch.equal(one["conv1.weight"], two["conv1.weight"])
    (result,) = [r for r in ones(read(folder.path / "measure.json")) if r["checkpoint"] == "last"]
    again = measure([f"{folder.path}@last"], ["attack.steps=3", "attack.rel_step=0.25", "batch=5"], CPU)
    assert again[0]["C"] == result["C"]
    losses = [[r["train_loss"] for r in f.rows()] for f in (folder, plain)]
    assert losses[0] == losses[1], "averaging must not change what is trained"
    if kind == "swa":
        every = train(run.replace(weight_averaging=None, checkpoint_every=1), tmp_path, "t", CPU)
        ends = [weights(every, f"epoch_00{e}") for e in (2, 3)]
        assert torch.allclose(one["conv1.weight"], (ends[0]["conv1.weight"] + ends[1]["conv1.weight"]) / 2)
        assert not torch.equal(one["bn.running_mean"], two["bn.running_mean"])


@pytest.mark.parametrize(("bn", "forwards"), [("eval", 1), ("train_frozen_stats", 1), ("train", 3)])
def test_batch_norm_counts_the_documented_forwards(tmp_path, bn, forwards):
    run = TINY.replace(recipe=AT(attack=PGD(steps=2, bn=bn)), epochs=1, lr_milestones=())
    end = weights(train(run, tmp_path, "t", CPU))
    assert end["bn.num_batches_tracked"] == 4 * forwards
