"""The microscope: a stranger's file through `measure`, `doctor` and `report`, and every way to be wrong.

The oracle is Algorithm 1 written out literally on the network's own features; the files are built by the
names that others give their weights.
"""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import literal_twins
from crossclass import models
from crossclass.analysis import description, intervals, measure as measuring
from crossclass.analysis.measure import Measure
from crossclass.attacks import FGSM, PGD, reference_attack
from crossclass.attacks.norms import L2, Linf
from crossclass.checkpoints.card import Card, save_checkpoint
from crossclass.checkpoints.load import Source
from crossclass.cli import main
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.core.runtime import Runtime
from crossclass.core.trust import import_callable, trusting
from crossclass.data import Split, Splits
from crossclass.models import PreActResNet
from crossclass.report.plots.paper_figures import draw_maps
from measuring import measure

CPU = Runtime(device="cpu")
THIN = PreActResNet(width=4, blocks=(1, 1, 1, 1))
NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2, 1)
        self.hidden = nn.Linear(6 * 16 * 16, 12)
        self.fc = nn.Linear(12, classes)

    def forward(self, x):
        x = torch.relu(self.conv(x)).flatten(1)
        return self.fc(torch.relu(self.hidden(x)))

class Scaled(Net):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * super().forward(x)

class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mu", torch.full((3, 1, 1), 0.5))
        self.register_buffer("sigma", torch.full((3, 1, 1), 0.25))
        self.net = Net()

    def forward(self, x):
        return self.net((x - self.mu) / self.sigma)
