"""Tensors that change their names or types on the way into a network, and states that are no tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from crossclass.checkpoints import file_formats, match_state_dict as matching
from small_state_dicts import Net, Normalised, refused, small, under


def renaming(*pairs: tuple[str, str]) -> nn.Module:
    net = Net()
    net.renames = pairs
    return net


def test_a_module_may_know_other_names() -> None:
    file = {n.replace("fc.", "classifier."): t for n, t in small().items()}
    assert not matching.fit(renaming((r"^classifier\.", "fc.")), file).partial
    assert not matching.fit(Normalised(renaming((r"^classifier\.", "fc."))), file).partial
    assert not matching.fit(renaming((r"^class", "f"), (r"^fifier\.", "fc.")), file).partial
    assert matching.fit(Net(), file).partial
    # a rename that would spoil a fit is not used
    assert not matching.fit(renaming((r"^fc\.", "head.")), small()).partial


def test_a_rename_never_takes_a_name_that_is_there() -> None:
    stem = {n.replace("conv.", "stem."): t for n, t in small().items()}
    both = {**stem, "classifier.weight": small(1)["fc.weight"]}
    fit = matching.fit(renaming((r"^stem\.", "conv."), (r"^classifier\.", "fc.")), both)
    assert torch.equal(fit.state["fc.weight"], small()["fc.weight"])
    assert fit.unexpected == ["classifier.weight"]
    twice = {n: t for n, t in both.items() if n != "fc.weight"} | {"top.weight": small(2)["fc.weight"]}
    fit = matching.fit(renaming((r"^stem\.", "conv."), (r"^(classifier|top)\.", "fc.")), twice)
    assert torch.equal(fit.state["fc.weight"], small(1)["fc.weight"])
    assert fit.unexpected == ["top.weight"]


def test_half_precision_is_widened_and_integers_are_not() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        halves = {k: v.to(dtype) if v.is_floating_point() else v for k, v in small().items()}
        fit = matching.fit(Net(), halves)
        assert {v.dtype for v in fit.state.values()} == {torch.float32, torch.int64}
        assert torch.equal(fit.state["fc.weight"], halves["fc.weight"].float())
    doubles = matching.fit(Net(), {k: v.double() for k, v in small().items()})
    assert doubles.state["fc.weight"].dtype == torch.float64


@pytest.mark.parametrize("norm_of", [weight_norm, spectral_norm])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_old_and_new_names_of_weight_norm_are_one(norm_of: Any) -> None:
    old_norm = torch.nn.utils.weight_norm if norm_of is weight_norm else torch.nn.utils.spectral_norm
    x = torch.rand(2, 4)
    old, new = (nn.Sequential(norm(nn.Linear(4, 3)), nn.Linear(3, 2)).eval() for norm in (old_norm, norm_of))
    for source, target in ((old, new), (new, old)):
        for parameter in source.parameters():
            nn.init.normal_(parameter)
        file = under("module.", dict(source.state_dict()))
        fit = matching.load(target, {"state_dict": file}, where="f")
        assert not fit.partial
        assert torch.allclose(source(x), target(x), atol=1e-6)


class Versioned(nn.Module):
    """Its older files hold the weight under another name, and doubled."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *rest: Any) -> None:
        if local.get("version", 1) < 2:
            if prefix + "old" in state:
                state[prefix + "weight"] = state.pop(prefix + "old") / 2
            elif prefix + "weight" in state:
                state[prefix + "weight"] = state[prefix + "weight"] / 2
        super()._load_from_state_dict(state, prefix, local, *rest)


@pytest.mark.parametrize("name", ["old", "weight"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_versions_and_hooks_of_a_module_are_followed_once(name: str, prefix: str, tmp_path: Path) -> None:
    net = nn.ModuleDict({"a": Versioned(), "b": nn.Linear(3, 2)})
    before = net["a"].weight.detach().clone()
    rest = {k: v for k, v in net.state_dict().items() if k.startswith("b")}
    fit = matching.load(net, under(prefix, {f"a.{name}": torch.full((3,), 4.0), **rest}), where="f")
    assert not fit.partial
    assert torch.equal(net["a"].weight, torch.full((3,), 2.0))
    assert not torch.equal(net["a"].weight, before)
    outer = nn.DataParallel(net) if prefix else net
    torch.save(outer.state_dict(), tmp_path / "a.pt")  # of today's version: nothing is halved
    matching.load(net, file_formats.read(tmp_path / "a.pt"), where="f")
    assert torch.equal(net["a"].weight, torch.full((3,), 2.0))


class Counting(nn.Linear):
    """Keeps what is no tensor."""

    seen: Any = None

    def get_extra_state(self) -> Any:
        return {"seen": self.seen}

    def set_extra_state(self, state: Any) -> None:
        self.seen = state["seen"]


def test_extra_state_is_loaded_and_missed(tmp_path: Path) -> None:
    source, net = nn.Sequential(Counting(2, 2)), nn.Sequential(Counting(2, 2))
    source[0].seen = [3, "four"]
    torch.save({"state_dict": source.state_dict()}, tmp_path / "a.pt")
    matching.load(net, file_formats.read(tmp_path / "a.pt"), where="f")
    assert net[0].seen == [3, "four"]
    plain = {k: v for k, v in source.state_dict().items() if "extra" not in k}
    assert matching.fit(net, plain).missing == ["0._extra_state"]


def test_kinds_of_numbers_are_converted_with_a_line_or_refused() -> None:
    fit = matching.fit(Net(), {k: v.half() if v.is_floating_point() else v for k, v in small().items()})
    assert "float16 made float32: 8 tensors" in fit.notes
    for kind in (torch.int8, torch.complex64, torch.bool):
        whole = {k: v.to(kind) if k == "conv.weight" else v for k, v in small().items()}
        assert f"conv.weight is {kind}, the model's torch.float32" in refused(Net(), whole)
