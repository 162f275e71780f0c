"""External attacks: their result is checked; settings; in training and in evaluation."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attack_cases import Y, external, mixed, quick, state
from conftest import Forwards, Tripped, pictures, seeded, tiny_net
from crossclass.analysis.evaluate import evaluate
from crossclass.attacks import AnyAttack, AutoAttack, External
from crossclass.attacks.norms import L2, Linf
from crossclass.core import config
from crossclass.core.errors import UserError
from crossclass.core.overrides import override
from crossclass.core.plugins import members
from crossclass.data import Split
from crossclass.training.recipes import AT

pytestmark = pytest.mark.usefixtures("trusted")

# --- what comes back is measured


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("first_only", {}, r"returned shape \[1, 3, 6, 6\] for images of shape \[5, 3, 6, 6\]"),
        ("pairs", {}, "returned a tuple of 2; it must return the images alone"),
        ("as_bytes", {}, r"returned torch\.uint8"),
        ("one_nan", {}, "NaN or infinity in 1 of 5 images"),
        ("in_255", {}, r"moved an image by 254.*images up to 255: in 0\.\.255\? divide by 255"),
        ("moves", {"by": 8.0, "clip": False}, r"moved an image by 8, .*eps in 0\.\.255 units\? give 25\.5/"),
        ("moves", {"by": 8.0}, r"moved an image by 1, 0\.9 more than l_inf 25\.5/255.*0\.\.255 units"),
        ("moves", {"by": 0.15}, r"moved an image by 0\.15, 0\.05 more than .*must agree"),
        ("raises_pixels", {"by": 0.05}, r"left \[0, 1\]: found \[0\.05, 1\.05\]"),
        ("raises_pixels", {"by": -0.05}, r"left \[0, 1\]: found \[-0\.05, 0\.95\]"),
        ("ascent", {"eps": 0.1, "stps": 3}, "raised TypeError: ascent.. got an unexpected keyword .*stps"),
        ("no_such", {}, "'external_attacks' has no 'no_such'"),
    ],
)  # fmt: skip
def test_a_wrong_result_is_one_sentence(name: str, arguments: Any, said: str) -> None:
    model = mixed()
    before = state(model)
    with pytest.raises(UserError, match=said) as caught:
        external(name, **arguments)(model, pictures(5), Y, seeded(0))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(
        "'external_attacks'" if name == "no_such" else f"external_attacks:{name} "
    )
    assert state(model) == before


def test_the_unit_trap_names_the_radius_as_people_write_it() -> None:
    with pytest.raises(UserError, match=r"eps in 0\.\.255 units\? give 8/255\)"):
        external("moves", Linf(), by=8.0, clip=False)(tiny_net(), pictures(5), Y)


@pytest.mark.parametrize(("threat", "tolerance"), [(Linf(eps=0.1), 1e-6), (L2(eps=0.5), 1e-5)], ids=str)
def test_excess_by_rounding_is_removed_and_more_is_refused(threat: Any, tolerance: float) -> None:
    x = 0.3 + 0.4 * torch.rand(5, 3, 6, 6, generator=seeded(1))
    per_pixel = 1 if threat.kind == "linf" else 108**-0.5
    for excess in (-0.01, 0.5 * tolerance, 2.5 * tolerance):
        attack = external("moves", threat, by=(threat.eps + excess) * per_pixel)
        if excess > tolerance:
            with pytest.raises(UserError, match=r"more than l_.* allows"):
                attack(tiny_net(), x, Y)
            continue
        size = threat.norm(attack(tiny_net(), x, Y) - x)
        expected = min(threat.eps, threat.eps + excess)
        torch.testing.assert_close(size, torch.full((5,), expected), rtol=0, atol=1.5e-7)
    outside = external("raises_pixels", threat, by=5e-7)(tiny_net(), pictures(5), Y)
    assert float(outside.max()) == 1.0


def test_the_input_cannot_be_spoiled_to_look_unmoved() -> None:
    with pytest.raises(UserError, match=r"moved an image by 0\.05"):
        external("spoils_its_input", Linf(eps=0.01))(tiny_net(), pictures(5), Y)


def test_doubles_that_require_gradients_in_another_layout_come_back_as_the_images_were() -> None:
    found = external("in_double").search(tiny_net(), pictures(5), Y, seeded(0))
    assert torch.equal(found.x_adv, pictures(5))
    assert found.x_adv.dtype == torch.float32
    assert found.x_adv.is_contiguous()
    assert not found.x_adv.requires_grad
    assert found.success is None
    assert found.dead_gradients.tolist() == [0] * 5


def test_errors_that_are_not_the_attacks_own_pass() -> None:
    with pytest.raises(UserError, match=r"raised Tripped$") as caught:
        external("goes_backward")(Forwards(tiny_net(), 0), pictures(5), Y)
    assert isinstance(caught.value.__cause__, Tripped)

    def interrupts(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    def fills_memory(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    for model, expected in ((interrupts, KeyboardInterrupt), (fills_memory, torch.OutOfMemoryError)):
        with pytest.raises(expected):  # type: ignore[arg-type]
            external("ascent", eps="eps")(model, pictures(5), Y)


# --- settings


def test_settings_round_trip_and_say_every_condition() -> None:
    attack = external("ascent", L2(eps="128/255"), eps="eps", steps=7)
    again = config.load_yaml(External, attack.yaml(), "f")
    assert again == attack
    assert hash(again) == hash(attack)
    assert hash(attack) != hash(attack.replace(arguments={}))
    assert attack.digest() != attack.replace(call="external_attacks:stays").digest()
    assert str(attack) == "external_attacks:ascent(eps=eps, steps=7), l_2 128/255"
    assert str(AutoAttack()) == "AutoAttack standard, l_inf 8/255"
    reduced = AutoAttack(attacks=("apgd-ce", "fab"), steps=7, queries=50, batch=10, threat=L2(eps=0.5))
    assert str(reduced) == (
        "AutoAttack custom (apgd-ce + fab), l_2 127.5/255, 7 steps, 50 queries, batches of 10"
    )
    assert str(AutoAttack(version="rand")) == "AutoAttack rand, l_inf 8/255"
    assert config.load_yaml(AutoAttack, reduced.yaml(), "f") == reduced
    made = override(AT(), {"attack.kind": "external", "attack.call": "external_attacks:stays"})
    assert made.attack == External(call="external_attacks:stays")
    for member in members(AnyAttack):
        assert member().for_evaluation() == member()


def test_settings_that_make_no_sense_are_refused() -> None:
    for cls, given, said in (
        (External, {"call": "no colon"}, "MODULE:FUNCTION"),
        (External, {"arguments": [1]}, "arguments"),
        (AutoAttack, {"attacks": []}, "attacks"),
        (AutoAttack, {"attacks": ["pgd"]}, "attacks"),
        (AutoAttack, {"attacks": ["fab"], "version": "plus"}, "version=plus has its own list"),
        (AutoAttack, {"steps": 10}, "standard means 100 steps and 5000 queries"),
        (AutoAttack, {"queries": 10, "version": "rand"}, "rand means 100 steps"),
    ):
        with pytest.raises(UserError) as caught:
            config.validated(cls, given)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"give call=MODULE:FUNCTION"):
        External()(tiny_net(), pictures(5), Y)


# --- in training and in evaluation (T18)


def trained(evaluate: Any, recipe: AT, epochs: int = 2) -> nn.Module:
    """A loop as users write it: dropout draws from the global stream, evaluation stands between epochs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x, y = tiny_net().train(), pictures(20), torch.arange(20) % 3
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for epoch in range(epochs):
            for step, rows in enumerate(torch.randperm(20).split(5)):
                x_adv = recipe.craft(model, x[rows], y[rows], seeded(100 * epoch + step))
                loss, _ = recipe.loss(model, x[rows], x_adv, y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if evaluate is not None:
                evaluate(model, x[:5], y[:5], seeded(epoch))
    return model


def test_training_against_an_external_attack_works_and_evaluating_never_moves_it() -> None:
    recipe = AT(attack=external("ascent", eps="eps"))
    plain = trained(None, recipe)
    assert not torch.equal(plain.head.weight, tiny_net().head.weight)
    assert int(plain.bn.num_batches_tracked) == 5 + 8  # one forward in train mode per step, crafting none
    for attack in (quick(Linf(eps=0.4)), external("seeds_by_the_clock"), external("goes_backward")):
        other = trained(attack, recipe)
        for (name, a), b in zip(plain.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_an_evaluation_counts_no_dead_gradients_of_external_attacks(trained_split: Any) -> None:
    model, split = trained_split
    for attack in (external("stays"), quick(Linf(eps=0.05))):
        seen = evaluate(model, split, attack, batch=8)
        assert seen.dead == 0
        assert len(seen.robust) == 20
    assert torch.equal(evaluate(model, split, external("stays")).robust, seen.clean)


@pytest.fixture
def trained_split(trained: Any) -> Any:
    from crossclass.models import Classifier

    class Outputs(Classifier):
        def __init__(self, net: nn.Module) -> None:
            super().__init__((0.0,), (1.0,))
            self.net, self.head = net, net.head

        def features(self, x: Tensor) -> Tensor:
            n = self.net
            return n.drop(n.act(n.bn(n.conv(x)))).flatten(1)

    net, x, y = trained
    return Outputs(net).eval(), Split((x[:20] * 255).round().to(torch.uint8), y[:20])
