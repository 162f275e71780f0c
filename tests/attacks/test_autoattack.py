"""AutoAttack: it breaks what the closed form breaks, says why it refuses, and is told every setting."""

import logging
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attack_cases import Y, quick
from conftest import Plane, pictures, seeded, tiny_net
from crossclass.attacks import PGD, AutoAttack
from crossclass.attacks.norms import L2, Linf
from crossclass.attacks.sandbox import FrozenModule
from crossclass.core.errors import UserError


def right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(dim=1) == y


@pytest.mark.parametrize("part", ["apgd-ce", "fab", "square"])
def test_on_a_plane_it_breaks_exactly_what_the_closed_form_breaks(part: str) -> None:
    g = seeded(5)
    plane, x = Plane(torch.randn(48, generator=g)), torch.rand(40, 3, 4, 4, generator=g)
    y = (plane(x).argmax(dim=1) + (torch.arange(40) == 7)) % 2  # one is wrong from the start
    x[0] = plane.w.view(3, 4, 4).sign().clamp(0, 1)  # as deep in class 1 as the box allows
    y[0] = 1
    for eps in (0.06,) if part == "square" else (0.02, 0.06, 0.15):
        still = plane.margin(plane.worst_linf_in_box(x, y, eps), y) > 0
        many = {"queries": 600} if part == "square" else {"steps": 40}
        x_adv = quick(Linf(eps=eps), part, **many)(plane, x, y, seeded(0))
        found = right(plane, x_adv, y)
        assert not (still & ~found).any()  # beyond the closed form nothing can be broken
        missed = int((found & ~still).sum())
        assert missed <= (4 if part == "square" else 0)  # Square is a random search
        assert 0 < int(still.sum()) < 39
        assert torch.equal(x_adv[found], x[found])  # the clean image where nothing was found
        if part != "square":
            assert (plane.margin(x_adv, y)[~still] < 0).sum() == (~still).sum()


def test_on_a_plane_in_l2_it_breaks_exactly_what_the_closed_form_breaks() -> None:
    g = seeded(5)
    plane = Plane(torch.randn(48, generator=g))
    x = 0.4 + 0.2 * torch.rand(40, 3, 4, 4, generator=g)  # the box is out of reach
    y = plane(x).argmax(dim=1)
    distance = plane.margin(x, y) / float(plane.w.detach().norm())
    for share in (0.2, 0.5, 0.8):
        eps = float(distance.quantile(share))
        still = plane.worst(x, y, "l2", eps) > 0
        x_adv = quick(L2(eps=eps), "apgd-ce", "fab", steps=40)(plane, x, y, seeded(0))
        assert torch.equal(right(plane, x_adv, y), still)
        assert int(still.sum()) == round(40 * (1 - share))


@pytest.mark.parametrize("threat", [Linf(eps=0.04), L2(eps=0.8)], ids=str)
def test_pgd_100_never_beats_it(threat: Any, trained: Any) -> None:
    net, x, y = trained
    x, y = x[:20], y[:20]
    whole = AutoAttack(threat=threat, attacks=("apgd-ce", "apgd-dlr", "fab", "square"), steps=20, queries=50)
    left = right(net, whole(net, x, y, seeded(0)), y)
    pgd = right(net, PGD(threat=threat, steps=100, rel_step=0.05)(net, x, y, seeded(0)), y)
    one = right(net, quick(threat, "apgd-ce", steps=3)(net, x, y, seeded(0)), y)
    assert left.sum() <= pgd.sum()
    assert left.sum() <= one.sum()
    assert 0 < left.sum() < right(net, x, y).sum()


def test_few_classes_are_refused_for_dlr_with_a_way_out() -> None:
    for attack, needed, classes in (
        (AutoAttack(), "apgd-t needs 4", 3),
        (AutoAttack(version="rand"), "apgd-dlr needs 3", 2),
        (quick(Linf(), "fab", "apgd-t"), "apgd-t needs 4", 3),
    ):
        with pytest.raises(UserError, match=rf"{needed} classes .*model has {classes}; give attacks=\["):
            attack(tiny_net(classes=classes), pictures(2), torch.tensor([0, 1]), seeded(0))
    for classes, attack in (
        (2, quick(Linf(eps=0.4), "apgd-ce", "fab", "fab-t", "square")),
        (3, quick(Linf(eps=0.4), "apgd-dlr", "fab-t")),
        (4, quick(Linf(eps=0.4), "apgd-t", "fab-t")),  # fewer than 9 other classes: all are targets
        (6, quick(Linf(eps=0.4), "apgd-t")),
    ):
        net, x = tiny_net(classes=classes), pictures(4)
        y = net(x).argmax(dim=1)
        x_adv = attack(net, x, y, seeded(0))
        assert int(right(net, x_adv, y).sum()) < 4


