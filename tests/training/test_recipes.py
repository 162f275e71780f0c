"""Recipes: each equals its equation written out slowly in float64, and keeps the invariants of its kind.

Compared far from x and with saturated logits, where wrong formulas differ: near x a reversed KL divergence
agrees to second order.
"""

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from conftest import pictures, seeded, tiny_net
from crossclass.attacks import PGD
from crossclass.cli.arguments import assign
from crossclass.core.config import load_yaml, validated
from crossclass.core.errors import UserError
from crossclass.core.plugins import members
from crossclass.training.averaging import EMA, SWA, refresh
from crossclass.training.labels import Mix, TemporalEnsembling, _beta, smoothed
from crossclass.training.recipes import (
    AT,
    AWP,
    MART,
    AnyRecipe,
    GradAlign,
    KnowledgeDistillation,
    Standard,
    Teacher,
    Trades,
)
from crossclass.training.recipes.awp import perturbation
from crossclass.training.run import Run
from crossclass.training.schedule import factor
from literal_recipes import K, Net, batch, literal, softmax


def teachers(*weights: float) -> tuple[Teacher, ...]:
    return tuple(Teacher(module=Net(50 + i), weight=w) for i, w in enumerate(weights))


PLAIN = [
    Standard(),
    AT(),
    Trades(beta=6),
    Trades(beta=0.5),
    MART(beta=5),
    KnowledgeDistillation(teachers=teachers(1)),
    KnowledgeDistillation(teachers=teachers(1, 6), lam=0.7, T=2),
    KnowledgeDistillation(teachers=teachers(1), lam=0.3, T=4, scale_by_T2=False),
    KnowledgeDistillation(
        teachers=teachers(1), lam=0.9, T=1.5, direction="student_teacher", teacher_input="clean"
    ),
    KnowledgeDistillation(teachers=teachers(1), lam=0.0),
    KnowledgeDistillation(teachers=teachers(2), lam=1.0),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("recipe", PLAIN, ids=lambda r: r.kind)
def test_the_loss_is_its_equation(recipe, seed):
    model = Net(seed)
    x, x_adv, y = batch(seed + 10)
    loss, logits = recipe.loss(model, x, x_adv, y)
    assert loss.item() == pytest.approx(literal(recipe, model, x, x_adv, y), rel=1e-10)
    shown = x if isinstance(recipe, Standard) else x_adv
    assert torch.equal(logits, model(shown))


@pytest.mark.parametrize("recipe", PLAIN, ids=lambda r: r.kind)
def test_the_gradient_is_that_of_the_equation(recipe):
    """Finite differences of the literal loss: nothing is detached that should not be, and vice versa."""
    model = Net(3, scale=1.0)
    x, x_adv, y = batch(5)
    loss, _ = recipe.loss(model, x, x_adv, y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        for place in (0, parameter.numel() // 2):
            flat, ends = parameter.data.view(-1), []
            for h in (1e-5, -2e-5):
                flat[place] += h
                ends.append(literal(recipe, model, x, x_adv, y))
            flat[place] += 1e-5
            expected = (ends[0] - ends[1]) / 2e-5
            assert float(gradient.view(-1)[place]) == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("recipe", [*PLAIN, GradAlign(), AWP(inner=AT())], ids=lambda r: r.kind)
@pytest.mark.parametrize("scale", [200.0, 1e4])
def test_saturated_logits_give_finite_losses_and_gradients(recipe, scale):
    # T13: TRADES' own form is NaN at logits (200, 0, -5)
    model = Net(7, scale=scale).float()
    x, x_adv, y = (t.float() if t.is_floating_point() else t for t in batch(8))
    loss, _ = recipe.loss(model, x, x_adv, y, seeded(0))
    assert torch.isfinite(loss)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients)


def test_a_teacher_that_says_the_same_costs_nothing_but_the_labels():
    # T14: KL of equal predictions is zero, and so is its gradient
    model = Net(1)
    recipe = KnowledgeDistillation(teachers=(Teacher(module=Net(1)),), lam=0.5, T=3)
    x, x_adv, y = batch(2)
    loss, _ = recipe.loss(model, x, x_adv, y)
    assert loss.item() == pytest.approx(0.5 * literal(AT(), model, x, x_adv, y), rel=1e-10)
    (g,) = torch.autograd.grad(recipe.replace(lam=1.0).loss(model, x, x_adv, y)[0], model.b)
    assert g.abs().max() < 1e-12


def test_distillation_at_temperature_one_is_training_on_mixed_labels():
    model, teacher = Net(1), Net(2)
    recipe = KnowledgeDistillation(teachers=(Teacher(module=teacher),), lam=0.4, T=1)
    x, x_adv, y = batch(3)
    soft = 0.6 * nn.functional.one_hot(y, K) + 0.4 * teacher(x_adv).softmax(dim=1).detach()
    one = torch.autograd.grad(recipe.loss(model, x, x_adv, y)[0], list(model.parameters()))
    two = torch.autograd.grad(AT().loss(model, x, x_adv, soft)[0], list(model.parameters()))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(one, two, strict=True))


def test_the_teacher_stays_as_it_is():
    teacher = tiny_net(4).train()
    recipe = KnowledgeDistillation(
        inner=AT(attack=PGD(steps=1)), teachers=(Teacher(module=teacher),), attack_loss="total"
    )
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    student, x, y = tiny_net(5).train(), pictures(5), torch.tensor([0, 1, 2, 0, 1])
    x_adv = recipe.craft(student, x, y, seeded(0))
    recipe.loss(student, x, x_adv, y)[0].backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(m.training for m in teacher.modules())


def test_total_attacks_the_mixed_labels():
    teacher, student = tiny_net(4), tiny_net(5)
    x, y = pictures(5), torch.tensor([0, 1, 2, 0, 1])
    inner = AT(attack=PGD(steps=3))
    recipe = KnowledgeDistillation(
        inner=inner, teachers=(Teacher(module=teacher),), lam=0.9, attack_loss="total"
    )
    mixed = 0.1 * nn.functional.one_hot(y, 3) + 0.9 * teacher(x).softmax(dim=1).detach()
    expected = inner.craft(student, x, mixed, seeded(1))
    assert torch.equal(recipe.craft(student, x, y, seeded(1)), expected)
    assert torch.equal(
        recipe.replace(attack_loss="ce").craft(student, x, y, seeded(1)),
        inner.craft(student, x, y, seeded(1)),
    )


def test_a_named_teacher_cannot_speak():
    with pytest.raises(TypeError, match="only named"):
        KnowledgeDistillation().loss(Net(0), *batch(0))
    with pytest.raises(ValueError, match="not both"):
        Teacher(changes={"seed": 1}, fingerprint="0")


class TestAWP:
    @pytest.mark.parametrize(
        "inner", [AT(), Trades(), KnowledgeDistillation(teachers=teachers(1))], ids=lambda r: r.kind
    )
    def test_equals_perturb_differentiate_restore(self, inner):
        """csdongxian/AWP literally: a copy takes a step up, its layers are rescaled, the model is moved."""
        recipe, (x, x_adv, y) = AWP(inner=inner, gamma=0.05), batch(6)
        model, by_hand = Net(2), Net(2)
        loss, _ = recipe.loss(model, x, x_adv, y)
        found = torch.autograd.grad(loss, list(model.parameters()))
        proxy = Net(2)
        gradients = torch.autograd.grad(inner.loss(proxy, x, x_adv, y)[0], list(proxy.parameters()))
        with torch.no_grad():
            for p, g in zip(by_hand.parameters(), gradients, strict=True):
                stepped = p + 0.01 * g
                if p.ndim > 1:
                    p += 0.05 * p.norm() * (stepped - p) / ((stepped - p).norm() + 1e-20)
        expected = torch.autograd.grad(inner.loss(by_hand, x, x_adv, y)[0], list(by_hand.parameters()))
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-7, atol=1e-10)
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), Net(2).parameters(), strict=True))

    def test_layers_move_by_gamma_times_their_length(self):  # T16
        w, g = torch.randn(4, 3, generator=seeded(0)), 1e-6 * torch.randn(4, 3, generator=seeded(1))
        assert float(perturbation(w, g, 0.01).norm()) == pytest.approx(0.01 * float(w.norm()), rel=1e-5)
        assert torch.equal(perturbation(w, 0 * g, 0.01), torch.zeros(4, 3))
        for length in (1e-25, 1e-12, 1e12):  # of a network that fits its images, gradients are tiny
            moved = perturbation(w, length * g, 0.01)
            assert torch.allclose(moved, perturbation(w, g, 0.01), rtol=1e-4)

    def test_batch_norm_moves_once_and_weights_not_at_all(self):
        model = tiny_net(1).train()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        x = pictures(5)
        with torch.random.fork_rng(devices=[]):
            AWP(inner=AT()).loss(model, x, x, torch.tensor([0, 1, 2, 0, 1]))[0].backward()
        for name, value in model.state_dict().items():
            if name == "bn.num_batches_tracked":
                assert value == before[name] + 1
            elif "running" not in name:
                assert torch.equal(value, before[name]), name

    def test_warm_up_epochs_are_the_inner_recipe(self):
        run = Run(recipe=AWP(inner=AT(), warmup=3))
        assert [run.recipe_at(e).kind for e in (1, 3, 4)] == ["at", "at", "awp"]

    def test_a_function_has_no_weights(self):
        with pytest.raises(TypeError, match="weights of a module"):
            AWP().loss(lambda x: x.flatten(1)[:, :K], *batch(0))


