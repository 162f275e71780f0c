"""Losses against float64 twins, where wrong formulas differ: far apart, saturated, one-hot."""

import math

import pytest
import torch
from torch import Tensor

import literal_twins
from conftest import seeded
from crossclass.attacks import losses

EXTREME = [
    *((200.0, 0.0, -5.0), (1e4, -1e4, 0.0), (-1e4, -1e4, 1e4), (1e4, 1e4, 1e4), (0.0, 0.0, 0.0)),
    *((88.8, -88.8, 0.0), (1e-4, 0.0, -1e-4), (100.0, 100.0, -1e4)),
]
PAIRS = [(a, b) for a in EXTREME for b in EXTREME]


def both(loss, logits: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient with respect to the logits."""
    logits = logits.clone().requires_grad_(True)
    value = loss(logits, other)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


def close(found: Tensor, expected: object, scale: float = 1.0) -> None:
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-5 * scale)


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0, 1000.0])
def test_equals_the_float64_twin_far_from_where_formulas_agree(spread: float) -> None:
    g = seeded(0)
    z, r = (spread * torch.randn(12, 5, generator=g) for _ in range(2))
    y = torch.randint(0, 5, (12,), generator=g)
    soft = torch.randn(12, 5, generator=g).softmax(dim=1)
    labelled = [(name, labels) for name in ("cross_entropy", "margin") for labels in (y, soft)]
    for name, other in (*labelled, ("kl", r)):
        value, gradient = both(getattr(losses, name), z, other)
        rows = list(zip(z.tolist(), other.tolist(), strict=True))
        close(value, [getattr(literal_twins, name)(a, b) for a, b in rows], scale=spread)
        close(gradient, [getattr(literal_twins, f"{name}_gradient")(a, b) for a, b in rows])


@pytest.mark.parametrize(("logits", "reference_logits"), PAIRS)
def test_kl_stays_finite_and_exact_where_softmax_saturates(
    logits: tuple[float, ...], reference_logits: tuple[float, ...]
) -> None:
    z, r = torch.tensor([logits]), torch.tensor([reference_logits])
    value, gradient = both(losses.kl, z, r)
    close(value, [literal_twins.kl(logits, reference_logits)], scale=max(1.0, *map(abs, logits)))
    close(gradient, [literal_twins.kl_gradient(logits, reference_logits)])
    _, through_reference = both(lambda r, z: losses.kl(z, r), r, z)  # TRADES' outer loss takes this one too
    assert through_reference.isfinite().all()


def test_kl_is_not_reversed_and_not_symmetric() -> None:
    z, r = torch.tensor([[3.0, 0.0, -3.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    assert float(losses.kl(z, r)) == pytest.approx(literal_twins.kl([3, 0, -3], [0, 0, 0]), rel=1e-5)
    assert float(losses.kl(r, z)) == pytest.approx(literal_twins.kl([0, 0, 0], [3, 0, -3]), rel=1e-5)
    assert abs(float(losses.kl(z, r)) - float(losses.kl(r, z))) > 0.5
    assert float(losses.kl(z, z)) == 0.0


@pytest.mark.parametrize("logits", EXTREME)
@pytest.mark.parametrize("labels", [torch.arange(3), torch.eye(3)], ids=["classes", "one-hot"])
def test_cross_entropy_and_margin_stay_finite_and_exact_where_logits_saturate(
    logits: tuple[float, ...], labels: Tensor
) -> None:
    z = torch.tensor([logits] * 3)
    rows = [(logits, row) for row in labels.tolist()]
    for name in ("cross_entropy", "margin"):
        value, gradient = both(getattr(losses, name), z, labels)
        twin = [getattr(literal_twins, name)(*row) for row in rows]
        close(value, twin, scale=max(1.0, *map(abs, logits)))
        assert gradient.isfinite().all()
    _, gradient = both(losses.cross_entropy, z, labels)
    close(gradient, [literal_twins.cross_entropy_gradient(*row) for row in rows])


def test_margin_is_positive_exactly_when_wrong() -> None:
    z = torch.randn(200, 4, generator=seeded(2))
    y = torch.arange(200) % 4
    assert torch.equal(losses.margin(z, y) > 0, z.argmax(dim=1) != y)


def test_a_soft_label_counts_whole_in_cross_entropy_and_by_its_top_in_margin() -> None:
    z, soft = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.3, 0.6, 0.1]])
    by_class = losses.cross_entropy(z.repeat(3, 1), torch.arange(3))
    torch.testing.assert_close(losses.cross_entropy(z, soft), (soft[0] * by_class).sum()[None])
    torch.testing.assert_close(losses.margin(z, soft), torch.tensor([1.0]))
    assert losses.hard(soft).tolist() == [1]


def test_each_loss_is_per_sample() -> None:
    z, r = (torch.randn(5, 3, generator=seeded(s)) for s in (5, 6))
    y = torch.tensor([0, 1, 2, 0, 1])
    for loss, other in ((losses.cross_entropy, y), (losses.margin, y), (losses.kl, r)):
        alone = [loss(z[i : i + 1], other[i : i + 1]) for i in range(5)]
        assert torch.equal(loss(z, other), torch.cat(alone))


def test_the_twins_gradients_are_the_slopes_of_their_values() -> None:
    z, other, h = [0.3, -1.2, 2.0, 0.5], [1.0, 0.2, -0.4, 0.7], 1e-6
    soft = [0.1, 0.2, 0.3, 0.4]
    for name, second in (("cross_entropy", 1), ("cross_entropy", soft), ("margin", 1), ("kl", other)):
        value = getattr(literal_twins, name)
        for j, slope in enumerate(getattr(literal_twins, f"{name}_gradient")(z, second)):
            up, down = ([v + s * h * (i == j) for i, v in enumerate(z)] for s in (1, -1))
            assert math.isclose((value(up, second) - value(down, second)) / (2 * h), slope, abs_tol=1e-6)
