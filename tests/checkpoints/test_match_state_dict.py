"""Files as they lie about, by their literal names, find their place in a module, or are refused by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from conftest import seeded
from crossclass.checkpoints import file_formats, match_state_dict as matching, state_dicts
from crossclass.core.errors import UserError
from crossclass.models import PreActResNet, ResNet, ViT, WideResNet
from published_networks import (
    Shapes,
    norm,
    official_deit,
    official_preactresnet18,
    official_resnet,
    official_wideresnet,
)

Weights = dict[str, Tensor]
MU, SIGMA = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])


def filled(shapes: Shapes, seed: int = 0) -> Weights:
    """Random values, positive variances; what torch counts is an integer."""
    g = seeded(seed)
    tensors = {name: torch.rand(shape, generator=g) + 0.1 for name, shape in shapes.items()}
    return {n: torch.tensor(seed + 7) if n.endswith("tracked") else t for n, t in tensors.items()}


def under(prefix: str, tensors: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in tensors.items()}


# ---- The files, and the networks they belong into. ----

PRN = PreActResNet(width=2, normalise="none")
NETS: dict[str, Callable[[], nn.Module]] = {
    "preact": lambda: PRN(10, 3, (0.0,), (1.0,)),
    "resnet": lambda: ResNet(width=2, pool=4, normalise="none")(200, 3, (0.0,), (1.0,), 64),
    "wrn": lambda: WideResNet(widen=2, normalise="none")(10, 3, (0.0,), (1.0,)),
    "deit": lambda: ViT(width=4, heads=1, normalise="none")(10, 3, (0.0,), (1.0,), 32),
}
PLAIN: dict[str, Weights] = {
    "preact": filled(official_preactresnet18(width=2)),
    "resnet": filled(official_resnet((2, 2, 2, 2), width=2, classes=200, features=64)),
    "wrn": filled(official_wideresnet(34, 2)),
    "deit": filled(official_deit(width=4)),
}
MART = {name: tensor for name, tensor in PLAIN["wrn"].items() if "sub_block1" not in name}
AVERAGE = {name: tensor + 1 for name, tensor in PLAIN["deit"].items()}
NORMALIZER = {"new_mean": MU.view(3, 1, 1), "new_std": SIGMA.view(3, 1, 1)}


def madry(tensors: Weights) -> Weights:
    return {
        **under("module.normalizer.", NORMALIZER),
        **under("module.model.", tensors),
        **under("module.attacker.normalize.", NORMALIZER),
        **under("module.attacker.model.", {k: v.clone() for k, v in tensors.items()}),
    }


P = PLAIN["preact"]
MUS = {"mu": MU.view(1, 3, 1, 1), "sigma": SIGMA.view(1, 3, 1, 1)}
FILES: dict[str, tuple[str, Any]] = {
    "PKU-ML preactresnet18": ("preact", P),
    "PKU-ML resnet18, 2048 features": ("resnet", PLAIN["resnet"]),
    "torchvision's name of the head": (
        "resnet",
        {re.sub("^linear", "fc", n): t for n, t in PLAIN["resnet"].items()},
    ),
    "Rice 2020": ("preact", under("module.", P)),
    "Rice 2020, run": ("preact", {"epoch": 3, "state_dict": under("module.", P), "opt": {"lr": 0.1}}),
    "Bag of tricks": ("preact", {"state_dict": under("module.", P), "test_robust_acc": 0.5}),
    "AWP": ("preact", {"state_dict": under("module.", P), "opt_state_dict": {"state": {0: {"buffer": MU}}}}),
    "TRADES WRN-34-10": ("wrn", under("module.", PLAIN["wrn"])),
    "MART WRN-34-10": ("wrn", {"state_dict": under("module.", MART)}),
    "RobustBench, mu and sigma": ("preact", {**MUS, **P}),
    "RobustBench, normalize": (
        "preact",
        {"normalize.mean": MU, "normalize.std": SIGMA, **under("model.", P)},
    ),
    "RobustBench, sequential": ("wrn", {"0.mean": MU, "0.std": SIGMA, **under("1.", PLAIN["wrn"])}),
    "timm DeiT": ("deit", {"model": PLAIN["deit"], "args": "Namespace"}),
    "timm with an average": ("deit", {"state_dict_ema": AVERAGE, "state_dict": PLAIN["deit"], "epoch": 1}),
    "Madry": ("resnet", {"model": madry(PLAIN["resnet"]), "epoch": 9}),
    "Madry, WRN": ("wrn", {"model": madry(PLAIN["wrn"])}),
    "compiled outside": ("preact", under("_orig_mod.module.", P)),
    "compiled inside": ("preact", {"net": under("module._orig_mod.", P), "acc": 91.2}),
    "SWA": ("preact", {"n_averaged": torch.tensor(5), **under("module.", P)}),
    "SWA container": ("preact", {"swa_state_dict": under("module.module.", P)}),
    "self-adaptive": ("preact", {"rmodel": {"state_dict": under("module.backbone.", P)}}),
    "Lightning": ("preact", {"state_dict": under("model.", P), "pytorch-lightning_version": "2"}),
    "thop": ("preact", {**P, "total_ops": torch.zeros(1).double(), "layer1.total_params": torch.zeros(1)}),
}


def flattened(value: Any, prefix: str = "") -> Weights:
    """A tree without nesting, as npz and safetensors files are; of several networks the first alone."""
    flat: Weights = {}
    for key, inner in value.items():
        if isinstance(inner, Tensor):
            flat[prefix + key] = inner
        elif isinstance(inner, dict) and not key.startswith(("opt", "state_dict_ema")):
            flat |= flattened(inner, f"{prefix}{key}.")
    return flat


def holds(net: nn.Module, tensors: Weights) -> bool:
    """Whether every tensor of the net (but its normalisation) is the file's, whatever the head is called."""
    file = {re.sub(r"^(linear|fc)\.", "head.", name): tensor for name, tensor in tensors.items()}
    return all(torch.equal(t, file[n]) for n, t in net.state_dict().items() if n not in ("mean", "std"))


