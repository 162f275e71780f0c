"""Attacks: optima known in closed form, a literal twin, and accuracy that never rises with more effort."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import literal_twins
from attack_cases import accuracy, every_ball, make, ours, predicted
from conftest import Plane, seeded
from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.core.plugins import kind_of
from crossclass.training.recipes import AT
from crossclass.training.run import Run

# --- the plane: the optimum is known (T10, T11, T12)


def plane_problem(n: int = 6, d: int = 20) -> tuple[Plane, Tensor, Tensor]:
    g = seeded(7)
    w = torch.randn(d, generator=g, dtype=torch.float64)
    return Plane(w, 0.1), torch.rand(n, d, generator=g), torch.arange(n) % 2


@pytest.mark.parametrize("ball", [Linf, L2], ids=kind_of)
@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("eps", [8 / 255, 0.5])
def test_on_a_plane_every_start_reaches_the_closed_form(ball: type, loss: str, eps: float) -> None:
    plane, x, y = plane_problem()
    expected = plane.worst(x, y, kind_of(ball), eps)
    for start in ball.starts:
        attack = PGD(threat=ball(eps=eps), steps=60, rel_step=0.25, start=start, loss=loss, box=None)
        x_adv = attack(plane, x, y, seeded(0))
        torch.testing.assert_close(plane.margin(x_adv, y), expected, rtol=0, atol=1e-5)
    one = FGSM(threat=ball(eps=eps), loss=loss, box=None)(plane, x, y)
    torch.testing.assert_close(plane.margin(one, y), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("eps", [8 / 255, 0.3, 1.0])
def test_on_a_plane_the_optimum_in_ball_and_box_is_found_exactly(loss: str, eps: float) -> None:
    plane, x, y = plane_problem()
    expected = plane.worst_linf_in_box(x, y, eps).float()
    for attack in (
        PGD(threat=Linf(eps=eps), steps=12, loss=loss),
        PGD(threat=Linf(eps=eps), steps=12, loss=loss, return_iterate="best", restarts=2),
        FGSM(threat=Linf(eps=eps), loss=loss),
    ):
        torch.testing.assert_close(attack(plane, x, y, seeded(0)), expected, rtol=0, atol=1e-6)


@ours
def test_in_a_box_no_random_point_beats_the_attack_on_a_plane(attack: type, ball: type) -> None:
    plane, x, y = plane_problem()
    a = make(attack, ball(eps=0.2), steps=100, rel_step=0.1 if "steps" in attack.model_fields else 1.0)
    found = plane.margin(a(plane, x, y, seeded(0)), y)
    assert (found < plane.margin(x, y)).all()
    if "steps" not in attack.model_fields:
        return  # one step of a new attack need not be optimal in the box
    for seed in range(200):
        delta = 5 * torch.randn(x.shape, generator=seeded(seed))
        rival = (x + a.threat.project(delta)).clamp(0, 1)
        assert (plane.margin(rival, y) >= found - 1e-5).all()


@ours
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_a_targeted_attack_descends_to_its_target(attack: type, ball: type, loss: str) -> None:
    plane, x, y = plane_problem()
    a = make(attack, ball, targeted=True, start="none", loss=loss, steps=1, rel_step=0.05)
    b = make(attack, ball, targeted=False, start="none", loss=loss, steps=1, rel_step=0.05)
    torch.testing.assert_close(a(plane, x, 1 - y), b(plane, x, y))  # two classes: the same question
    torch.testing.assert_close(
        a.replace(box=None)(plane, x, y) - x, x - b.replace(box=None)(plane, x, y), atol=1e-6, rtol=0
    )
    margins = [plane.margin(x, y)]
    for _ in range(6):
        x = a(plane, x, y)
        margins.append(plane.margin(x, y))
    assert (torch.stack(margins).diff(dim=0) > 0).all()


@ours
def test_the_loss_rises_on_a_net_and_falls_towards_a_target(attack: type, ball: type, trained: Any) -> None:
    net, x, y = trained
    other = (y + 1) % 3

    exact = copy.deepcopy(net).double()  # a confident loss of 1e-7 does not rise in float32

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(exact(x.double()), y, reduction="none").detach()

    options = {"start": "none", "rel_step": 0.1, "steps": 5}
    rise = loss(make(attack, ball(eps=0.05), **options)(net, x, y), y) - loss(x, y)
    assert (rise > 0).double().mean() > 0.95
    fall = loss(make(attack, ball(eps=0.05), targeted=True, **options)(net, x, other), other) - loss(x, other)
    assert (fall < 0).double().mean() > 0.95


def test_targeted_best_keeps_what_hits_the_target(trained: Any) -> None:
    net, x, y = trained
    target = (y + 1) % 3
    attack = PGD(threat=Linf(eps=0.08), steps=4, restarts=2, return_iterate="best", targeted=True)
    found = attack.search(net, x, target, seeded(0))
    assert found.success is not None
    assert torch.equal(found.success, predicted(net, found.x_adv) == target)
    assert 0.05 < float(found.success.double().mean()) < 1


@pytest.mark.parametrize("eps", [8 / 255, 0.3])
def test_fgsm_rs_stays_in_the_ball_and_is_pgd_1(eps: float) -> None:
    plane, x, y = plane_problem()
    wong = FGSM(threat=Linf(eps=eps), start="uniform", rel_step=1.25)
    x_adv = wong(plane, x, y, seeded(0))
    assert float((x_adv - x).abs().max()) <= eps + 1e-6
    one = PGD(threat=Linf(eps=eps), start="uniform", rel_step=1.25, steps=1)
    assert torch.equal(x_adv, one(plane, x, y, seeded(0)))
    assert wong.as_pgd() == one
    start = (x + one.threat.sample(x, "uniform", seeded(0))).clamp(0, 1) - x
    up = -torch.where(y == 1, 1.0, -1.0)[:, None] * plane.w.sign()
    literal = (x + (start + 1.25 * eps * up).clamp(-eps, eps)).clamp(0, 1).float()
    torch.testing.assert_close(x_adv, literal)
    assert float(((x_adv - x).abs() < 0.9 * eps).double().mean()) > 0.01  # not every pixel is at the border


# --- the literal twin


def two_layers(d: int = 6, hidden: int = 5, k: int = 4) -> tuple[nn.Module, literal_twins.TwoLayers]:
    g = seeded(21)
    U, V = (1.2 * torch.randn(s, generator=g, dtype=torch.float64) for s in ((hidden, d), (k, hidden)))
    a, b = (0.3 * torch.randn(s, generator=g, dtype=torch.float64) for s in (hidden, k))
    model = nn.Sequential(nn.Flatten(), nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, k)).double()
    with torch.no_grad():
        for p, value in zip(model.parameters(), (U, a - U.sum(dim=1) / 2, V, b), strict=True):
            p.copy_(value)
    return model, literal_twins.TwoLayers(U.tolist(), (a - U.sum(dim=1) / 2).tolist(), V.tolist(), b.tolist())


SOFT = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.3, 0.2, 0.4], [0.0, 1.0, 0.0, 0.0]])


CLASSES = torch.tensor([0, 2, 3, 1])


@pytest.mark.parametrize("ball", [Linf, L2], ids=kind_of)
@pytest.mark.parametrize(("restarts", "keep"), [(1, "last"), (1, "best"), (3, "last"), (3, "best")])
@pytest.mark.parametrize(
    ("loss", "targeted"), [("ce", False), ("ce", True), ("margin", False), ("margin", True), ("kl", False)]
)
@pytest.mark.parametrize("labels", [CLASSES, SOFT], ids=["hard", "soft"])
def test_pgd_is_its_literal_twin(
    ball: type, restarts: int, keep: str, loss: str, targeted: bool, labels: Tensor
) -> None:
    model, net = two_layers()
    threat = ball(eps=0.5 if ball is Linf else 0.9)
    for box in ((0.0, 1.0), None):
        choices = {"steps": 6, "loss": loss, "targeted": targeted, "return_iterate": keep, "box": box}
        attack = PGD(threat=threat, restarts=restarts, rel_step=0.7, **choices)
        x, g = torch.rand(4, 1, 2, 3, generator=seeded(5)), seeded(2)
        found = attack.search(model, x, labels, seeded(2))
        starts = torch.stack([threat.sample(x, threat.starts[0], g).flatten(1) for _ in range(restarts)])
        for i in range(4):
            twin = literal_twins.Search(
                net,
                threat.kind,
                threat.eps,
                0.7 * threat.eps,
                starts=starts[:, i].double().numpy(),
                **choices,
            )
            y = labels[i].tolist()
            expected = torch.from_numpy(twin(x[i].flatten().double().numpy(), y))
            torch.testing.assert_close(found.x_adv[i].flatten().double(), expected, rtol=0, atol=1e-5)
            if found.success is not None:
                assert bool(found.success[i]) == twin.wrong(expected.numpy(), y)
        assert (found.success is None) == (restarts == 1 and keep == "last")


def test_the_twins_problem_tells_the_choices_apart() -> None:
    model, _ = two_layers()
    x = torch.rand(4, 1, 2, 3, generator=seeded(5))
    base = PGD(threat=L2(eps=0.9), steps=6, rel_step=0.7)
    seen: list[Tensor] = []
    for change in (
        {}, {"loss": "margin"}, {"loss": "kl"}, {"targeted": True}, {"restarts": 3},
        {"return_iterate": "best"}, {"box": None}, {"steps": 5}, {"rel_step": 0.5}, {"threat": Linf(eps=0.5)},
        {"start": "none"},
    ):  # fmt: skip
        x_adv = base.replace(**change)(model, x, CLASSES, seeded(2))
        assert not any(torch.allclose(x_adv, other, atol=1e-3) for other in seen), change
        seen.append(x_adv)
    assert not torch.allclose(base(model, x, SOFT, seeded(2)), seen[0], atol=1e-3)


# --- robust accuracy never rises with more effort (T9)


@every_ball
def test_robust_accuracy_falls_with_restarts_steps_and_radius(ball: type, trained: Any) -> None:
    net, x, y = trained
    size = 0.05 if ball is Linf else 0.4
    base = PGD(threat=ball(eps=size), steps=2, rel_step=0.5, return_iterate="last")

    def robust(attack: PGD) -> tuple[float, Tensor]:
        x_adv = attack(net, x, y, seeded(0))
        return accuracy(net, x_adv, y), predicted(net, x_adv) != y

    clean = accuracy(net, x, y)
    assert clean > 0.9
    for changes in (
        [{"restarts": r} for r in (1, 2, 4, 8)],
        [{"return_iterate": "best", "steps": s, "rel_step": 0.8} for s in (0, 1, 2, 5, 10)],
        [{"return_iterate": "best", "restarts": r} for r in (1, 3, 6)],
        [
            {"return_iterate": "best", "steps": 10, "threat": ball.model_construct(eps=size * f)}
            for f in (0, 0.2, 0.5, 1, 2, 4)
        ],
    ):
        seen = [robust(base.replace(**c)) for c in changes]
        accuracies = [a for a, _ in seen]
        assert accuracies == sorted(accuracies, reverse=True)
        assert accuracies[0] > accuracies[-1]
        if "threat" not in changes[0]:  # the same stream: what was found stays found
            assert all((after >= before).all() for (_, before), (_, after) in pairwise(seen))


def test_the_worst_restart_is_kept_and_not_the_last(trained: Any) -> None:
    net, x, y = trained
    one, g = PGD(threat=Linf(eps=0.06), steps=1, rel_step=0.5), seeded(0)
    alone = torch.stack([predicted(net, one(net, x, y, g)) != y for _ in range(6)])
    together = one.replace(restarts=6).search(net, x, y, seeded(0))
    assert together.success is not None
    assert torch.equal(together.success, alone.any(dim=0))
    assert torch.equal(predicted(net, together.x_adv) != y, alone.any(dim=0))
    assert int(alone.any(dim=0).sum()) > int(alone[-1].sum())  # so the last alone would have been fewer


@every_ball
def test_an_undefended_net_has_no_accuracy_in_a_ball_of_the_whole_range(ball: type, trained: Any) -> None:
    net, x, y = trained
    whole = ball.model_construct(eps=1.0 if ball is Linf else 10.0)
    assert (
        accuracy(
            net, PGD(threat=whole, steps=20, rel_step=0.1, return_iterate="best")(net, x, y, seeded(0)), y
        )
        == 0
    )
    assert accuracy(net, PGD(threat=ball(eps=0))(net, x, y), y) == accuracy(net, x, y)


def test_what_a_search_reports_is_what_a_float32_evaluation_sees(trained: Any) -> None:
    net, x, y = trained
    for attack in (
        PGD(threat=Linf(eps=0.05), return_iterate="best"),
        PGD(threat=L2(eps=0.4), restarts=3, steps=3),
    ):
        found = attack.search(net, x, y, seeded(0))
        assert found.success is not None
        assert torch.equal(found.success, predicted(net, found.x_adv) != y)
        assert torch.equal(found.x_adv, attack(net, x, y, seeded(0)))
        assert (found.dead_gradients == 0).all()
    assert PGD().search(net, x, y).success is None


def test_kl_ignores_the_labels(trained: Any) -> None:
    net, x, y = trained
    attack = PGD(threat=Linf(eps=0.05), loss="kl", start="gauss", steps=5)
    assert torch.equal(attack(net, x, y, seeded(0)), attack(net, x, (y + 1) % 3, seeded(0)))
    moved = (attack(net, x, y, seeded(0)) - x).abs().amax(dim=(1, 2, 3))
    assert (moved > 0.04).all()


def test_starts_that_break_everything_leave_nothing_to_attack():
    class View(nn.Module):
        """Cannot take an empty batch."""

        def forward(self, x: Tensor) -> Tensor:
            return x.view(x.size(0), -1)[:, :3]

    x = torch.rand(5, 3, 4, 4)
    wrong = (View()(x).argmax(dim=1) + 1) % 3
    found = PGD(threat=Linf(eps=0.0), restarts=3, return_iterate="first").search(View().eval(), x, wrong)
    assert found.success is not None
    assert found.success.all()


class TestHowLongAStepIs:
    """A length or a share of eps: on a plane without box a step moves by exactly that."""

    @pytest.mark.parametrize("attack", [PGD, FGSM])
    @pytest.mark.parametrize(("given", "length"), [({"step_size": 0.003}, 0.003), ({"rel_step": 0.3}, 0.03)])
    @every_ball
    def test_one_step_moves_by_its_length(self, attack, ball, given, length):
        plane, x, y = plane_problem()
        a = make(attack, ball(eps=0.1), start="none", box=None, steps=1, **given)
        moved = a.threat.norm(a(plane, x, y) - x)
        torch.testing.assert_close(moved, torch.full((len(x),), length), rtol=1e-4, atol=0)

    def test_both_ways_are_the_same_attack(self):
        plane, x, y = plane_problem()
        share = PGD(threat=Linf(eps=0.1), rel_step=0.2, steps=3)
        assert torch.equal(
            share(plane, x, y, seeded(0)), share.replace(step_size=0.2 * 0.1)(plane, x, y, seeded(0))
        )

    def test_a_length_stays_with_another_eps_and_a_share_does_not(self):
        length, share = PGD(step_size="2/255"), PGD(rel_step=0.25)
        assert length.alpha == share.alpha == 2 / 255
        assert length.replace(threat=Linf(eps=4 / 255)).alpha == 2 / 255
        assert share.replace(threat=Linf(eps=4 / 255)).alpha == 1 / 255

    @pytest.mark.parametrize("attack", [PGD, FGSM])
    def test_one_of_the_two_is_given(self, attack):
        usual = attack()
        length = usual.replace(step_size="3/255")
        assert (length.rel_step, length.step_size) == (None, 3 / 255)
        assert length.replace(rel_step=0.5) == attack(rel_step=0.5)
        assert load_yaml(attack, length.yaml(), "f") == length
        assert attack(rel_step=None) == usual
        assert attack(rel_step=usual.rel_step).digest() == usual.digest()
        assert "step 3/255" in str(length)
        for wrong in ({"rel_step": 0.5, "step_size": 0.1}, {"rel_step": "2/255"}, {"step_size": 0}):
            with pytest.raises(UserError, match="step"):
                usual.replace(**wrong)
        for name in ("step", "alpha"):
            with pytest.raises(UserError, match=r"rel_step=.*step_size="):
                usual.replace(**{name: 0.1})

    def test_warm_up_of_eps_keeps_a_length(self):
        run = Run(recipe=AT(attack=PGD(step_size=2 / 255)), eps_warmup=4)
        attack = run.recipe_at(1).attack
        assert (attack.threat.eps, attack.alpha) == (2 / 255, 2 / 255)