class TestLabels:
    def test_smoothing_spreads_over_the_other_classes(self):
        p = smoothed(torch.tensor([2, 0]), 0.3, 4)
        assert torch.allclose(p, torch.tensor([[0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1]]))
        assert torch.allclose(smoothed(torch.eye(4)[[2, 0]], 0.3, 4), p)

    @given(seed=st.integers(0, 500), mixup=st.sampled_from([0.0, 0.8]), cutmix=st.sampled_from([0.0, 1.0]))
    def test_mixed_labels_are_what_the_pixels_say(self, seed, mixup, cutmix):
        x = torch.zeros(4, 1, 8, 8)
        x[0], x[3] = 1.0, 0.0  # the first is mixed with the last
        y = torch.tensor([0, 1, 1, 2])
        mixed, p = Mix(mixup=mixup, cutmix=cutmix, prob=1.0)(x, y, 3, seeded(seed))
        if mixup == cutmix == 0:
            assert mixed is x
            assert p is y
            return
        share = float(mixed[0].mean())
        assert torch.allclose(p[0], torch.tensor([share, 0, 1 - share]), atol=1e-6)
        assert torch.allclose(p.sum(dim=1), torch.ones(4))
        if cutmix == 0:
            assert mixed[0].unique().numel() == 1
        if mixup == 0:
            assert set(mixed[0].unique().tolist()) <= {0.0, 1.0}

    def test_mixing_happens_as_often_as_told_and_both_ways(self):
        x, y, seen = torch.rand(2, 1, 8, 8, generator=seeded(0)), torch.tensor([0, 1]), []
        for seed in range(400):
            mixed, _ = Mix(prob=0.3)(x, y, 2, seeded(seed))
            if mixed is not x:
                seen.append(bool((mixed[0] == x[0]).any()))
        assert 90 < len(seen) < 150
        assert 0.3 < sum(seen) / len(seen) < 0.7

    def test_the_beta_distribution_has_its_moments(self):
        for alpha in (0.2, 0.8, 1.0, 3.0):
            g = seeded(1)
            draws = torch.tensor([_beta(alpha, g) for _ in range(4000)])
            assert float(draws.mean()) == pytest.approx(0.5, abs=0.03)
            assert float(draws.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


class TestTemporalEnsembling:
    def test_the_term_equals_its_equation_by_hand(self):
        te = TemporalEnsembling(momentum=0.6, weight=4.0, start=1, ramp=0)
        z, past = te.memory(2, K)["z"], [[0.0] * K, [0.0] * K]
        for visit in range(4):
            model, (x, x_adv, _) = Net(visit), batch(visit, n=2)
            z = te.updated(z, model, x)
            found = te.term(z, 1, model(x_adv)).detach()
            for i in range(2):
                p = softmax(model(x)[i].tolist())
                past[i] = [
                    0.6 * a + 0.4 * b for a, b in zip(past[i], p, strict=True)
                ]  # this visit's included
                q = softmax(model(x_adv)[i].tolist())
                expected = sum((a - b / sum(past[i])) ** 2 for a, b in zip(q, past[i], strict=True)) / K
                assert float(found[i]) == pytest.approx(4.0 * expected, rel=1e-4, abs=1e-8)
        assert torch.equal(te.term(z, 1, model(x_adv)[1:], torch.tensor([1])), found[1:])


class TestAverages:
    def test_swa_is_the_arithmetic_mean(self):  # T15
        models = [Net(i) for i in range(5)]
        average, swa = Net(99), SWA(start=3)
        for epoch, model in enumerate(models, 1):
            before = [p.clone() for p in model.parameters()]
            swa.after_step(average, model, epoch)
            swa.after_epoch(average, model, epoch)
            assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
            if epoch <= 3:
                assert torch.equal(average.a, model.a)
        assert torch.allclose(average.a, torch.stack([m.a for m in models[2:]]).mean(dim=0))

    def test_ema_is_its_recursion(self):
        models, average, expected = [Net(i) for i in range(4)], Net(99), None
        for i, model in enumerate(models):
            EMA(decay=0.8, start=2).after_step(average, model, epoch=1 if i < 2 else 2)
            EMA(decay=0.8).after_epoch(average, model, epoch=2)
            expected = model.b.detach() if i < 2 else 0.8 * expected + 0.2 * model.b.detach()
        assert torch.allclose(average.b, expected)

    @pytest.mark.parametrize("sizes", [(8, 8, 8), (8, 8, 2), (1, 16)])
    def test_refresh_weighs_every_image_alike(self, sizes):
        model = tiny_net(2)
        weights = model.conv.weight.clone()
        parts = [pictures(n, seed=s) + s for s, n in enumerate(sizes)]  # batches that differ
        refresh(model, iter(parts))
        z = [model.conv(x) for x in parts]
        mean = torch.cat(z).mean(dim=(0, 2, 3))  # of one big batch
        var = sum(n * v.var(dim=(0, 2, 3)) for n, v in zip(sizes, z, strict=True)) / sum(sizes)
        assert torch.allclose(model.bn.running_mean, mean, atol=1e-5)
        assert torch.allclose(model.bn.running_var, var, atol=1e-5)
        assert model.bn.momentum == 0.1
        assert not any(m.training for m in model.modules())
        assert torch.equal(model.conv.weight, weights)


class TestRun:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (["recipe.kind=kd", "recipe.lam=1.5"], "lam"),
            (["recipe.kind=kd", "recipe.T=0"], "recipe.T"),
            (["recipe.kind=kd", "recipe.teachers=[]"], "teachers"),
            (
                ["weight_averaging.kind=swa", "weight_averaging.start=201"],
                "weight_averaging.start=201 lies after the last epoch, 200",
            ),
            (["recipe.attack.threat.kind=l2", "recipe.attack.threat.eps=8/255"], "threat.kind=linf"),
            (["schedule=cyclic"], r"set lr_milestones=\[\]"),
            (["label_smoothing=1"], "label_smoothing"),
            (["recipe.kind=trade"], "did you mean 'trades'"),
        ],
    )
    def test_mistakes_are_one_sentence(self, changes, words):
        with pytest.raises(UserError, match=words) as e:
            assign(Run(), changes)
        assert "\n" not in str(e.value)

    def test_the_rate_of_every_recipe_in_a_table(self):  # T17
        paper = Run()
        assert [paper.lr_at(e) for e in (1, 100, 101, 150, 151, 200)] == pytest.approx(
            [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
        )
        wong = Run(schedule="cyclic", lr_milestones=(), epochs=15, lr=0.2)
        assert [wong.lr_at(8, 0.5), wong.lr_at(15), wong.lr_at(4, 0.75)] == pytest.approx([0.2, 0.0, 0.1])
        gradalign = Run(schedule="cyclic", lr_milestones=(), epochs=30, lr=0.3, lr_peak=0.4)
        assert [gradalign.lr_at(e) for e in (6, 12, 21, 30)] == pytest.approx([0.15, 0.3, 0.15, 0.0])
        assert factor("cosine", 200.0, 200, (), 0) == pytest.approx(0)
        assert factor("cosine", 100.0, 200, (), 0) == pytest.approx(0.5)
        assert factor("cosine", 105.0, 200, (), 10) == pytest.approx(0.5)  # half way behind the warm-up
        warm = Run(lr_warmup=10)
        assert [warm.lr_at(5), warm.lr_at(1, 0.5), warm.lr_at(11)] == pytest.approx([0.05, 0.005, 0.1])

    def test_eps_warms_up_also_inside_wrappers(self):
        for recipe in (AT(), Trades(), KnowledgeDistillation(), AWP(inner=KnowledgeDistillation())):
            run = Run(recipe=recipe, eps_warmup=4)
            eps = [run.recipe_at(e).threat.eps * 255 for e in (1, 2, 4, 9)]
            assert eps == pytest.approx([2, 4, 8, 8])
        assert Run(recipe=Standard(), eps_warmup=4).recipe_at(1) == Standard()

    def test_every_recipe_survives_yaml(self):
        for member in members(AnyRecipe):
            run = Run(recipe=member())
            assert load_yaml(Run, run.yaml(), "x") == run
        digests = {Run(recipe=m()).digest() for m in members(AnyRecipe)}
        assert len(digests) == len(members(AnyRecipe))


def test_mixup_and_cutmix_of_equal_strength_both_happen():
    x, y = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8) / 4, torch.arange(4)
    mix, kinds = Mix(mixup=1.0, cutmix=1.0, prob=1.0), set()
    for seed in range(40):
        mixed, _ = mix(x.clone(), y, 4, torch.Generator().manual_seed(seed))
        kinds.add(all(float(v) in {0.0, 0.25, 0.5, 0.75} for v in mixed.flatten()))
    assert kinds == {True, False}  # cut pixels are somebody's own, mixed ones are nobody's
    with pytest.raises(UserError, match="mixup"):
        validated(Mix, {"mixup": 20})  # a draw would take for ever


def test_a_cyclic_rate_has_no_warm_up():
    with pytest.raises(UserError, match="leave out lr_warmup"):
        validated(Run, {"schedule": "cyclic", "lr_milestones": [], "lr_warmup": 5})


def test_batch_norm_keeps_its_momentum_when_a_refresh_fails():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4, momentum=0.3))

    def batches():
        yield torch.rand(5, 3, 2, 2)
        raise RuntimeError("out of images")

    with pytest.raises(RuntimeError):
        refresh(net, batches())
    assert net[2].momentum == 0.3