@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
@pytest.mark.parametrize("name", FILES)
def test_files_of_the_field_load(name: str, nested: bool, tmp_path: Path) -> None:
    family, value = FILES[name]
    net = NETS[family]()
    torch.save(value if nested else flattened(value), tmp_path / "file")
    fit = matching.load(net, file_formats.read(tmp_path / "file"), where="file")
    assert holds(net, PLAIN[family])
    assert not fit.partial
    assert len(fit.state) == len(net.state_dict()) - 2
    if any(word in name for word in ("RobustBench", "Madry")):
        mean, std, _ = fit.normalisation or ((), (), ())
        assert mean == pytest.approx(MU.tolist())
        assert std == pytest.approx(SIGMA.tolist())
    else:
        assert fit.normalisation is None


def test_what_was_stripped_is_said() -> None:
    fit = matching.fit(NETS["preact"](), {"state_dict": under("module._orig_mod.", P), "x": {"y": MU}})
    assert fit.notes == [
        "container 'state_dict'",
        f"prefix 'module.' ({len(P)} names)",
        f"prefix '_orig_mod.' ({len(P)} names)",
        "renamed linear -> head",
    ]
    said = str(matching.fit(NETS["wrn"](), PLAIN["wrn"]))
    assert "weights that such a network never uses left out: 51 (sub_block1.layer.0." in said
    said = str(matching.fit(NETS["resnet"](), madry(PLAIN["resnet"])))
    assert "equal copies left out: 102 (module.attacker.model." in said
    assert "constants of a normalisation kept apart: 4 (module.normalizer.new_mean" in said
    swa = matching.fit(NETS["preact"](), {"n_averaged": torch.tensor(5), **under("module.", P)})
    assert "counters left out: 1 (n_averaged)" in swa.notes


# ---- Small modules of a user's own. ----


class Net(nn.Module):
    """Convolution, batch norm, head."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, classes)


class Normalised(nn.Module):
    """A net behind a normalisation of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3).view(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(3).view(1, 3, 1, 1))
        self.anything = net


def small(seed: int = 0, classes: int = 3) -> Weights:
    shapes = {"conv.weight": (2, 3, 3, 3), "conv.bias": (2,), **norm("bn", 2)}
    return filled({**shapes, "fc.weight": (classes, 2), "fc.bias": (classes,)}, seed)


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_wrapper_in_the_model_is_looked_into() -> None:
    net = Normalised(nn.Sequential(nn.Identity(), Net()))
    fit = matching.load(net, {"mu": MU, "sigma": SIGMA, **small()}, where="file")
    assert fit.target == "anything.1"
    assert same(net.get_submodule("anything.1").state_dict(), small())
    assert fit.normalisation is not None
    assert "into 'anything.1'" in str(fit)


