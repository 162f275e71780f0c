"""Files as they lie about, by their literal names, find their place in a module, or are refused by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossclass.checkpoints import file_formats, match_state_dict as matching
from crossclass.core.errors import UserError
from crossclass.models import PreActResNet, ResNet, ViT, WideResNet
from published_networks import (
    official_deit,
    official_preactresnet18,
    official_resnet,
    official_wideresnet,
)
from small_state_dicts import MU, SIGMA, Net, Normalised, Weights, filled, holds, refused, same, small, under

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


def test_idle_weights_are_idle_only_where_the_module_says_so() -> None:
    idle, file = Net(), under("module.", {**small(), "spare.weight": MU})
    idle.unused = (r"^spare\.",)
    assert not matching.fit(idle, file).partial
    assert matching.fit(Net(), file).unexpected == ["module.spare.weight"]


# ---- What makes a fit partial. ----


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


def test_transposed_weights_are_called_so() -> None:
    file = {k: v.T if k == "fc.weight" else v for k, v in small().items()}
    assert "fc.weight is transposed: [2, 3] in the file, [3, 2] in the model" in refused(Net(), file)


def test_a_partial_load_leaves_a_tenth_at_most() -> None:
    file = {k: v for k, v in small().items() if k not in ("conv.bias", "bn.bias")}
    assert "lacks 2 of the model's 9 tensors (conv.bias, bn.bias)" in refused(Net(), file, allow_partial=True)
