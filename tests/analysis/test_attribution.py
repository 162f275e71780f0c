"""C and CAS against Algorithm 1 in loops and truths in closed form; evaluation against a naive loop."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

import literal_twins
from conftest import seeded
from crossclass.analysis import evaluate
from crossclass.analysis.attribution import (
    cas,
    class_means,
    correlation,
    empty_classes,
    negative_mass,
    separation,
)
from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.data import Split, as_float
from crossclass.models import Classifier


def problem(seed: int, k: int = 5, d: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Features, weights and labels; class counts are random and unequal, the last class is missing."""
    g = seeded(seed)
    counts = torch.randint(1, 14, (k,), generator=g)
    counts[-1] = 0
    y = torch.repeat_interleave(torch.arange(k), counts)
    y = y[torch.randperm(len(y), generator=g)]
    return torch.randn(len(y), d, generator=g), torch.randn(k, d, generator=g), y


def exact(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- the literal twin


@pytest.mark.parametrize("seed", range(8))
def test_means_c_and_cas_are_algorithm_1(seed: int) -> None:
    g, W, y = problem(seed)
    A = literal_twins.class_attributions(g.tolist(), W.tolist(), y.tolist())
    C = literal_twins.correlation(A)
    means = class_means(g, W, y)
    torch.testing.assert_close(means, exact(A), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(correlation(means), exact(C), rtol=1e-10, atol=1e-12)
    assert cas(correlation(means)) == pytest.approx(literal_twins.cas(C), rel=1e-10)
    assert negative_mass(correlation(means)) == pytest.approx(literal_twins.negative_mass(C), rel=1e-10)
    assert empty_classes(means) == [4]
    assert correlation(means)[4].tolist() == correlation(means)[:, 4].tolist() == [0] * 5
    assert cas(correlation(means)) != pytest.approx(negative_mass(correlation(means)), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
def test_labels_may_be_of_any_integer_type(dtype: torch.dtype) -> None:
    g, W, y = problem(5)
    assert torch.equal(class_means(g, W, y.to(dtype)), class_means(g, W, y))


def test_a_large_class_is_summed_in_float64() -> None:
    n = 200_000
    g = torch.full((n, 1), 0.1)
    mean = class_means(g, torch.ones(1, 1), torch.zeros(n, dtype=torch.int64))
    assert float(mean) == pytest.approx(float(g[0]), rel=1e-12)


# --- truths in closed form


@pytest.mark.parametrize("k", [2, 5, 10])
def test_identical_classes_share_all_and_disjoint_ones_nothing(k: int) -> None:
    row = torch.randn(1, 12, generator=seeded(0), dtype=torch.float64)
    same = correlation(row * torch.logspace(-3, 3, k, dtype=torch.float64)[:, None])
    torch.testing.assert_close(same, torch.ones(k, k, dtype=torch.float64))
    assert cas(same) == pytest.approx(k * (k - 1))
    assert cas(same) <= k * (k - 1)
    apart = correlation(torch.kron(torch.eye(k), torch.tensor([[1.0, 2.0, -3.0]])))
    assert torch.allclose(apart, torch.eye(k, dtype=torch.float64), atol=1e-15)
    assert cas(apart) == negative_mass(apart) == 0
    opposed = correlation(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]))
    assert cas(opposed) == 0
    assert negative_mass(opposed) == pytest.approx(2)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float64, s) for s in (1e-320, 1e-300, 1e-200, 1e-160, 1.0, 1e160, 1e300)]
    + [(torch.float32, s) for s in (1e-40, 1e-30, 1e-20, 1.0, 1e20, 1e37)],
)
def test_c_does_not_depend_on_the_scale_of_the_features(dtype: torch.dtype, scale: float) -> None:
    A = torch.randn(4, 6, generator=seeded(1), dtype=torch.float64)
    subnormal = scale < torch.finfo(dtype).tiny
    found = correlation((A * scale).to(dtype))
    torch.testing.assert_close(found, correlation(A), rtol=0, atol=1e-2 if subnormal else 1e-6)
    assert empty_classes((A * scale).to(dtype)) == []
    g, W, y = problem(6)
    torch.testing.assert_close(
        correlation(class_means(1e-30 * g, W, y)), correlation(class_means(g, W, y)), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("bad", [(0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0), (-math.inf, 1.0)])
def test_a_class_that_is_zero_shares_nothing_and_one_that_is_not_finite_is_nan(
    bad: tuple[float, float],
) -> None:
    A = torch.tensor([[1.0, 2.0], bad, [2.0, 4.1]])
    assert empty_classes(A) == [1]
    C = correlation(A)
    if bad == (0.0, 0.0):
        assert C[1].tolist() == C[:, 1].tolist() == [0, 0, 0]
    else:
        assert bool(C[1].isnan().all())
        assert bool(C[:, 1].isnan().all())
        assert math.isnan(cas(C))
        assert math.isnan(negative_mass(C))
    torch.testing.assert_close(C[[0, 2]][:, [0, 2]], correlation(A[[0, 2]]))


@pytest.mark.usefixtures("without_shape_checks")
def test_shapes_and_labels_that_do_not_fit_are_refused() -> None:
    g, W, y = problem(3)
    for wrong in (lambda: class_means(g, W[:, 1:], y), lambda: class_means(g[0], W, y)):
        with pytest.raises(UserError, match="features have shape"):
            wrong()
    with pytest.raises(UserError, match="labels reach from"):
        class_means(g, W, y + len(W))
    with pytest.raises(UserError, match="one-hot"):
        class_means(g, W, torch.eye(len(W))[y])
    for measure in (cas, negative_mass):
        with pytest.raises(UserError, match="C has shape"):
            measure(torch.ones(3, 5))


# --- properties


matrices = st.tuples(st.integers(2, 6), st.integers(1, 8), st.integers(0, 10_000))


@given(matrices, st.floats(-30, 30))
def test_c_is_symmetric_bounded_and_has_a_unit_diagonal(shape: tuple[int, int, int], exponent: float) -> None:
    k, d, seed = shape
    A = torch.randn(k, d, generator=seeded(seed), dtype=torch.float64) * 10.0**exponent
    C = correlation(A)
    torch.testing.assert_close(C, C.T, rtol=0, atol=1e-15)
    assert float(C.abs().max()) <= 1
    torch.testing.assert_close(C.diagonal(), torch.ones(k, dtype=torch.float64))
    assert 0 <= cas(C) <= k * (k - 1)
    assert cas(C) - negative_mass(C) == pytest.approx(float(C.sum() - C.trace()), abs=1e-9)
    assert float(torch.linalg.eigvalsh(C).min()) > -1e-9  # a Gram matrix
    expected = exact(literal_twins.correlation(A.tolist()))
    torch.testing.assert_close(C, expected, rtol=0, atol=1e-12)


@given(st.integers(0, 10_000))
def test_what_c_does_not_depend_on(seed: int) -> None:
    g, W, y = problem(seed)
    k, d, r = len(W), g.shape[1], seeded(seed + 1)
    C = correlation(class_means(g, W, y))
    rows = 10.0 ** (6 * torch.rand(k, 1, generator=r) - 3)
    features, samples, classes = (torch.randperm(n, generator=r) for n in (d, len(y), k))

    def same(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)

    same(correlation(class_means(g, rows * W, y)), C)
    same(correlation(class_means(g[:, features], W[:, features], y)), C)
    same(correlation(class_means(g[samples], W, y[samples])), C)
    same(correlation(class_means(g, W[classes], classes.argsort()[y])), C[classes][:, classes])
    assert cas(C) == pytest.approx(literal_twins.cas(C.tolist()))


@given(st.integers(0, 10_000), st.integers(3, 7), st.booleans())
def test_separation_is_a_brute_force_count(seed: int, k: int, ties: bool) -> None:
    g = seeded(seed)
    C = torch.randn(k, k, generator=g, dtype=torch.float64)
    C = ((C + C.T) * (1 if ties else 100)).round() / 4  # with many ties, or hardly any
    sharing = torch.randint(0, 2, (k, k), generator=g).triu(1)
    sharing[0, 1], sharing[0, 2] = 1, 0
    sharing = sharing + sharing.T + torch.eye(k, dtype=torch.int64)
    assert separation(C, sharing) == pytest.approx(literal_twins.auc(C.tolist(), sharing.tolist()), abs=1e-12)
    assert separation(-C, sharing) == pytest.approx(1 - separation(C, sharing), abs=1e-12)


def test_separation_at_its_ends_and_where_it_is_undefined() -> None:
    sharing = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    C = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
    assert separation(C, sharing) == 1
    assert separation(-C, sharing) == 0
    assert separation(torch.ones(3, 3), sharing) == 0.5
    for undefined in (torch.ones(3, 3, dtype=torch.int64), torch.eye(3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="AUC needs pairs"):
            separation(C, undefined)


# --- evaluate: one pass against a naive loop


class Small(Classifier):
    """A classifier with batch norm and dropout, so that a wrong mode shows."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
        self.conv = nn.Conv2d(3, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, classes)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.drop(self.bn(self.conv(self.normalise(x))))).mean(dim=(2, 3))


def small(seed: int = 0) -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Small()
        nn.init.normal_(model.head.weight, std=3)
        model.bn.running_var.fill_(2.0)
    with torch.no_grad():  # no class is preferred, so that predictions differ and attacks change them
        mean = model.eval().features(as_float(split().images)).mean(dim=0)
        model.head.bias.copy_(-model.head.weight @ mean)
    return model.train()


def split(n: int = 23, classes: int = 3, seed: int = 0) -> Split:
    g = seeded(seed)
    colour = torch.randint(0, 128, (n, 3, 1, 1), generator=g)
    images = (colour + torch.randint(0, 128, (n, 3, 8, 8), generator=g)).to(torch.uint8)
    return Split(images, torch.randint(0, classes, (n,), generator=g))


ATTACKED = [
    None,
    PGD(threat=Linf(eps=0.05), steps=3),
    PGD(threat=L2(eps=0.5), steps=3, return_iterate="best", restarts=2),
    FGSM(threat=Linf(eps=0.1), start="uniform"),
]


@pytest.mark.parametrize("attack", ATTACKED, ids=str)
@pytest.mark.parametrize("batch", [5, 23, 100])
def test_under_is_a_naive_loop_over_all_images(attack: Any, batch: int) -> None:
    model, part, told = small().train(), split(), []
    model.bn.eval()
    before, state = (
        [m.training for m in model.modules()],
        {k: v.clone() for k, v in model.state_dict().items()},
    )
    chance = torch.get_rng_state()
    seen = evaluate.evaluate(
        model, part, attack, seed=3, batch=batch, epoch=2, purpose="check", advance=told.append
    )
    assert [m.training for m in model.modules()] == before
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chance)
    assert sum(told) == len(part) == 23
    assert len(seen.labels) == len(seen.clean) == len(seen.robust) == len(seen.features) == 23

    model.eval()
    x, y = as_float(part.images), part.labels
    crafted = []
    for number, first in enumerate(range(0, 23, batch)):
        rows, noise = slice(first, first + batch), generator(3, 2, number, "check")
        crafted.append(x[rows] if attack is None else attack(model, x[rows], y[rows], noise))
    x_adv = torch.cat(crafted)
    with torch.no_grad():
        for i in range(23):
            one = model(x_adv[i : i + 1])
            assert int(seen.robust[i]) == int(one.argmax())
            assert int(seen.clean[i]) == int(model(x[i : i + 1]).argmax())
            torch.testing.assert_close(seen.features[i], model.features(x_adv[i : i + 1])[0])
    assert len(seen.clean.unique()) > 2
    assert torch.equal(seen.clean, seen.robust) == (attack is None)
    assert torch.equal(seen.labels, y)
    assert torch.equal(seen.W, model.head.weight)
    assert seen.dead == 0
    A = literal_twins.class_attributions(seen.features.tolist(), seen.W.tolist(), y.tolist())
    torch.testing.assert_close(seen.means, exact(A), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(seen.C, exact(literal_twins.correlation(A)), rtol=1e-9, atol=1e-9)


def test_evaluating_repeats_itself_and_moves_no_statistics_even_if_the_attack_would() -> None:
    attack, model = PGD(threat=Linf(eps=0.1), steps=3, bn="train"), small()
    still = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        seen = evaluate.evaluate(model, split(), attack, batch=10)
    assert all(torch.equal(v, still[k]) for k, v in model.state_dict().items())
    plain = attack.replace(bn="eval")
    a, b = (evaluate.evaluate(model, split(), plain, seed=1, batch=10) for _ in range(2))
    assert torch.equal(a.features, b.features)
    assert not torch.equal(a.features, seen.features)
    for other in ({"seed": 2}, {"seed": 1, "epoch": 1}, {"seed": 1, "purpose": "check"}):
        assert not torch.equal(
            evaluate.evaluate(model, split(), plain, batch=10, **other).features, a.features
        )


def test_the_mode_is_restored_when_evaluation_fails() -> None:
    model = small().train()
    model.conv = nn.Conv2d(4, 6, 3)
    with pytest.raises(RuntimeError):
        evaluate.evaluate(model, split(), None)
    assert all(m.training for m in model.modules())


def test_images_without_usable_gradient_are_counted_and_warned_of() -> None:
    class Saturated(Small):
        def features(self, x: Tensor) -> Tensor:
            flat = super().features(x)
            off = x[:, :1, 0, 0] > 0.5  # images whose first pixel is bright get no gradient
            return torch.where(off, (flat > -1).float(), flat)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, part = Saturated().eval(), split(40)
    dark = (as_float(part.images)[:, 0, 0, 0] <= 0.5).sum()
    for attack in (PGD(steps=3, start="none"), PGD(steps=3, restarts=2, start="none"), FGSM()):
        seen = evaluate.evaluate(model, part, attack, batch=9)
        assert 0 < seen.dead == 40 - int(dark)
        warnings = evaluate.summary(seen, ("a", "b", "c", "d"))["warnings"]
        assert any(f"no usable gradient for {seen.dead} of 40 images" in w for w in warnings)
    assert evaluate.evaluate(model, part, PGD(steps=0)).dead == 0


def test_an_image_counts_as_dead_if_every_step_was_or_some_step_and_the_attack_failed() -> None:
    class Reported(PGD):
        def search(self, model: Any, x: Tensor, y: Tensor, generator: Any = None) -> Any:
            return super().search(model, x, y, generator)._replace(dead_gradients=torch.arange(len(x)) % 7)

    for restarts, wholly in ((1, 12), (2, 3)):  # 0, 1, ... 6 of 3 or of 6 steps, three times, and 0, 1
        seen = evaluate.evaluate(small(), split(23), Reported(steps=3, restarts=restarts), batch=23)
        partly = [0 < i % 7 < 3 * restarts and bool(seen.robust[i] == seen.labels[i]) for i in range(23)]
        assert any(partly)
        assert seen.dead == wholly + sum(partly)


def test_confusion_and_classwise_count_literally_with_an_absent_class() -> None:
    y, p = torch.tensor([0, 0, 1, 3, 3, 3]), torch.tensor([0, 1, 1, 2, 3, 0])
    table = evaluate.confusion(p, y, 4)
    for i in range(4):
        for j in range(4):
            assert int(table[i, j]) == sum(int(a) == i and int(b) == j for a, b in zip(y, p, strict=True))
    assert evaluate.classwise(p, y, 4) == [0.5, 1.0, None, pytest.approx(1 / 3)]
    assert evaluate.accuracy(p, y) == 0.5
    assert evaluate.confusion(p.int(), y.int(), 4).tolist() == table.tolist()


@pytest.mark.parametrize(
    ("counts", "warned"),
    [
        ([100, 0, 0, 0], True),
        ([80, 10, 5, 5], True),
        ([79, 7, 7, 7], False),
        ([25, 25, 25, 25], False),
        ([50, 50, 0, 0], False),
        ([50, 50] + [0] * 8, True),  # two classes of ten
        ([40, 30, 30] + [0] * 7, False),
    ],
)
def test_a_near_constant_predictor_is_warned_of(counts: list[int], warned: bool) -> None:
    predicted = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    said = evaluate.collapse(predicted, len(counts))
    assert (said is not None) == warned
    if said:
        assert f"{max(counts) / sum(counts):.0%}" in said
        assert "meaningless" in said


def test_a_constant_predictor_maximises_cas_and_the_summary_says_so() -> None:
    W = torch.ones(4, 3)
    y = torch.arange(12) % 4
    seen = evaluate.EvaluationPass(y, 0 * y, 0 * y, torch.ones(12, 3), W, 0)
    found = evaluate.summary(seen, ("a", "b", "c", "d"))
    assert found["cas"] == pytest.approx(12)
    assert found["cas_normalised"] == pytest.approx(1)
    assert any("collapsed" in w for w in found["warnings"])


def test_a_summary_is_consistent_with_its_parts_and_names_empty_classes() -> None:
    model, part = small(), split(60)  # three of four classes have images
    seen, names = evaluate.evaluate(model, part, ATTACKED[1]), ("a", "b", "c", "d")
    found = evaluate.summary(seen, names)
    assert found["clean"] == pytest.approx(float((seen.clean == part.labels).double().mean()))
    assert found["robust"] == pytest.approx(sum(found["matrices"]["confusion"][i][i] for i in range(4)) / 60)
    assert found["classwise_robust"][3] is None
    assert found["empty_classes"] == [3]
    assert any("count as sharing nothing: d" in w for w in found["warnings"])
    assert found["cas"] == pytest.approx(literal_twins.cas(seen.C.tolist()))
    assert found["cas_normalised"] == pytest.approx(found["cas"] / 12)
    torch.testing.assert_close(exact(found["matrices"]["C"]), seen.C, rtol=0, atol=1e-6)
    assert [p.C for p in found["pairs"]] == sorted((p.C for p in found["pairs"]), reverse=True)
    for p in found["pairs"]:
        assert p.i < p.j
        assert p.classes == (names[p.i], names[p.j])
        assert pytest.approx(float(seen.C[p.i, p.j])) == p.C


def test_the_auc_of_planted_pairs_is_given_where_it_exists() -> None:
    seen = evaluate.evaluate(small(), split(60, classes=4), None)
    names, some = ("a", "b", "c", "d"), torch.eye(4, dtype=torch.int64)
    some[0, 1] = some[1, 0] = 1
    known = replace(seen, sharing=some)
    assert known.sharing_auc == pytest.approx(literal_twins.auc(seen.C.tolist(), some.tolist()))
    assert evaluate.summary(known, names)["matrices"]["sharing"] == some.tolist()
    assert evaluate.summary(seen, names)["sharing_auc"] is None
    for sharing in (torch.eye(4, dtype=torch.int64), torch.ones(4, 4, dtype=torch.int64)):
        assert replace(seen, sharing=sharing).sharing_auc is None