def test_constants_that_the_module_holds_are_not_reported_as_apart() -> None:
    file = {"mean": MU.view(1, 3, 1, 1), "std": SIGMA.view(1, 3, 1, 1), **under("anything.", small())}
    net = Normalised(Net())
    fit = matching.load(net, file, where="file")
    assert fit.normalisation is None
    assert len(fit.state) == len(file)
    assert torch.equal(net.mean.flatten(), MU)
    flat = matching.fit(Normalised(Net()), {**file, "mean": MU, "std": SIGMA})
    assert flat.mismatched == []
    assert flat.normalisation is not None
    assert not flat.partial


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


def test_idle_weights_are_idle_only_where_the_module_says_so() -> None:
    idle, file = Net(), under("module.", {**small(), "spare.weight": MU})
    idle.unused = (r"^spare\.",)
    assert not matching.fit(idle, file).partial
    assert matching.fit(Net(), file).unexpected == ["module.spare.weight"]


# ---- What makes a fit partial. ----


def refused(net: nn.Module, tree: dict[str, Any], closest: str = "", allow_partial: bool = False) -> str:
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UserError) as e:
        matching.load(net, tree, where="some/file.pt", closest=closest, allow_partial=allow_partial)
    assert same(before, dict(net.state_dict()))
    return str(e.value)


@pytest.mark.parametrize("name", [n for n in small() if not n.endswith("num_batches_tracked")])
def test_every_missing_tensor_is_refused_by_name(name: str) -> None:
    file = {k: v for k, v in small().items() if k != name}
    message = refused(Net(), file)
    assert f"1 of the model's are missing in the file ({name})" in message
    assert "some/file.pt" in message
    assert "--allow-partial" in message
    net = Net()
    if "running" in name:
        assert f"lacks {name}: statistics of a batch norm" in refused(net, file, allow_partial=True)
        return
    kept = net.state_dict()[name].clone()
    fit = matching.load(net, file, where="f", allow_partial=True)
    assert fit.missing == [name]
    assert f"left as they were: {name}" in str(fit)
    assert torch.equal(net.state_dict()[name], kept)
    assert all(torch.equal(net.state_dict()[k], v) for k, v in file.items())


def test_old_files_without_counts_are_whole() -> None:
    net = Net()
    fit = matching.load(net, {k: v for k, v in small().items() if "tracked" not in k}, where="f")
    assert not fit.partial
    assert len(fit.state) == len(small()) - 1


def test_leftover_weights_are_refused_by_name() -> None:
    message = refused(Net(), {"state_dict": {**under("module.", small()), "module.extra.weight": MU}})
    assert "1 of the file's belong nowhere (module.extra.weight)" in message
    net = Net()
    file = {**under("module.", small()), "extra": MU}
    assert matching.fit(net, file).unexpected == ["extra"]
    assert "not loaded: extra" in str(matching.load(net, file, where="f", allow_partial=True))
    assert same(dict(net.state_dict()), small())


def test_only_single_integers_are_counters() -> None:
    assert not matching.fit(Net(), {**small(), "step": torch.tensor(3), "seen": torch.tensor([True])}).partial
    for extra in (torch.arange(4), torch.tensor(0.5)):
        assert matching.fit(Net(), {**small(), "extra": extra}).unexpected == ["extra"]


def test_copies_must_be_equal_to_be_left_out() -> None:
    file = {**under("module.model.", small()), **under("module.attacker.model.", small())}
    assert not matching.fit(Net(), file).partial
    file["module.attacker.model.bn.running_var"] = torch.ones(2) * 9
    assert matching.fit(Net(), file).unexpected == ["module.attacker.model.bn.running_var"]


def test_aliases_in_one_file_are_copies_and_tied_weights_need_one_name() -> None:
    file = small()
    file["classifier.weight"] = file["fc.weight"]
    assert not matching.fit(Net(), file).partial
    file["classifier.weight"] = file["fc.weight"].clone()
    assert matching.fit(Net(), file).partial

    tied = Net()
    tied.again = tied.fc
    assert not matching.fit(tied, small()).partial


