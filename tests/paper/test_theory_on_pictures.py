"""The bridge to images: the strengths behind pictures, the weights fitted to them, and the verdicts."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import seeded
from crossclass.analysis import attribution
from crossclass.attacks import PGD
from crossclass.attacks.losses import cross_entropy
from crossclass.attacks.norms import Linf
from crossclass.core.errors import UserError
from crossclass.data import Shapes, as_float, shapes
from crossclass.paper import theory_on_pictures
from crossclass.paper.part_weights import cas_of_part_weights, fitted_weights, part_weights, standard_errors
from crossclass.paper.theory import closed, samples
from crossclass.paper.theory.setting import PAPER
from crossclass.paper.theory_on_pictures import (
    PICTURES,
    QUICK,
    fit_strengths,
    judge_bridge,
    measure_bridge,
)

EDGES = ((1, 2), (0, 2), (0, 1))


# --- the strengths that pictures were drawn with


@pytest.mark.parametrize("split", ["train", "test"])
def test_strengths_are_those_of_the_pictures(split: Any) -> None:
    data = Shapes(n_train=90, n_val=0, n_test=120, classes=3, edges=EDGES, mu=0.2, sigma=0.1, noise=0.0)
    part, s = data().part(split), data.drawn(split).strengths
    assert s.shape == (len(part), 6)
    x = as_float(part.images) - 0.5
    stamps = torch.stack([shapes.part(p, 12) for p in range(6)])
    for p in range(6):
        found = F.conv2d(x, stamps[p : p + 1]).flatten(1)
        peak = found.gather(1, found.abs().argmax(dim=1, keepdim=True))[:, 0] / stamps[p].square().sum()
        shown = s[:, p] != 0
        expected = part.labels == p if p < 3 else (part.labels[:, None] == torch.tensor(EDGES[p - 3])).any(1)
        assert torch.equal(shown, expected)
        strong = shown & (s[:, p].abs() > 0.1)  # else its own part is not the largest match
        both = torch.stack([peak[strong], s[strong, p]]).double()
        assert float(torch.corrcoef(both)[0, 1]) > 0.9
        assert float((both[0] / both[1]).median()) == pytest.approx(1.0, abs=0.15)


def test_strengths_are_equation_8() -> None:
    s = PICTURES.replace(n_train=20_000, sigma=0.1).drawn("train").strengths
    y = torch.arange(20_000) % 3
    active = torch.tensor(samples.design(PAPER).sum(axis=1))[y] > 0
    assert torch.equal(s != 0, active)
    assert float(s[active].mean()) == pytest.approx(0.35, abs=0.003)
    assert float(s[active].std()) == pytest.approx(0.1, abs=0.003)
    C = torch.corrcoef(torch.stack([s[y == 0][:, p] for p in (0, 4, 5)]))
    assert float(attribution.off_diagonal(C).abs().max()) < 0.05


# --- weights that are fitted to strengths


def problem(seed: int = 0, n: int = 400) -> tuple[Tensor, Tensor]:
    g = seeded(seed)
    s = torch.tensor(samples.draw(n, 1.0, 0.6, PAPER, np.random.default_rng(seed))[0], dtype=torch.float32)
    return s, torch.randn(3, 6, generator=g)


def test_responses_of_a_linear_model_are_its_weights() -> None:
    s, W = problem()
    logits = s @ W.T + torch.tensor([3.0, -1.0, 0.5])
    torch.testing.assert_close(fitted_weights(logits, s), W.double(), atol=1e-5, rtol=1e-5)


def test_effective_weights_of_equation_16_are_w1_and_w2() -> None:
    W = torch.tensor(samples.weights(0.7, 0.3, PAPER))
    assert part_weights(W, EDGES) == pytest.approx((0.7, 0.3))
    assert part_weights(W + torch.randn(6, generator=seeded(0)).double(), EDGES) == pytest.approx((0.7, 0.3))


def test_effective_weights_in_loops() -> None:
    edges, k = ((0, 1), (2, 3)), 4
    R = torch.randn(k, k + 2, generator=seeded(1))
    own = [float(R[i, i]) - sum(float(R[j, i]) for j in range(k) if j != i) / (k - 1) for i in range(k)]
    shared = []
    for p, (a, b) in enumerate(edges, start=k):
        inside = (float(R[a, p]) + float(R[b, p])) / 2
        shared.append(inside - sum(float(R[j, p]) for j in range(k) if j not in (a, b)) / (k - 2))
    assert part_weights(R, edges) == pytest.approx((sum(own) / k, sum(shared) / 2), rel=1e-5)


def test_errors_are_the_spread_over_new_samples() -> None:
    estimates, errors = [], []
    for seed in range(40):
        s, _ = problem(seed, 150)
        W = torch.tensor(samples.weights(0.7, 0.3, PAPER), dtype=torch.float32)
        logits = s @ W.T + torch.randn(150, 3, generator=seeded(seed + 100))
        estimates.append(part_weights(fitted_weights(logits, s), EDGES))
        errors.append(standard_errors(logits, s, EDGES))
    spread, mean = np.std(estimates, axis=0, ddof=1), np.mean(errors, axis=0)
    np.testing.assert_allclose(mean, spread, rtol=0.35)


def test_two_classes_lack_nothing() -> None:
    with pytest.raises(UserError, match="3 classes or more"):
        part_weights(torch.zeros(2, 3), ((0, 1),))
    with pytest.raises(UserError, match="3 classes or more"):
        part_weights(torch.zeros(3, 3), ())


# --- training on strengths


def strengths(n: int = 900, sigma: float = 0.6) -> tuple[Tensor, Tensor]:
    x, y = samples.draw(n, 1.0, sigma, PAPER, np.random.default_rng(0))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def test_untied_weights_under_the_margin_loss_have_theorem_1s_threshold() -> None:
    # untied rows sum to 0; differences a of E and b of C cost (a^2 + b^2) / 2 more than tied ones: twice
    x, y = strengths()
    w_e, w_c = part_weights(fit_strengths(x, y, 0.1, "margin", 100), EDGES)
    w1, w2 = closed.optimum(1.0, 0.6, 0.1)
    assert w_e == pytest.approx(w1 / 2, abs=0.02)
    assert w_c == pytest.approx(w2 / 2, abs=0.02)
    beyond = float(closed.eps0(1.0, 0.6)) + 0.08
    w_e, w_c = part_weights(fit_strengths(x, y, beyond, "margin", 100), EDGES)
    assert w_e == pytest.approx(float(closed.optimum(1.0, 0.6, beyond)[0]) / 2, abs=0.02)
    assert abs(w_c) < 0.01


def test_clean_cas_of_untied_weights_is_that_of_the_centred() -> None:
    x, y = strengths(3000)
    W = fit_strengths(x, y, 0.1, "margin", 60)
    assert float(W.sum(dim=0).abs().max()) < 1e-4
    found = attribution.cas(attribution.correlation(attribution.class_means(x, W, y)))
    assert found == pytest.approx(cas_of_part_weights(*part_weights(W, EDGES)), rel=0.05)


@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_cas_in_closed_form_is_what_the_project_measures(eps: float) -> None:
    x, y = strengths(20_000, sigma=0.3)
    W = torch.tensor(samples.weights(0.7, 0.6), dtype=torch.float32)
    W = W - W.mean(dim=0)
    attack = PGD(threat=Linf(eps=eps), steps=1, rel_step=1.0, start="none", box=None)
    x_adv = attack(lambda s: s @ W.T, x, y)
    found = attribution.cas(attribution.correlation(attribution.class_means(x_adv, W, y)))
    assert found == pytest.approx(cas_of_part_weights(0.7, 0.6, eps), abs=0.02)
    assert found > 0.2


def test_clean_cas_in_closed_form_written_out() -> None:
    # W_i is 2 w1 / 3 on E_i and w2 / 3 on the two C_k of class i; q is their ratio (eqs. 5 to 7)
    q = 0.6 / 3 / (0.7 * 2 / 3)
    assert cas_of_part_weights(0.7, 0.6) == pytest.approx(6 * q**2 / (1 + 2 * q**2))
    assert cas_of_part_weights(0.0, 0.0) == 0.0


def test_an_attack_hides_the_sharing_of_centred_rows() -> None:
    assert cas_of_part_weights(1.0, 1.0, 0.1) > 0 == cas_of_part_weights(1.0, 1.0, 0.12)


def ce_of_worst_case(w1: float, w2: float, eps: float, n: int = 40_000) -> Tensor:
    x, y = samples.draw(n, 1.0, 0.9, PAPER, np.random.default_rng(3))
    m = torch.tensor(samples.margins(x, y, w1, w2, eps))
    return torch.log1p(m.exp().sum(dim=1))  # exp(-inf) = 0 for the class itself


@pytest.mark.parametrize("eps", [0.1, 0.3, 0.45])
def test_cross_entropy_has_no_threshold_below_half_mu(eps: float) -> None:
    # eps0 = 0.2461: at the last two the margin loss has w2 = 0
    step = 1e-3
    slope = float((ce_of_worst_case(0.8, step, eps) - ce_of_worst_case(0.8, 0.0, eps)).mean()) / step
    at = ce_of_worst_case(0.8, 0.0, eps)
    expected = -(1 - 2 * eps) * float((1 - torch.exp(-at)).mean())  # CE = -log p_y
    assert slope == pytest.approx(expected, abs=0.01)
    assert slope < 0


def test_cross_entropy_training_ends_where_its_gradient_is_0() -> None:
    x, y = strengths(300)
    W = fit_strengths(x, y, 0.3, "ce", 200).requires_grad_()
    x_adv = theory_on_pictures._corner(0.3, "ce")(lambda s: s @ W.detach().T, x, y)
    (cross_entropy(x_adv @ W.T, y).mean() + 0.005 * W.square().sum()).backward()
    assert W.grad is not None
    assert float(W.grad.abs().max()) < 0.02
    w_e, w_c = part_weights(W.detach(), EDGES)
    assert w_c > 0.5 * w_e > 0


# --- the whole


@pytest.fixture(scope="module")
def quick() -> dict[str, Any]:
    state = torch.get_rng_state()
    found = measure_bridge(QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    return json.loads(json.dumps(found))


def test_the_quick_bridge_has_every_part(quick: dict[str, Any]) -> None:
    assert {name: len(p) for name, p in quick["families"].items()} == {
        "strengths, margin": 2,
        "strengths, ce": 2,
        "pixels, ce": 2,
        "conv, ce": 1,
    }
    for name, points in quick["families"].items():
        for point in points:
            assert all(len(v) == (2 if "strengths" in name else 1) for k, v in point.items() if k != "eps")
            assert 0 <= point["robust"][0] <= point["clean"][0] <= 1
    assert quick["eps0"] == pytest.approx(0.5 - 0.2 / 0.35 / (2 * math.sqrt(math.pi)))
    verdicts = judge_bridge(quick)
    assert len(verdicts) == 14
    first = quick["families"]["strengths, margin"][0]
    assert first["exclusive"][0] != first["exclusive"][1]  # seeds have samples of their own
    assert np.mean(first["exclusive"]) == pytest.approx(0.5, abs=0.05)


def point(eps: float, w_e: float, w_c: float, cas: float, error: float = 0.01) -> dict[str, Any]:
    return {
        "eps": eps,
        "exclusive": [w_e],
        "shared": [w_c],
        "error_exclusive": [error],
        "error_shared": [error],
        "cas_clean": [cas],
    }


def words(*points: dict[str, Any]) -> list[str]:
    numbers = {"mu": 0.35, "sigma": 0.2, "families": {"pixels, ce": list(points)}}
    return [v.verdict for v in judge_bridge(numbers)]


def test_verdicts_on_made_up_numbers() -> None:
    start = point(0, 1, 0.8, 1.0)
    assert words(start, point(0.1, 0.5, 0.0, 0.1)) == ["holds", "holds", "holds"]
    assert words(start, point(0.1, 0.5, 0.0, 0.1), point(0.2, 0.0, 0.0, 0.0))[0] == "holds"
    assert words(start, point(0.1, 0.5, 0.3, 1.2)) == ["does not hold", "holds", "does not hold"]
    assert words(start, point(0.1, 0.5, 0.6, 1.2)) == ["does not hold", "does not hold", "holds"]
    assert words(start, point(0.1, 0.5, 0.42, 1.2)) == ["does not hold", "undecided", "undecided"]
    assert words(start, point(0.1, 0.5, 0.05, 0.2))[0] == "undecided"  # 6 % +- 4 % are left
    assert words(start, point(0.1, 0.0, 0.0, 0.0)) == ["undecided"] * 3  # nothing was learned
    assert words(point(0, 0.0, 0.0, 0.0), point(0.1, 0.5, 0.4, 0.1)) == ["undecided"] * 3
    assert words(start) == ["undecided"] * 3
    assert words() == ["undecided"] * 3
    assert words(point(0.1, 1, 0.8, 1.0), point(0.2, 0.5, 0.0, 0.1))[0] == "undecided"


def test_the_verdict_on_the_closed_form_of_cas() -> None:
    good = {**point(0, 1, 0.8, 1.0), "cas": [0.2], "cas_closed": [1.05], "cas_closed_attacked": [0.15]}
    assert words(good)[3] == "holds"
    assert words(good, {**good, "cas_closed": [1.2]})[3] == "does not hold"
    assert words({**good, "cas": [0.5]})[3] == "does not hold"


def test_errors_of_several_seeds_come_from_their_spread() -> None:
    wide = {**point(0.1, 0, 0, 0), "shared": [0.5, 0.7], "error_shared": [0.0, 0.0]}
    assert theory_on_pictures._pooled(wide, "shared") == pytest.approx((0.6, 0.1))
    own = {**point(0.1, 0, 0, 0), "shared": [0.6, 0.6], "error_shared": [0.2, 0.2]}
    assert theory_on_pictures._pooled(own, "shared") == pytest.approx((0.6, 0.2 / math.sqrt(2)))