def test_it_is_silent_and_the_log_is_as_before(capfd: pytest.CaptureFixture, caplog: Any) -> None:
    net, x = tiny_net(), pictures(4)
    with caplog.at_level(logging.DEBUG, "auto-attack"):
        # probabilities for logits: the library warns
        quick(Linf(eps=0.1))(lambda x: net(x).softmax(dim=1), x, Y[:4], seeded(0))
        assert caplog.records == []
        logging.getLogger("auto-attack").warning("heard")
    assert len(caplog.records) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(eps=0.03), L2(eps=0.15)], ids=str)
def test_the_standard_version_runs_whole(threat: Any) -> None:
    net, x = tiny_net(classes=10), pictures(8)
    y = net(x).argmax(dim=1)
    whole = AutoAttack(threat=threat)
    x_adv = whole(net, x, y, seeded(0))
    assert torch.equal(x_adv, whole(net, x, y, seeded(0)))
    assert right(net, x_adv, y).sum() <= right(net, PGD(threat=threat, steps=50)(net, x, y), y).sum()
    assert 0 < right(net, x_adv, y).sum() < 8


def as_the_original(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """In pyautoattack's place its original, where that differs: `attacks_to_run`, `bs`, images alone."""
    import pyautoattack

    made: list[dict[str, Any]] = []

    class Original:
        def __init__(
            self, model: nn.Module, *, verbose: bool, attacks_to_run: list[str], **same: Any
        ) -> None:
            made.append({"verbose": verbose, "attacks": attacks_to_run, **same})
            self.inner = pyautoattack.AutoAttack(model, attacks=attacks_to_run or None, **same)
            self.apgd, self.apgd_targeted = self.inner.apgd, self.inner.apgd_targeted
            self.fab, self.square = self.inner.fab, self.inner.square

        def run_standard_evaluation(self, x: Tensor, y: Tensor, bs: int = 250) -> Tensor:
            print("initial accuracy: 100%")
            made[-1]["bs"] = bs
            return self.inner.run_standard_evaluation(x, y, batch_size=bs)[0]

    module = types.ModuleType("autoattack")
    module.AutoAttack = Original  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "autoattack", module)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)  # as if it were not installed
    return made


def test_an_installed_original_does_as_well(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    net, x = tiny_net(), pictures(4)
    y, attack = net(x).argmax(dim=1), quick(Linf(eps=0.4), "apgd-ce", batch=3)
    expected = attack(net, x, y, seeded(0))
    made = as_the_original(monkeypatch)
    assert torch.equal(attack(net, x, y, seeded(0)), expected)
    assert made[0]["attacks"] == ["apgd-ce"]
    assert (made[0]["version"], made[0]["verbose"], made[0]["bs"]) == ("custom", False, 3)
    assert isinstance(made[0]["seed"], int)
    assert capfd.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "autoattack", None)
    with pytest.raises(UserError, match=r"pip install 'crossclass\[aa\]'"):
        attack(net, x, y, seeded(0))


def test_the_settings_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyautoattack

    seen: list[Any] = []

    def run(self: Any, x: Tensor, y: Tensor, /, *, batch_size: int) -> Any:
        apgd, targeted = self.apgd, self.apgd_targeted
        seen.append(
            {
                "norm": (self.norm, apgd.norm, self.fab.norm),
                "eps": (self.epsilon, targeted.eps, self.square.eps),
                "attacks": tuple(self.attacks_to_run),
                "steps": (apgd.n_iter, targeted.n_iter, self.fab.n_iter),
                "checks": (apgd.n_iter_2, targeted.n_iter_min, apgd.size_decr),
                "queries": self.square.n_queries,
                "restarts": (apgd.n_restarts, targeted.n_restarts, self.fab.n_restarts),
                "targets": (targeted.n_target_classes, self.fab.n_target_classes),
                "batch": batch_size,
            }
        )
        assert isinstance(self.model, FrozenModule)
        return x, y

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", run)
    x, y = pictures(5), Y
    AutoAttack()(tiny_net(classes=12), x, y, seeded(0))
    AutoAttack(version="rand", threat=L2(eps=1))(tiny_net(classes=5), x, y, seeded(0))
    quick(L2(eps=2), "fab", "square", batch=7, steps=50, queries=9)(tiny_net(), x, y, seeded(0))
    assert seen[0] == {
        "norm": ("Linf",) * 3, "eps": (8 / 255,) * 3, "attacks": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "steps": (100, 100, 100), "checks": (22, 6, 3), "queries": 5000, "restarts": (1, 1, 1),
        "targets": (9, 9), "batch": 250,
    }  # fmt: skip
    assert seen[1]["attacks"] == ("apgd-ce", "apgd-dlr")
    assert seen[1]["targets"] == (4, 4)
    assert seen[2] == {
        "norm": ("L2",) * 3, "eps": (2.0,) * 3, "attacks": ("fab", "square"), "steps": (50, 50, 50),
        "checks": (11, 3, 1), "queries": 9, "restarts": (5, 1, 5), "targets": (2, 2), "batch": 7,
    }  # fmt: skip
