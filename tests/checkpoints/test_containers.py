"""Several networks, or parts of one, in one file: which is read, and what is asked."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from crossclass.checkpoints import match_state_dict as matching, state_dicts
from crossclass.core.errors import UserError
from small_state_dicts import MU, SIGMA, Net, filled, refused, same, small, under


def test_the_first_by_convention_wins_and_the_other_is_named() -> None:
    for first, second in (("state_dict", "ema"), ("model", "model_ema"), ("best", "last"), ("net", "odd")):
        net = Net()
        fit = matching.load(net, {second: small(1), first: small(0)}, where="file")
        assert same(net.state_dict(), small(0))
        assert fit.notes == [
            f"container '{first}'",
            f"container '{second}' fits as well and was not taken (weights.container={second} takes it)",
        ]
    # convention before the number of strips
    net = Net()
    matching.load(net, {"ema": small(1), "state_dict": under("module.", small(0))}, where="file")
    assert same(net.state_dict(), small(0))
    # but only among equals: one that fits better wins, and then there is nothing to say
    fit = matching.fit(Net(), {"state_dict": small(0, classes=5), "ema": small(1)})
    assert fit.notes == ["container 'ema'"]
    # among equals in one container the one without a prefix
    fit = matching.fit(Net(), {**under("model.", small(0)), **small(0)})
    assert not any("prefix" in note for note in fit.notes)
    assert not fit.partial


def test_parts_saved_apart_are_joined() -> None:
    net = nn.ModuleDict({"body": Net(), "top": nn.Linear(3, 2)})
    file = {"top": {"weight": torch.ones(2, 3), "bias": torch.ones(2)}, "body": small()}
    assert not matching.load(net, file, where="file").partial
    assert same(net["body"].state_dict(), small())


WORD = st.sampled_from(["module", "_orig_mod", "model", "1", "net", "backbone", "odd", "wrapped", "state"])


@settings(max_examples=60)
@given(
    layers=st.lists(st.sampled_from(["conv", "bn", "fc"]), min_size=1, max_size=4),
    prefixes=st.lists(WORD, max_size=4),
    containers=st.lists(WORD | st.sampled_from(["state_dict", "ema", "best"]), max_size=3),
    inside=st.lists(st.sampled_from(["net", "module", "own"]), max_size=2),
    constants=st.booleans(),
)
def test_any_nesting_is_undone_exactly(
    layers: list[str], prefixes: list[str], containers: list[str], inside: list[str], constants: bool
) -> None:
    kinds = {"conv": (nn.Conv2d, 3, 2, 3), "bn": (nn.BatchNorm2d, 2), "fc": (nn.Linear, 2, 3)}
    net: nn.Module = nn.ModuleDict({f"{k}{i}": kinds[k][0](*kinds[k][1:]) for i, k in enumerate(layers)})
    file = filled({k: tuple(v.shape) for k, v in net.state_dict().items()}, seed=3)
    tree: dict[str, Any] = under("".join(f"{p}." for p in prefixes), file)
    if constants:
        tree |= under("".join(f"{p}." for p in prefixes[:1]), {"mu": MU, "sigma": SIGMA})
    for container in containers:
        tree = {container: tree, "epoch": torch.tensor(3)}
    whole = net
    for name in inside:
        whole = nn.ModuleDict({name: whole})
    fit = matching.load(whole, tree, where="file")
    assert same(dict(net.state_dict()), file)
    assert (fit.normalisation is not None) == constants
    assert len(fit.state) == len(file)
    stripped = [n for n in fit.notes if n.startswith(("container", "prefix")) and "not taken" not in n]
    assert len(stripped) <= len(prefixes) + bool(containers)


# ---- Several networks in one file. ----


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"0": small(0), "1": small(1)}, ["0", "1"]),
        ({"odd": small(0), "other": small(1)}, ["odd", "other"]),
        ({"a": {"state_dict": small(0)}, "b": {"state_dict": small(1)}}, ["a.state_dict", "b.state_dict"]),
    ],
)
def test_several_networks_are_a_question_that_the_container_answers(
    tree: dict[str, Any], names: list[str]
) -> None:
    message = refused(Net(), tree)
    n = sum(tensor.numel() for tensor in small().values())
    assert f"2 networks that fit equally, of {n} numbers each: {', '.join(names)}" in message
    assert f"weights.container={names[0]}" in message
    for seed, name in enumerate(names):
        net = Net()
        matching.load(net, state_dicts.select(tree, name, "f"), where="f")
        assert same(net.state_dict(), small(seed))


def test_copies_are_no_question() -> None:
    assert matching.load(Net(), {"0": small(0), "1": small(0)}, where="f").rivals == []


def test_a_container_may_be_nested_have_dots_or_be_a_prefix() -> None:
    tree = {"a.b": {"c": small(0)}, "net": {**under("student.", small(1)), **under("teacher.", small(2))}}
    for name, seed in (("a.b.c", 0), ("net.student", 1), ("net.teacher", 2)):
        assert same(dict(state_dicts.select(tree, name, "f")), small(seed))
    with pytest.raises(UserError, match=r"f has no container 'ema' \(weights.container\); there are"):
        state_dicts.select(tree, "ema", "f")


# ---- What the module's own load_state_dict knows. ----


@pytest.mark.parametrize("names", [("student", "teacher"), ("encoder_q", "encoder_k")])
def test_two_networks_under_prefixes_are_a_question(names):
    a, b = names
    file = {**under(f"{a}.", small()), **under(f"{b}.", {k: v + 1 for k, v in small().items()})}
    message = refused(Net(), file)
    assert f"choose one with weights.container={min(names)}" in message
    assert "--allow-partial" not in message
    chosen = Net()
    matching.load(chosen, state_dicts.select(file, a, "f"), where="f")
    assert same(dict(chosen.state_dict()), small())