def test_shapes_are_named_with_both_sides() -> None:
    message = refused(Net(), small(classes=5), closest="a ResNet of 5 classes")
    assert "2 have another shape (fc.weight is [5, 2] in the file, [3, 2] in the model, fc.bias is" in message
    assert "the closest built-in model is a ResNet of 5 classes" in message
    net = Normalised(Net())
    fit = matching.fit(net, small(classes=5))
    assert fit.mismatched[0] == ("anything.fc.weight", (5, 2), (3, 2))
    assert "left as they were: anything.fc.weight, anything.fc.bias" in str(fit)
    refused(net, small(classes=5), allow_partial=True)


def test_what_lies_beside_the_target_must_not_stay_random() -> None:
    both = nn.ModuleDict({"net": Net(), "probe": nn.Linear(3, 2)})
    fit = matching.fit(both, small())
    assert fit.target == "net"
    assert fit.missing == ["probe.weight", "probe.bias"]
    refused(both, small())


def test_nothing_in_common_is_refused_even_if_partial_is_allowed() -> None:
    message = refused(Net(), {"tower.weight": torch.ones(7)}, allow_partial=True)
    assert "0 tensors match" in message
    assert "--allow-partial" not in message
    statistics = {k: v for k, v in small().items() if "running" in k}  # no parameter among them
    refused(Net(), statistics, allow_partial=True)


def test_buffers_of_ones_own_are_missed_but_constants_of_a_normalisation_are_not() -> None:
    net = Net()
    net.register_buffer("prototypes", torch.zeros(4))
    assert matching.fit(net, small()).missing == ["prototypes"]
    parameter = Net()
    parameter.mean = nn.Parameter(torch.zeros(3))  # learned, so no constant
    assert matching.fit(parameter, small()).missing == ["mean"]


def test_three_names_are_enough() -> None:
    message = refused(NETS["preact"](), {k: v for k, v in P.items() if "layer4" not in k})
    assert "layer4.0.bn1.weight, layer4.0.bn1.bias, layer4.0.bn1.running_mean and 18 more" in message
    three = refused(Net(), {k: v for k, v in small().items() if k in ("conv.weight", "fc.weight", "fc.bias")})
    assert "5 of the model's are missing in the file (conv.bias, bn.weight, bn.bias and 2 more)" in three
    assert "(a.w, b.w, c.w);" in refused(Net(), {**small(), "a.w": MU, "b.w": MU, "c.w": MU})
    assert "\n" not in refused(Net(), {**small(), "bad\n\x1b[31mname": MU})


def test_half_precision_is_widened_and_integers_are_not() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        halves = {k: v.to(dtype) if v.is_floating_point() else v for k, v in small().items()}
        fit = matching.fit(Net(), halves)
        assert {v.dtype for v in fit.state.values()} == {torch.float32, torch.int64}
        assert torch.equal(fit.state["fc.weight"], halves["fc.weight"].float())
    doubles = matching.fit(Net(), {k: v.double() for k, v in small().items()})
    assert doubles.state["fc.weight"].dtype == torch.float64


def test_what_has_no_shape_yet_is_refused() -> None:
    with pytest.raises(UserError, match="run one batch"):
        matching.fit(nn.Sequential(nn.LazyLinear(3)), small())
    with pytest.raises(UserError, match="no named tensors"):
        matching.fit(Net(), {})


def test_wide_networks_are_matched_without_copies() -> None:
    file = PLAIN["wrn"]
    fit = matching.fit(NETS["wrn"](), file)
    assert fit.state["conv1.weight"] is file["conv1.weight"]


# ---- Any nesting is undone. ----

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


def test_transposed_weights_are_called_so() -> None:
    file = {k: v.T if k == "fc.weight" else v for k, v in small().items()}
    assert "fc.weight is transposed: [2, 3] in the file, [3, 2] in the model" in refused(Net(), file)


def test_a_partial_load_leaves_a_tenth_at_most() -> None:
    file = {k: v for k, v in small().items() if k not in ("conv.bias", "bn.bias")}
    assert "lacks 2 of the model's 9 tensors (conv.bias, bn.bias)" in refused(Net(), file, allow_partial=True)


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
