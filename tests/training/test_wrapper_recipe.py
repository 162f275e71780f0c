"""A recipe around recipes is one class: everything that asks what is inside a recipe finds it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from crossclass import models
from crossclass.attacks import FGSM, PGD
from crossclass.cli import main
from crossclass.cli.catalogue import lines
from crossclass.core.config import load_yaml
from crossclass.core.plugins import family, register
from crossclass.core.runtime import Runtime
from crossclass.paper.plan import cost
from crossclass.paper.runs import NAMED
from crossclass.paper.sizes import shrink, with_crafting_precision
from crossclass.training.loop import _execution_notes, train
from crossclass.training.recipes import (
    AT,
    AWP,
    AnyRecipe,
    KnowledgeDistillation,
    Recipe,
    Standard,
    Teacher,
    Trades,
    distillations,
    without_teachers,
)
from crossclass.training.run import Run
from crossclass.training.state import TrainState
from crossclass.training.teachers import with_fingerprints
from tiny_runs import CPU, TINY, same, weights


class ScaledLoss(Recipe):
    """The inner recipe's loss times a factor."""

    kind: Literal["scaled-loss"] = "scaled-loss"
    inner: AnyRecipe = AT()
    factor: float = 1.0

    def loss(self, model, x, x_adv, y, generator=None):
        """Factor times the inner loss."""
        loss, logits = self.inner.loss(model, x, x_adv, y, generator)
        return self.factor * loss, logits


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register(AnyRecipe, ScaledLoss)
    yield
    family(AnyRecipe).remove(ScaledLoss)


KD = KnowledgeDistillation(inner=AT(attack=PGD(steps=2, bn="train")))
DEEP = ScaledLoss(inner=AWP(inner=KD))


def short(recipe: Recipe) -> Run:
    return TINY.replace(recipe=recipe, epochs=2, lr_milestones=(), checkpoint_every=0)


class TestWrapper:
    def test_it_trains_like_what_is_inside(self, tmp_path):
        plain = train(short(DEEP.inner), tmp_path / "plain", "t", CPU)
        scaled = train(short(DEEP), tmp_path / "scaled", "t", CPU)
        assert same(weights(plain), weights(scaled))
        assert len(list((tmp_path / "scaled").iterdir())) == 2, "its teacher was trained too"
        other = train(short(DEEP.replace(factor=0.5)), tmp_path / "scaled", "t", CPU)
        assert not same(weights(plain), weights(other))
        run = load_yaml(Run, scaled.config(), "config.yaml")
        assert run.recipe == short(DEEP).recipe

    def test_it_is_listed_shown_and_in_the_docs(self, monkeypatch, capsys):
        monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
        try:
            import made

            assert "scaled-loss" in made.cli()
        finally:
            sys.modules.pop("made", None)
        (line,) = [text for text in lines() if text.startswith("scaled-loss")]
        assert line.split(maxsplit=2)[1:] == ["recipe", "The inner recipe's loss times a factor."]
        shown = []
        for words in (
            ["scaled-loss", "inner.kind=awp", "inner.inner.kind=kd"],
            ["shapes-demo", "recipe.kind=scaled-loss", "recipe.factor=2"],
        ):
            with pytest.raises(SystemExit) as e:
                main(["show", *words])
            assert not e.value.code
            shown.append(capsys.readouterr().out)
        assert "factor: 1.0" in shown[0]
        assert load_yaml(Run, shown[1], "x").recipe == ScaledLoss(factor=2)

    def test_its_cost_is_estimated(self):
        run = short(DEEP)
        assert cost(run, run.data(), CPU).epoch > 0


def test_teachers_are_found_at_any_depth(tmp_path):
    folder = train(short(AT(attack=PGD(steps=1))), tmp_path, "t", CPU)
    named = KD.replace(teachers=(Teacher(file=str(folder.path)),))
    (kd,) = distillations(with_fingerprints(ScaledLoss(inner=AWP(inner=AWP(inner=named)))))
    assert len(kd.teachers[0].fingerprint) == 16
    assert without_teachers(DEEP) == ScaledLoss(inner=AWP(inner=KD.inner))
    assert without_teachers(KD) == KD.inner


@pytest.mark.parametrize("recipe", [DEEP, AWP(inner=Trades()), AWP(inner=AWP(inner=KD))])
def test_inner_recipes_are_shrunk_too(recipe):
    run = NAMED["wei2025-at-linf-8"].replace(recipe=recipe)
    for size, steps in (("smoke", 1), ("mini", 7)):
        small = shrink(run, size).recipe
        attack = small.crafting_attack
        assert (attack.steps, attack.bn) == (min(steps, recipe.crafting_attack.steps), "eval")
        assert attack.threat == recipe.threat
    assert with_crafting_precision(run, "bf16").recipe.crafting_attack.precision == "bf16"


def test_warm_ups_act_at_any_depth():
    run = Run(recipe=ScaledLoss(inner=AWP(inner=KD, warmup=2)), eps_warmup=4)
    assert run.recipe_at(2) == ScaledLoss(inner=KD).map_attacks(
        lambda a: a.replace(threat=a.threat.replace(eps="4/255"))
    )
    assert run.recipe_at(3).inner.kind == "awp"
    assert run.recipe_at(4) == run.recipe
    assert Run(recipe=ScaledLoss(inner=Standard())).recipe_at(1).threat is None


def test_children_and_copies():
    assert DEEP.children() == (DEEP.inner,)
    assert [r.kind for r in DEEP.walk()] == ["scaled-loss", "awp", "kd", "at"]
    assert DEEP.map_children(lambda child: Standard()) == ScaledLoss(inner=Standard())
    assert AT().map_children(lambda child: Standard()) == AT()
    assert AT(attack=FGSM()).map_attacks(lambda a: PGD()) == AT(attack=PGD())


def test_joined_batch_norm_leaves_the_note_about_awp(monkeypatch):
    run = short(DEEP)
    splits = run.data()
    net = models.build(run.model, splits.train.images, len(splits.class_names), 0)
    state = TrainState(run, CPU, net, splits)
    assert state.batch_coupling == ["batch norm", "AWP"]
    runtime = Runtime(device="cpu", sync_batch_norm=True)
    monkeypatch.setattr(runtime.group, "size", 2)
    (note,) = _execution_notes(run, state, runtime, uses_bf16=True)
    assert "AWP sees 4 of 8 images" in note
    assert "batch norm" not in note
