"""NC1 to NC3 are their equations, 0 where all has collapsed, and the same under rotations."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conftest import seeded
from crossclass.analysis import evaluate
from crossclass.analysis.metrics import metric
from crossclass.analysis.neural_collapse import logit_entropy, neural_collapse, wrong_probability
from crossclass.attacks import FGSM
from crossclass.data import Split
from networks import IMAGES, THIN, made

exact = torch.float64


def simplex(k: int) -> Tensor:
    """k vectors of equal length with all cosines -1 / (k - 1)."""
    return torch.eye(k, dtype=exact) - 1 / k


def test_a_collapsed_network_has_zeros() -> None:
    y = torch.arange(12) % 4
    found = neural_collapse(7 + simplex(4)[y], 3 * simplex(4) + 1, y)
    assert found.nc1 == pytest.approx(0, abs=1e-12)
    assert found.nc2_norms == pytest.approx(0, abs=1e-12)
    assert found.nc2_angles == pytest.approx(0, abs=1e-12)
    assert found.nc3 == pytest.approx(0, abs=1e-12)


def test_each_is_its_equation() -> None:
    g = torch.randn(90, 6, generator=seeded(0), dtype=exact)
    W = torch.randn(3, 6, generator=seeded(1), dtype=exact)
    y = torch.tensor([0] * 20 + [1] * 30 + [2] * 40)
    g[y == 1] += 2
    found = neural_collapse(g, W, y)
    means = torch.stack([g[y == i].mean(dim=0) for i in range(3)])
    M, W0 = means - means.mean(dim=0), W - W.mean(dim=0)
    within = sum(torch.outer(x - means[i], x - means[i]) for x, i in zip(g, y, strict=True)) / 90
    between = M.T @ M / 3
    assert found.nc1 == pytest.approx(float((within @ torch.linalg.pinv(between)).trace() / 3))
    lengths = [float(m.norm()) for m in M]
    mean = sum(lengths) / 3
    assert found.nc2_norms == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in lengths) / 3) / mean)
    cosines = [float(M[i] @ M[j]) / lengths[i] / lengths[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found.nc2_angles == pytest.approx(sum(abs(c + 1 / 2) for c in cosines) / 3)
    assert found.nc3 == pytest.approx(float((W0 / W0.norm() - M / M.norm()).norm()))


def test_a_rotation_and_another_origin_change_nothing() -> None:
    g, W = (
        torch.randn(60, 5, generator=seeded(2), dtype=exact),
        torch.randn(3, 5, generator=seeded(3)).double(),
    )
    y = torch.arange(60) % 3
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=seeded(4), dtype=exact))
    a, b = neural_collapse(g, W, y), neural_collapse((g + 3) @ turn, W @ turn, y)
    assert list(vars(a).values()) == pytest.approx(list(vars(b).values()))


def test_classes_without_images_are_left_out_and_too_few_are_undefined() -> None:
    g, y = torch.randn(40, 5, generator=seeded(2), dtype=exact), torch.arange(40) % 2
    W = torch.randn(4, 5, generator=seeded(3), dtype=exact)
    assert list(vars(neural_collapse(g, W, y)).values()) == pytest.approx(
        list(vars(neural_collapse(g, W[:2], y)).values())
    )
    assert all(math.isnan(v) for v in vars(neural_collapse(g, W, y * 0)).values())


def test_entropy_and_wrong_probability() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0], [0.0, math.log(2), 0.0]])
    assert logit_entropy(logits).tolist() == pytest.approx([math.log(3), 0, 1.5 * math.log(2)], abs=1e-6)
    assert wrong_probability(logits, torch.tensor([1, 1, 1])).tolist() == pytest.approx([2 / 3, 1, 0.5])


def test_outputs_without_a_number_have_no_entropy() -> None:
    odd = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [-math.inf, 0.0]])
    assert [math.isnan(v) for v in logit_entropy(odd).tolist()] == [True, True, False]
    assert logit_entropy(odd)[2] == 0


@pytest.mark.parametrize("k", [2, 5])
def test_a_pass_keeps_both_of_every_image(k: int) -> None:
    net = made(THIN, classes=k)
    part = Split(IMAGES, torch.arange(8) % k)
    seen = evaluate.evaluate(net, part, FGSM(), batch=3, keep=torch.arange(8))
    logits = net(seen.images).detach()
    of = torch.distributions.Categorical(logits=logits)
    for key, value in (
        ("logit_entropy", of.entropy()),
        ("wrong_probability", 1 - of.probs[torch.arange(8), part.labels]),
    ):
        assert metric(key).value(seen) == pytest.approx(float(value.mean()), abs=1e-6)


def test_images_without_an_output_are_left_out_of_the_mean() -> None:
    values = torch.tensor([math.nan, 1.0, 2.0], dtype=exact)
    y = torch.arange(3)
    seen = evaluate.EvaluationPass(y, y, y, torch.ones(3, 2), torch.ones(3, 2), entropy=values)
    assert metric("logit_entropy").value(seen) == pytest.approx(1.5)
    assert metric("wrong_probability").value(seen) is None  # nobody kept them
    assert metric("logit_entropy").value(replace(seen, entropy=values * torch.nan)) is None


@pytest.mark.parametrize(("k", "n", "d"), [(2, 40, 3), (6, 12, 30), (4, 4, 5)])
def test_a_summary_of_few_classes_few_images_or_empty_classes_is_of_numbers(k: int, n: int, d: int) -> None:
    y = torch.arange(n) % max(2, k - 1)  # the last of three or more classes has no image
    g, W = torch.randn(n, d, generator=seeded(0)), torch.randn(k, d, generator=seeded(1))
    found = evaluate.summary(evaluate.EvaluationPass(y, y, y, g, W), tuple("abcdef"))
    for key in ("decision_cas", "offer_cas", "profile_cas", "nc1", "nc2_norms", "nc2_angles", "nc3"):
        assert math.isfinite(found[key])
    for kind in ("decision", "offer", "profile"):
        matrix = torch.tensor(found["matrices"][f"{kind}_matrix"])
        assert matrix.shape == (k, k)
        assert bool((matrix.abs() <= 1).all())
        if k > 2:
            assert not matrix[k - 1].any()