"""


def npz(folder: Path, n: int = 60, classes: int = 10, size: int = 32, names: int | None = None) -> Path:
    """A folder with train.npz and test.npz of coloured noise whose mean tells the class."""
    g = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        labels = np.arange(n) % classes
        images = g.integers(0, 120, (n, size, size, 3)) + (13 * labels)[:, None, None, None]
        extra = {} if names is None else {"class_names": np.array([f"c{i}" for i in range(names)])}
        arrays = {"images": images.astype(np.uint8), "labels": labels.astype(np.uint8)}
        np.savez(folder / f"{part}.npz", **arrays, **extra)
    return folder


def official(model: nn.Module) -> dict[str, Tensor]:
    """Names of the paper's repository (and of Rice's): the head is `linear`, normalisation is outside."""
    state = {k: v.clone() for k, v in model.state_dict().items() if k not in ("mean", "std")}
    return {k.replace("head.", "linear."): v for k, v in state.items()}


@pytest.fixture
def net() -> models.Classifier:
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    model = models.build(THIN, images, 10, 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=generator(1))
            module.running_var.uniform_(0.5, 1.5, generator=generator(2))
    return model.eval()


@pytest.fixture
def here(tmp_path, monkeypatch, net):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"nets_{tmp_path.name.replace('-', '_')}.py").write_text(NETS)
    npz(tmp_path / "data")
    torch.save({"state_dict": {f"module.{k}": v for k, v in official(net).items()}, "epoch": 7}, "prn.pt")
    return tmp_path


def nets(here: Path) -> str:
    """A module name of its own for every test: Python imports a name only once."""
    return f"nets_{here.name.replace('-', '_')}"


def test_the_papers_state_dict_gives_algorithm_1(here, net):
    (r,) = measure(["prn.pt"], ["data.path=data", "attack.steps=3", "batch=20"], CPU)
    data = np.load("data/test.npz")
    x = torch.tensor(data["images"]).permute(0, 3, 1, 2) / 255
    y = torch.tensor(data["labels"]).long()
    attack = PGD(threat=Linf(), steps=3)
    x_adv = torch.cat(
        [attack(net, x[i : i + 20], y[i : i + 20], generator(0, 0, i // 20, "measure")) for i in (0, 20, 40)]
    )
    g = net.features(x_adv).detach().double()
    W = net.head.weight.detach().double()
    C = literal_twins.correlation(literal_twins.class_attributions(g.tolist(), W.tolist(), y.tolist()))
    assert np.abs(np.array(r["C"]) - np.array(C)).max() < 1e-6
    assert r["cas"] == pytest.approx(literal_twins.cas(C), abs=1e-6)
    assert r["robust"] == float((net(x_adv).argmax(1) == y).double().mean())
    assert r["normalise"] == {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2471, 0.2435, 0.2616]}
    assert any("module." in line for line in r["loaded"])
    assert any("recognized as PreActResNet" in line for line in r["loaded"])
    assert r["conditions"]["steps"] == 3
    assert len(r["icas_matrix"]) == 10
    low, high = r["intervals"]["robust"]
    assert low <= r["robust"] <= high


def test_cas_that_is_mostly_noise_is_called_so(here, monkeypatch):
    given = ["data.path=data", "attack.steps=1", "batch=20"]
    monkeypatch.setattr(intervals, "TOO_NOISY", 1.0)
    (quiet,) = measure(["prn.pt"], given, CPU)
    monkeypatch.setattr(intervals, "TOO_NOISY", 0.0)
    (r,) = measure(["prn.pt"], given, CPU)
    (said,) = set(r["warnings"]) - set(quiet["warnings"])
    assert f"CAS is {r['cas']:.2f}" in said


def test_foreign_files_are_attacked_by_pgd_20_at_8(here):
    for given in ([], ["attack.kind=pgd"]):
        (r,) = measure(["prn.pt"], ["data.path=data", "n=4", *given], CPU)
        assert r["attack"] == "PGD-20, l_inf 8/255, step 0.25 eps, uniform start"
    for given in ("attack=none", "attack=null"):
        (r,) = measure(["prn.pt"], ["data.path=data", "n=4", given], CPU)
        assert r["attack"] == "none (clean images)"
        assert r["clean"] == r["robust"]


def test_a_factory_of_twenty_lines(here, trusted):
    torch.manual_seed(0)
    model = import_callable(f"{nets(here)}:Net", "test")()
    np.savez("net.npz", **{k: v.numpy() for k, v in model.state_dict().items()})
    changes = [f"model=python:{nets(here)}:Net", "data.path=data", "attack=none"]
    (r,) = measure(["net.npz"], changes, CPU)
    x = torch.tensor(np.load("data/test.npz")["images"]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in models.statistics()["cifar10"])
    z = (x - mean) / std
    g = torch.relu(model.hidden(torch.relu(model.conv(z)).flatten(1))).detach().double()
    y = np.load("data/test.npz")["labels"].tolist()
    C = literal_twins.correlation(literal_twins.class_attributions(g.tolist(), model.fc.weight.tolist(), y))
    assert np.abs(np.array(r["C"]) - np.array(C)).max() < 1e-6


def test_the_head_is_named_and_checked_with_the_weights_of_the_file(here, trusted):
    (r,) = measure(["prn.pt"], ["data.path=data", "attack=none"], CPU)
    assert r["head"] == {"layer": "head", "matches_logits": True}
    for scale in (1.0, 3.0):  # what the file says; a fresh network has 1
        model = import_callable(f"{nets(here)}:Scaled", "test")()
        nn.init.constant_(model.scale, scale)
        torch.save(model.state_dict(), "scaled.pt")
        changes = [f"model=python:{nets(here)}:Scaled", "data.path=data", "attack=none"]
        (r,) = measure(["scaled.pt"], changes, CPU)
        assert r["head"] == {"layer": "fc", "matches_logits": True}
        assert any("'fc', with 3 times" in line for line in r["loaded"]) == (scale != 1)
        assert not any("'fc'" in warning for warning in r["warnings"])


def test_a_network_that_normalises_itself_is_left_alone(here, trusted):
    model = import_callable(f"{nets(here)}:Normalised", "test")()
    torch.save(model.state_dict(), "own.pt")
    (r,) = measure(
        ["own.pt"], [f"model=python:{nets(here)}:Normalised", "data.path=data", "attack=none"], CPU
    )
    assert r["normalise"] == {"mean": [0.0], "std": [1.0]}
    assert any("normalises itself (mu, sigma)" in line for line in r["loaded"])


def test_constants_in_the_file_beat_the_usual_ones(here, net):
    state = {"mu": torch.full((3, 1, 1), 0.4), "sigma": torch.full((3, 1, 1), 0.2), **official(net)}
    torch.save(state, "rb.pt")
    (r,) = measure(["rb.pt"], ["data.path=data", "attack=none"], CPU)
    assert r["normalise"] == {"mean": [0.4] * 3, "std": [0.2] * 3}
    (r,) = measure(["rb.pt"], ["data.path=data", "attack=none", "model.normalise=imagenet"], CPU)
    assert r["normalise"]["mean"] == [0.485, 0.456, 0.406]


def test_two_checkpoints_are_compared(here, net):
    with torch.no_grad():
        net.head.weight.mul_(1.5).add_(0.1)
    torch.save(official(net), "other.pt")
    one, two, last = measure(["prn.pt", "other.pt"], ["data.path=data", "attack.steps=2"], CPU)
    c = last["comparison"]
    assert (c["a"], c["b"]) == ("prn", "other")
    assert c["d_cas"] == pytest.approx(one["cas"] - two["cas"])
    assert c["d_robust"] == pytest.approx(one["robust"] - two["robust"])
    assert np.allclose(np.array(c["C_difference"]), np.array(one["C"]) - np.array(two["C"]), atol=2e-6)
    changes = [abs(p["change"]) for p in c["pairs"]]
    assert changes == sorted(changes, reverse=True)
    assert c["intervals"]["d_cas"][0] <= c["intervals"]["d_cas"][1]
    same = measure(["prn.pt", "prn.pt"], ["data.path=data", "attack.steps=2"], CPU)[2]["comparison"]
    assert same["d_cas"] == same["d_icas"] == 0


def test_correct_examples_only(here, net):
    (every,) = measure(["prn.pt"], ["data.path=data", "attack=none"], CPU)
    (right,) = measure(["prn.pt"], ["data.path=data", "attack=none", "attribution_subset=correct"], CPU)
    assert right["clean"] == every["clean"]
    assert right["conditions"]["attribution_subset"] == "correct"
    assert right["C"] != every["C"]


def test_a_class_without_images_is_named_and_counts_nothing(here):
    npz(here / "nine", classes=9, names=10)
    (r,) = measure(["prn.pt"], ["data.path=nine", "attack=none"], CPU)
    assert r["empty_classes"] == [9]
    assert any("c9" in w for w in r["warnings"])
    assert r["classwise_clean"][9] is None
    assert all(v == 0 for v in r["C"][9])


class Poison:
    def __reduce__(self):
        return (Path("poisoned").touch, ())


MISTAKES = {
    "no data": (["prn.pt"], [], "give data.path=DIR"),
    "nine classes": (["prn.pt"], ["data.path=nine"], "tells 10 classes apart, the data have 9"),
    "poison": (["poison.pt"], ["data.path=data"], "--trust"),
    "web page": (["page.pt"], ["data.path=data"], "web page"),
    "missing file": (["none.pt"], ["data.path=data"], "none.pt"),
    "another architecture": (["odd.pt"], ["data.path=data", "model.kind=wideresnet"], "PreActResNet"),
    "two architectures": (["prn.pt", "odd.pt"], ["data.path=data", "model.kind=preactresnet"], "two calls"),
    "unknown network": (["odd.pt"], ["data.path=data"], "model=python:MODULE:FUNCTION"),
    "no factory": (["prn.pt"], ["data.path=data", "model=python:nothing_here:f"], "no module 'nothing_here'"),
    "misspelt model": (
        ["prn.pt"],
        ["data.path=data", "model.kind=preactresne"],
        "did you mean 'preactresnet'",
    ),
    "misspelt setting": (
        ["prn.pt"],
        ["data.path=data", "atribution_subset=all"],
        "did you mean 'attribution_subset'",
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_are_one_sentence(here, net, what):
    npz(here / "nine", classes=9)
    torch.save({"state_dict": Poison()}, "poison.pt")
    Path("page.pt").write_text("<!DOCTYPE html><html><body>Quota exceeded</body></html>")
    state = {k: v for k, v in official(net).items() if "layer4" not in k}
    torch.save({**state, "odd.weight": torch.zeros(3, 3)}, "odd.pt")
    targets, changes, words = MISTAKES[what]
    with pytest.raises(UserError) as e:
        with trusting("nothing_here:f"):
            measure(targets, changes, CPU)
    assert words in str(e.value)
    assert "\n" not in str(e.value)
    assert not Path("poisoned").exists()


def test_partial_loads_are_refused_unless_allowed(here, net):
    state = official(net)
    del state["layer2.0.bn1.weight"]
    torch.save(state, "part.pt")
    changes = [
        "data.path=data",
        "attack=none",
        "model.kind=preactresnet",
        "model.width=4",
        "model.blocks=[1,1,1,1]",
    ]
    with pytest.raises(UserError, match="--allow-partial"):
        measure(["part.pt"], changes, CPU)
    (r,) = measure(["part.pt"], changes, CPU, allow_partial=True)
    assert any("left as they were: layer2.0.bn1.weight" in line for line in r["loaded"])
    assert any("left as they were: layer2.0.bn1.weight" in line for line in r["warnings"])


@pytest.mark.parametrize("lost", ["linear", "layer"])
def test_a_partial_load_never_leaves_the_head_or_most_of_a_network_random(here, net, lost):
    torch.save({k: v for k, v in official(net).items() if lost not in k}, "part.pt")
    network = ["model.kind=preactresnet", "model.width=4", "model.blocks=[1,1,1,1]"]
    words = "no weights for the head" if lost == "linear" else "% of the weights of PreActResNetModule random"
    with pytest.raises(UserError, match=words):
        measure(["part.pt"], ["data.path=data", "attack=none", *network], CPU, allow_partial=True)


def test_the_commands_of_the_readme(here, capsys):
    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as e:
            main(list(arguments))
        out, _ = capsys.readouterr()
        return int(e.value.code or 0), out

    code, out = call("measure", "prn.pt", "data.path=data", "attack.steps=2", "out=r.json")
    assert code == 0
    assert "CAS says nothing without accuracy" in out
    assert out.splitlines()[-1] == "r.json"
    assert json.loads(Path("r.json").read_text())["results"][0]["checkpoint"]["name"] == "prn"
    code, out = call("report", "r.json")
    assert code == 0
    assert Path(out.splitlines()[-1]).name == "r.html"
    code, out = call("doctor", "prn.pt", "data.path=data", "n=40", "n_attack=10", "out=d.json")
    assert code in (0, 1)
    levels = {f["level"] for f in json.loads(Path("d.json").read_text())[0]["findings"]}
    assert levels <= {"fault", "warning", "note", "fine"}
    assert (code == 1) == ("fault" in levels)
    verdict = json.loads(Path("d.json").read_text())[0]["verdict"]
    assert out.splitlines()[-2] == verdict
    code, out = call("doctor", "prn.pt", "data.path=data", "n=40", "n_attack=10", "out=d.html")
    assert html.escape(verdict, quote=True) in Path("d.html").read_text().replace("&#39;", "&#x27;")
    code, out = call(
        "measure", "prn.pt", "prn.pt", "data.path=data", "attack.steps=2", "saliency=2", "out=s.json"
    )
    assert code == 0


def test_a_grid_of_maps_is_drawn(here, net):
    with torch.no_grad():
        net.head.bias.zero_()
        net.head.weight.copy_(net.head.weight.roll(1, 0))
    torch.save(official(net), "other.pt")
    picture = here / "grid.png"
    results = measure(
        ["prn.pt", "other.pt"],
        ["data.path=data", "attack=none", "saliency=3"],
        CPU,
        draw=lambda maps, name: draw_maps(maps, picture),
    )
    found = results[-1]["comparison"]["saliency"]
    if found is None:
        pytest.fail("the two networks never differ: the test needs another pair")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert found["grid"] == "grid.png"
    assert 0 < found["half_mass_area"]["a"] <= 1
    low, high = found["half_mass_area"]["interval"]
    assert low <= found["half_mass_area"]["difference"] <= high


@pytest.mark.parametrize(
    ("settings", "robust"), [({}, 0.25), ({"balanced": False}, 1.0), ({"n": None}, 0.25)]
)
def test_n_images_of_a_sorted_set_stand_for_all_of_it(net, settings, robust):
    """A network that always says class 0, and images sorted by class: a quarter is right, not the first n."""
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.eye(10)[0])
    part = Split(torch.zeros(80, 3, 32, 32, dtype=torch.uint8), torch.arange(80) // 20)
    splits = Splits(part, part, part, tuple("abcd"), "")
    asked = Measure(**{"n": 20, "attack": PGD(steps=1), **settings})
    found = measuring.evaluate_checkpoint(net, splits, asked.attack, asked, CPU)
    assert found.accuracy("robust") == robust
    conditions = description.conditions(asked.attack, asked, len(found.labels))
    assert conditions["drawn"] == ("class shares" if settings == {} else False)


@pytest.mark.parametrize("threat", [Linf(), L2(eps=0.5)])
def test_a_typed_attack_starts_from_the_reference_attack(threat):
    reference = reference_attack(threat)
    assert Measure(attack_changes={"kind": "pgd"}).attacks([threat]) == [reference]
    assert Measure(attack_changes={"steps": 50}).attacks([threat]) == [reference.replace(steps=50)]
    assert Measure(attack_changes={"kind": "fgsm"}).attacks([threat]) == [FGSM(threat=threat)]
    (other,) = Measure(attack_changes={"threat.kind": "l2", "threat.eps": 1.0}).attacks([threat])
    assert other == reference_attack(L2(eps=1.0))
    with pytest.raises(UserError, match="did you mean 'steps'"):
        Measure(attack_changes={"rel_step": 3, "stpes": 3}).attacks([threat])


def test_saliency_of_one_checkpoint_is_refused_before_the_attack(here, monkeypatch):
    monkeypatch.setattr(measuring, "evaluate_checkpoint", lambda *a, **k: pytest.fail("attacked first"))
    with pytest.raises(UserError, match="two checkpoints"):
        measure(["prn.pt"], ["data.path=data", "saliency=3"], CPU)


def test_two_balls_have_two_grids(here, net, monkeypatch):
    monkeypatch.setattr(measuring.compare, "saliency_between", lambda *_: ({}, None))
    card = Card(
        checkpoint="last", epoch=1, model=THIN, classes=10, channels=3, size=32, threat=Linf(eps=4 / 255)
    )
    save_checkpoint(Path("a.safetensors"), net.state_dict(), card)
    with torch.no_grad():
        net.head.weight.copy_(net.head.weight.roll(1, 0))
    save_checkpoint(Path("b.safetensors"), net.state_dict(), card.model_copy(update={"epoch": 2}))
    names = []
    found = measuring.measure(
        ["a.safetensors", "b.safetensors"],
        measuring.Measure(n=20, saliency=2),
        Source(changes={"data.path": "data"}),
        CPU,
        draw=lambda maps, name: names.append(name) or f"{name}.png",
    )
    assert [c.conditions["eps"] for c in found.comparisons] == ["4/255", "8/255"]
    assert names == ["linf-4", "linf-8"]


def test_a_config_yaml_of_another_program_beside_the_file_means_nothing(here, net):
    Path("config.yaml").write_text("defaults: [_self_]\nmodel: resnet18\ndigest: 1\n")
    torch.save(official(net), "best.pth")
    (r,) = measure(["best.pth"], ["data.path=data", "attack=none"], CPU)
    assert (r["checkpoint"], r["run"]) == ("best", "")


def test_our_own_checkpoint_outside_its_folder_needs_data(here, net):
    card = Card(checkpoint="last", epoch=3, model=THIN, classes=10, channels=3, size=32)
    save_checkpoint(Path("ours.safetensors"), net.state_dict(), card)
    with pytest.raises(UserError, match=r"data\.path=DIR"):
        measure(["ours.safetensors"], [], CPU)
    (r,) = measure(["ours.safetensors"], ["data.path=data", "attack=none"], CPU)
    assert (r["checkpoint"], r["epoch"], r["run"]) == ("last", 3, "")
    with pytest.raises(UserError, match="says itself which model"):
        measure(["ours.safetensors"], ["data.path=data", "model.kind=vit"], CPU)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("targets", ["at.pth", [nn.Linear(2, 2)]], ids=["a name", "a network"])
def test_what_is_no_list_of_names_is_refused(targets: Any) -> None:
    with pytest.raises(UserError, match="list of run folders and files"):
        measuring.measure(targets)
