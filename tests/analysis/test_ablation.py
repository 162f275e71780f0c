"""Removing features: closed form, a literal attack through the ablated network, matching, bad input."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import seeded
from crossclass.analysis import ablation
from crossclass.analysis.ablated_networks import Ablated, Transplanted
from crossclass.analysis.ablation import Losses, Outcome, at_clean_loss, estimate
from crossclass.analysis.feature_shares import feature_shares
from crossclass.attacks import PGD
from crossclass.attacks.norms import Linf
from crossclass.core.errors import UserError
from crossclass.models import Classifier
from networks import SMALL, THIN, made

exact = torch.float64


class Linear(Classifier):
    """Its features are the pixels."""

    def __init__(self, k: int = 4, d: int = 12) -> None:
        super().__init__((0.0,), (1.0,))
        self.head = nn.Linear(d, k)
        nn.init.normal_(self.head.weight, generator=seeded(1))

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def pictures(n: int = 9) -> Tensor:
    return torch.rand(n, 3, 2, 2, generator=seeded(0))


def means(k: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(k, d, generator=seeded(seed), dtype=exact) + 0.5


def test_without_features_logits_change_by_their_columns() -> None:
    net, x, at = Linear(), pictures(), torch.rand(12, generator=seeded(2))
    removed = torch.tensor([1, 7, 11])
    W, g = net.head.weight, x.flatten(1)
    wanted = net(x) + (at - g)[:, removed] @ W[:, removed].T
    torch.testing.assert_close(Ablated(net, removed, at)(x), wanted)


def test_the_attack_of_a_linear_network_is_that_of_the_columns_that_are_left() -> None:
    net, x, y = Linear(), pictures(), torch.arange(9) % 4
    removed, eps = torch.tensor([0, 5]), 0.01
    ablated = Ablated(net, removed, torch.rand(12, generator=seeded(2)))
    attack = PGD(threat=Linf(eps=eps), steps=1, rel_step=1.0, start="none", box=None)
    W = net.head.weight.clone().detach()
    W[:, removed] = 0
    rest = (ablated(x).softmax(dim=1) - F.one_hot(y, 4)) @ W
    wanted = x + eps * rest.sign().view_as(x)
    torch.testing.assert_close(attack(ablated, x, y), wanted.detach())


@pytest.mark.parametrize("kind", SMALL)
def test_the_attack_goes_through_what_is_left(kind: str) -> None:
    net = made(SMALL[kind])
    x, y = torch.rand(5, 3, 16, 16, generator=seeded(0)), torch.arange(5)
    d = net.head.weight.shape[1]
    removed, at = torch.randperm(d, generator=seeded(1))[: d // 3], torch.rand(d, generator=seeded(2))

    def literal(images: Tensor) -> Tensor:
        g = net.features(images)
        columns = [torch.full((len(g),), float(at[k])) if k in removed else g[:, k] for k in range(d)]
        return (
            torch.stack([sum(w[k] * columns[k] for k in range(d)) for w in net.head.weight], 1)
            + net.head.bias
        )

    attack = PGD(steps=3, start="none")
    found = attack(Ablated(net, removed, at), x, y)
    x_adv = x.clone()
    for _ in range(3):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(literal(x_adv), y, reduction="sum"), x_adv)
        step = x_adv.detach() + attack.alpha * grad.sign()
        x_adv = torch.minimum(torch.maximum(step, x - 8 / 255), x + 8 / 255).clamp(0, 1)
    same = (found - x_adv).abs() < 1e-5
    assert float(same.float().mean()) > 0.99  # a gradient of about 0 may have either sign


def test_the_network_is_left_as_it_was() -> None:
    net = made(THIN)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    net.train()
    x, y = torch.rand(4, 3, 16, 16, generator=seeded(0)), torch.arange(4)
    ablated = Ablated(net, torch.tensor([0, 2]), torch.zeros(net.head.weight.shape[1]))
    assert ablated.head is net.head
    PGD(steps=1)(ablated, x, y)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


@pytest.mark.parametrize("moved", [[], [1, 3], "all"])
def test_a_transplant_is_the_sum_of_components(moved: list[int] | str) -> None:
    a, b = made(THIN), made(THIN, seed=3)
    d = a.head.weight.shape[1]
    S = torch.arange(d) if moved == "all" else torch.tensor(moved, dtype=torch.int64)
    x = torch.rand(4, 3, 16, 16, generator=seeded(0))
    wanted = a.head.bias.expand(4, -1).clone()
    for k in range(d):
        net = b if k in S else a
        wanted = wanted + net.features(x)[:, k : k + 1] * net.head.weight[:, k]
    torch.testing.assert_close(Transplanted(a, b, S)(x), wanted)
    if moved == "all":
        torch.testing.assert_close(Transplanted(a, b, S)(x), b(x) - b.head.bias + a.head.bias)


@pytest.mark.parametrize(("k", "d"), [(2, 3), (6, 40), (1000, 64)])
def test_sets_have_equal_mass_up_to_one_feature(k: int, d: int) -> None:
    shares = feature_shares(means(k, d))
    for sort in ablation.SORTS:
        order = ablation.path(shares, sort, seeded(0))
        assert sorted(order.tolist()) == torch.where(shares.mass > 0)[0].tolist()
        for fraction in (0.05, 0.3, 0.9):
            count = ablation.count_of_mass(shares.mass, order, fraction)
            held = [float(shares.mass[order[:c]].sum() / shares.mass.sum()) for c in range(1, len(order) + 1)]
            distance = [abs(h - fraction) for h in held]
            assert distance[count - 1] == pytest.approx(min(distance))
            around = order[max(0, count - 1) : count + 1]
            assert distance[count - 1] <= float(shares.mass[around].max() / shares.mass.sum()) + 1e-12


def test_paths_begin_with_what_many_or_few_classes_share() -> None:
    A = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, -1.0]], dtype=exact)
    shares = feature_shares(A)  # one class, two, three, none
    assert ablation.path(shares, "shared").tolist() == [2, 1, 0]
    assert ablation.path(shares, "specific").tolist() == [0, 1, 2]
    assert sorted(ablation.path(shares, "random", seeded(0)).tolist()) == [0, 1, 2]


def test_classes_without_images_change_no_path() -> None:
    A = means(4, 9)
    more = torch.cat([A, torch.zeros(2, 9, dtype=exact), torch.full((1, 9), torch.nan, dtype=exact)])
    for sort in ("shared", "specific"):
        a, b = (ablation.path(feature_shares(m), sort) for m in (A, more))
        assert a.tolist() == b.tolist()


def test_the_clean_path_is_the_accuracy_of_the_ablated_networks() -> None:
    net, x, y = Linear(), pictures(40), torch.arange(40) % 4
    g, at, order = x.flatten(1), torch.rand(12, generator=seeded(2)), torch.randperm(12, generator=seeded(3))
    W, b = (p.detach() for p in (net.head.weight, net.head.bias))
    found = ablation.clean_path(g, W, b, at, y, order)
    wanted = [(Ablated(net, order[:c], at)(x).argmax(1) == y).double().mean() for c in range(13)]
    torch.testing.assert_close(found, torch.stack(wanted))
    for loss in (0.02, 0.1):
        count = ablation.count_of_clean_loss(found, loss)
        first = next((c for c in range(13) if found[0] - found[c] >= loss - 1e-9), None)
        assert count == first
    assert ablation.count_of_clean_loss(found, 0.99) is None


def test_at_equal_clean_loss_it_is_interpolated_where_the_path_first_gets_there() -> None:
    clean = torch.tensor([[0.02], [0.10], [0.04], [0.20]], dtype=exact)
    robust = torch.tensor([[0.01], [0.05], [0.30], [0.40]], dtype=exact)
    for loss, wanted in (
        (0.01, 0.005),
        (0.02, 0.01),
        (0.06, 0.03),
        (0.10, 0.05),
        (0.15, 0.3 + 0.1 * 11 / 16),
    ):
        assert at_clean_loss(clean, robust, loss).item() == pytest.approx(wanted)
    assert at_clean_loss(clean, robust, 0.5).item() == 0.4


def outcome(count: int, clean: Tensor, robust: Tensor) -> Outcome:
    return Outcome(count, count / 10, clean, robust)


def bits(n: int, p: float, seed: int) -> Tensor:
    return torch.rand(n, generator=seeded(seed)) < p


def test_what_is_lost_and_its_interval() -> None:
    n = 400
    clean, robust = bits(n, 0.9, 0), bits(n, 0.6, 1)
    sets = {
        s: outcome(1, bits(n, 0.8, 10 + i), bits(n, p, 20 + i))
        for i, (s, p) in enumerate(
            (("shared", 0.6), ("specific", 0.3), ("random", 0.4), ("more random", 0.5))
        )
    }
    paths = [(s.removeprefix("more "), [o]) for s, o in sets.items()]
    losses = Losses(clean, robust, paths, seed=1)
    for sort in ("shared", "specific"):
        lost = robust.double() - sets[sort].robust.double()
        found = estimate(losses.of_mass(sort, [1], "robust"))
        half = 1.96 * float(lost.std()) / n**0.5
        assert found.estimate == pytest.approx(float(lost.mean()))
        assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    random = estimate(losses.of_mass("random", [1, 1], "robust"))
    each = [float((robust.double() - sets[s].robust.double()).mean()) for s in ("random", "more random")]
    assert random.estimate == pytest.approx(sum(each) / 2)
    assert random.high - random.low > abs(each[0] - each[1]) * 0.9  # over draws, too
    assert losses.range_of_mass([1, 1]) == pytest.approx((min(each), max(each)))
    twin = Losses(clean, robust, [("shared", [sets["shared"]]), ("specific", [sets["shared"]])], seed=1)
    assert bool((twin.of_mass("shared", [1], "robust") == twin.of_mass("specific", [1], "robust")).all())


def test_the_interval_of_random_sets_is_over_draws_too() -> None:
    all_right, none = torch.ones(50, dtype=torch.bool), torch.zeros(50, dtype=torch.bool)
    draws = [("random", [outcome(1, all_right, robust)]) for robust in (all_right, none)]
    found = estimate(Losses(all_right, all_right, draws).of_mass("random", [1, 1], "robust"))
    assert (found.low, found.estimate, found.high) == pytest.approx((0.0, 0.5, 1.0))  # only draws differ


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_a_part_of_the_mass_lies_between_0_and_1(fraction: float) -> None:
    with pytest.raises(UserError, match="fractions"):
        ablation.count_of_mass(torch.ones(3), torch.arange(3), fraction)


def test_dead_features_leave_nothing_to_compare() -> None:
    for A in (torch.zeros(3, 4), -torch.ones(3, 4), torch.eye(3)[:, :1]):
        with pytest.raises(UserError, match="two or more"):
            ablation.path(feature_shares(A), "shared")


def test_features_that_do_not_exist() -> None:
    net, at = Linear(), torch.zeros(12)
    with pytest.raises(UserError, match="0 to 11"):
        Ablated(net, torch.tensor([12]), at)
    with pytest.raises(UserError, match="0 to 11"):
        Transplanted(net, Linear(), torch.tensor([-1]))
    with pytest.raises(UserError, match="12"):
        Ablated(net, torch.tensor([1]), at[:3])
    with pytest.raises(UserError, match="one run"):
        Transplanted(net, Linear(k=5), torch.tensor([1]))
