"""One cause is named, what follows from it is folded below it, and the end is one sentence about it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import seeded
from crossclass.data import Splits
from crossclass.diagnostics import examine, verdict
from crossclass.diagnostics.causes import CONSEQUENCES, fold
from crossclass.diagnostics.findings import FINDINGS, Finding, finding
from faulty_networks import FULL, QUICK, Small, by_name, relabelled


def roots(found: list[Finding]) -> list[str]:
    return [f.name for f in found if f.level != "fine" and not f.follows_from]


def following(found: list[Finding]) -> dict[str, str]:
    return {f.name: f.follows_from for f in found if f.follows_from}


def wrong(*names: str, level: Any = "fault") -> list[Finding]:
    return [finding(name, level, True, "seen", "do this") for name in names]


# ---------------------------------------------------------------- networks


def constants(mean: float, std: float) -> Callable[[Small], None]:
    def plant(net: Small) -> None:
        net.mean, net.std = torch.full((1, 1, 1, 1), mean), torch.full((1, 1, 1, 1), std)

    return plant


def untrained(net: Small) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        fresh = Small(3, 3)
    net.load_state_dict(fresh.state_dict())


def zeros(net: Small) -> None:
    nn.init.zeros_(net.conv.weight)


def moved_statistics(net: Small) -> None:
    net.bn.running_mean.copy_(3 * torch.randn(8, generator=seeded(5)))


def softmax(net: Small) -> None:
    net.after = lambda z, x: (30 * z).softmax(dim=1)


def rotated(y: Tensor) -> Tensor:
    return (y + 1) % 3


def view(how: Callable[[Tensor], Tensor]) -> Callable[[Small], None]:
    def plant(net: Small) -> None:
        net.before = how

    return plant


CAUSES: dict[str, tuple[str, Callable[[Small], None], dict[str, Any]]] = {
    "never normalised": ("wrong-normalisation", constants(0.0, 1.0), {"net": "imagenet"}),
    "normalised twice": ("normalised-twice", constants(1.0, 0.25), {}),
    "blue, green, red": ("wrong-channel-order", view(lambda x: x.flip(1)), {}),
    "transposed": ("transposed-images", view(lambda x: x.transpose(2, 3)), {}),
    "numbered otherwise": ("permuted-labels", lambda net: None, {"labels": rotated}),
    "normalised twice and numbered otherwise": ("permuted-labels", constants(1.0, 0.25), {"labels": rotated}),
    "untrained": ("chance-accuracy", untrained, {}),
    "zeros": ("zero-layers", zeros, {}),
    "statistics of other images": ("stale-batch-norm", moved_statistics, {}),
    "softmax": ("softmax-outputs", softmax, {"settings": FULL}),
}


@pytest.mark.parametrize("case", CAUSES)
def test_one_cause_is_named(case: str, nets: dict[str, Small], data: Splits):
    cause, plant, how = CAUSES[case]
    net = copy.deepcopy(nets[how.get("net", "none")])
    plant(net)
    splits = relabelled(how["labels"])(data) if "labels" in how else data
    found = examine(net, splits, how.get("settings", QUICK))
    others = ["normalised-twice"] if " and " in case else []
    assert roots(found) == [cause, *others]
    assert set(following(found).values()) <= {cause, *others}
    assert verdict(found).startswith(f"The cause is {cause} (")


def test_stale_statistics_follow_from_a_wrong_normalisation(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["imagenet"])
    constants(0.0, 1.0)(net)
    found = examine(net, data, QUICK)
    assert following(found)["stale-batch-norm"] == "wrong-normalisation"
    assert "stale-batch-norm follow" in verdict(found)


def test_the_attack_examines_the_network_with_the_inputs_that_it_wants(nets: dict[str, Small], data: Splits):
    name = "attack-without-effect"
    sound = by_name(examine(copy.deepcopy(nets["none"]), data, QUICK))[name]
    turned = by_name(examine(copy.deepcopy(nets["none"]), relabelled(rotated)(data), QUICK))[name]
    assert turned.numbers == sound.numbers
    net = copy.deepcopy(nets["none"])
    net.before = lambda x: x.flip(1)
    assert by_name(examine(net, data, QUICK))[name].numbers["0 eps"] == sound.numbers["0 eps"]


def test_ties_are_called_ties(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["imagenet"])
    constants(0.0, 1.0)(net)
    remedy = by_name(examine(net, data, QUICK))["wrong-normalisation"].remedy
    assert "these images cannot tell which" in remedy
    assert remedy.count("model.normalise=") > 1


# ---------------------------------------------------------------- folding


def test_every_finding_has_its_place_among_the_causes_or_below_one():
    below = {name for names in CONSEQUENCES.values() for name in names}
    assert set(CONSEQUENCES) | below <= set(FINDINGS)
    assert set(FINDINGS) - set(CONSEQUENCES) - below == {"frozen-batch-norm"}, "worth knowing, and no cause"


def test_consequences_hang_below_the_first_cause():
    found = fold(wrong("unpredicted-classes", "chance-accuracy", "zero-layers", "constant-outputs"))
    assert [f.name for f in found] == [
        "zero-layers", "unpredicted-classes", "chance-accuracy", "constant-outputs"
    ]  # fmt: skip
    assert set(following(found).values()) == {"zero-layers"}
    assert {f.remedy for f in found[1:]} == {"mend zero-layers, then examine again"}


def test_a_cause_never_follows_from_its_own_consequence():
    stale = fold(wrong("never-updated-batch-norm", "stale-batch-norm", "chance-accuracy"))
    assert roots(stale) == ["never-updated-batch-norm"]
    untrained = fold(wrong("never-updated-batch-norm", "chance-accuracy"))
    assert roots(untrained) == ["chance-accuracy"]


def test_what_was_measured_to_follow_stays_so():
    first, second = wrong("stale-batch-norm", "wrong-normalisation")
    found = fold([Finding(**{**vars(first), "follows_from": "wrong-normalisation"}), second])
    assert following(found) == {"stale-batch-norm": "wrong-normalisation"}


def test_the_most_serious_cause_comes_first_and_the_rest_is_said():
    found = fold([*wrong("log-softmax-outputs", level="warning"), *wrong("stale-batch-norm")])
    assert roots(found) == ["stale-batch-norm", "log-softmax-outputs"]
    assert "apart from it: log-softmax-outputs" in verdict(found)


def test_a_verdict_without_a_fault():
    fine = [finding(name, "fault", False, "", "") for name in FINDINGS]
    assert verdict(fine).startswith("Sound: ")
    assert verdict(fold([*fine[1:], *wrong("not-examined", level="note")])).startswith("No fault, but ")
