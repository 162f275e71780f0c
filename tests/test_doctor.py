"""The doctor finds what was planted, by name, and says nothing bad about sound networks.

A small trained network is made ill in one way at a time; a table holds an illness for every finding.
"""

import copy
import json
import math
import random
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import Tripped, seeded
from crossclass import doctor
from crossclass.attacks import PGD
from crossclass.data import Split, Splits
from crossclass.doctor import FINDINGS, Doctor, Finding, examine
from crossclass.doctor.finding import ALPHA, beats, exceeds, judged, tail
from crossclass.doctor.inputs import labels, renumbering
from crossclass.doctor.masking import _told
from crossclass.doctor.patient import admitted, normalising, private_randomness, untouched
from crossclass.errors import UserError
from crossclass.models import STATISTICS, Classifier
from crossclass.models.wrapped import Wrapped
from crossclass.threat import L2, Linf

EPS = 0.05
QUICK = Doctor(n=300, n_attack=12, threat=Linf(eps=EPS), batch=100)
FULL = QUICK.but(n_attack=100)
TRIPLE = FULL.but(threat=Linf(eps=0.15))
WIDE = FULL.but(threat=Linf(eps=0.4))


class Small(Classifier):
    """Convolution, batch norm, dropout, head; `before` and `after` are where illnesses are put."""

    def __init__(self, classes: int, channels: int, normalise: str = "none", side: int = 6) -> None:
        mean, std = BYTES if normalise == "bytes" else STATISTICS[normalise]
        super().__init__(mean, std)
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8 * side * side, classes)
        self.before: Callable[[Tensor], Tensor] = lambda x: x
        self.after: Callable[[Tensor, Tensor], Tensor] = lambda z, x: z

    def features(self, x: Tensor) -> Tensor:
        return self.drop(F.relu(self.bn(self.conv(self.normalise(self.before(x)))))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(self.features(x)), x)


BYTES = ((0.0,), (1 / 255,))


def splits_of(classes: int = 3, channels: int = 3, n: int = 400) -> Splits:
    """Gaussian classes, the channels unlike each other, hard enough for 8/255 to matter."""
    g = seeded(11)
    means = 0.5 + 0.06 * torch.randn(classes, channels, 6, 6, generator=g)
    y = torch.arange(2 * n) % classes
    x = (means[y] + 0.1 * torch.randn(2 * n, channels, 6, 6, generator=g)).clamp(0, 1)
    images = (255 * x).round().to(torch.uint8)
    train, test = Split(images[:n], y[:n]), Split(images[n:], y[n:])
    return Splits(train, Split(images[:0], y[:0]), test, tuple("abcdefgh"[:classes]), "0" * 16)


def train(net: Small, splits: Splits, attack: PGD | None = None, steps: int = 40) -> Small:
    x, y = splits.train.images.float() / 255, splits.train.labels
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(steps):
        x_adv = attack(net.eval(), x, y, seeded(step)) if attack else x
        optimizer.zero_grad()
        F.cross_entropy(net.train()(x_adv), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net.eval()


def made(classes: int = 3, channels: int = 3, normalise: str = "none", attack: PGD | None = None) -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return train(Small(classes, channels, normalise), splits_of(classes, channels), attack)


@pytest.fixture(scope="module")
def nets() -> dict[str, Small]:
    """Trained once, copied whenever one is used."""
    robust = PGD(threat=Linf(eps=EPS), steps=4, step=0.5)
    named = {n: made(normalise=n) for n in ("none", "imagenet", "bytes")}
    return {**named, "robust": made(attack=robust), "two gray": made(2, 1)}


@pytest.fixture(scope="module")
def data() -> Splits:
    return splits_of()


def by_name(found: list[Finding]) -> dict[str, Finding]:
    names = [f.name for f in found]
    assert len(set(names)) == len(names), "one finding per name"
    assert set(names) <= set(FINDINGS)
    return {f.name: f for f in found}


def bad(found: list[Finding]) -> list[str]:
    return [f.name for f in found if f.level in ("fault", "warning")]


# ---------------------------------------------------------------- illnesses


class Reversed(torch.autograd.Function):
    """The identity, whose gradient has the wrong sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class AlwaysOn(nn.Module):
    def forward(self, g: Tensor) -> Tensor:
        return F.dropout(g, 0.2)


def rounded(x: Tensor) -> Tensor:
    return (x * 32).round() / 32


def shattered(x: Tensor) -> Tensor:
    return x + 1e-3 * torch.sin(1e4 * x)


def distance(x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square distance to the nearest remembered image, and that image; no gradient."""
    with torch.no_grad():
        apart = torch.cdist(x.flatten(1), memory.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        return apart.amin(dim=1)[:, None, None, None] / math.sqrt(memory[0].numel()), memory[apart.argmin(1)]


def remembers(beyond: float) -> Callable[[Small, Splits], None]:
    """Far from the images it knows it answers with the nearest of them, which has no gradient."""

    def plant(net: Small, data: Splits) -> None:
        memory = data.test.images.float() / 255

        def before(x: Tensor) -> Tensor:
            far, nearest = distance(x, memory)
            return torch.where(far > beyond, nearest, x)

        net.before = before

    return plant


def a_sixth_has_no_gradient(net: Small, data: Splits) -> None:
    """At every sixth of the images it knows the gradient is zero."""
    memory = data.test.images[::6].float() / 255

    def before(x: Tensor) -> Tensor:
        far, _ = distance(x, memory)
        return torch.where(far < 1e-6, x.detach(), x)

    net.before = before


def only_corners(net: Small, data: Splits) -> None:
    """The gradient is right at a known image only; inside the ball it answers for the known image."""
    memory = data.test.images.float() / 255

    def before(x: Tensor) -> Tensor:
        far, nearest = distance(x, memory)
        inside = torch.where(far < 1e-6, x, nearest)
        return torch.where(far < 0.9 * EPS, inside, x)

    net.before = before


def constants(mean: float, std: float) -> Callable[[Small, Splits], None]:
    return change(mean=torch.full((1, 1, 1, 1), mean), std=torch.full((1, 1, 1, 1), std))


def change(**what: Any) -> Callable[[Small, Splits], None]:
    def plant(net: Small, data: Splits) -> None:
        for name, value in what.items():
            setattr(net, name, value)

    return plant


def fill(path: str, index: Any, value: float) -> Callable[[Small, Splits], None]:
    def plant(net: Small, data: Splits) -> None:
        with torch.no_grad():
            tensor: Any = net
            for part in path.split("."):
                tensor = getattr(tensor, part)
            tensor[index] = value

    return plant


def twins(net: Small, data: Splits) -> None:
    with torch.no_grad():
        net.head.weight[1] = net.head.weight[0]


def half_frozen(net: Small, data: Splits) -> None:
    net.train().bn.eval()


def reset(net: Small, data: Splits) -> None:
    net.bn.reset_running_stats()


def infinite(z: Tensor, x: Tensor) -> Tensor:
    return z / 0


def common(z: Tensor, x: Tensor) -> Tensor:
    """Softmax saturates (p = 1 in float32), and what is common to all logits then rules the gradient."""
    return 12 * z + 1e5 * x.mean(dim=(1, 2, 3))[:, None]


def relabelled(labels: Callable[[Tensor], Tensor]) -> Callable[[Splits], Splits]:
    def plant(data: Splits) -> Splits:
        test = Split(data.test.images, labels(data.test.labels))
        return Splits(data.train, data.val, test, data.class_names, data.checksum)

    return plant


def guessed(y: Tensor) -> Tensor:
    return torch.randint(3, y.shape, generator=seeded(0))


def one_class_more(data: Splits) -> Splits:
    return Splits(data.train, data.val, data.test, (*data.class_names, "new"), data.checksum)


def nan_root(x: Tensor) -> Tensor:
    return x + 0 * (x - x).sqrt()


Case = tuple[str, str, dict[str, Any]]
CASES: list[Case] = [
    ("cannot-run", "fault", {"ill": change(head=nn.Linear(7, 3))}),
    ("non-finite-weights", "fault", {"ill": fill("conv.weight", (0, 0, 0, 0), math.nan)}),
    ("zero-layers", "warning", {"ill": fill("conv.weight", slice(None), 0.0)}),
    ("constant-outputs", "fault", {"ill": fill("conv.weight", slice(None), 0.0)}),
    ("degenerate-head", "warning", {"ill": twins}),
    ("degenerate-head", "warning", {"ill": fill("head.weight", 2, 0.0)}),
    ("dead-features", "warning", {"ill": fill("bn.bias", slice(0, 5), -100.0)}),
    ("train-mode", "warning", {"ill": lambda net, data: net.train()}),
    ("frozen-batch-norm", "note", {"ill": half_frozen}),
    ("never-updated-batch-norm", "fault", {"ill": reset}),
    ("stale-batch-norm", "fault", {"ill": fill("bn.running_mean", slice(None), 3.0)}),
    ("wrong-class-count", "fault", {"data": one_class_more}),
    ("non-finite-outputs", "fault", {"ill": change(after=infinite)}),
    ("softmax-outputs", "fault", {"ill": change(after=lambda z, x: z.softmax(dim=1))}),
    ("sigmoid-outputs", "fault", {"ill": change(after=lambda z, x: z.sigmoid())}),
    ("log-softmax-outputs", "warning", {"ill": change(after=lambda z, x: z.log_softmax(dim=1))}),
    ("head-mismatch", "warning", {"ill": change(after=lambda z, x: 2 * z)}),
    ("collapsed-predictions", "warning", {"ill": fill("head.bias", 0, 1e3)}),
    ("unpredicted-classes", "note", {"ill": fill("head.bias", 0, -1e3)}),
    ("random-outputs", "warning", {"ill": change(before=lambda x: x + 0.1 * torch.randn_like(x))}),
    ("random-outputs", "warning", {"ill": change(drop=AlwaysOn())}),
    ("batch-dependent", "fault", {"ill": change(before=lambda x: x - x.mean(0) + 0.5)}),
    ("wrong-normalisation", "fault", {"net": "imagenet", "ill": constants(0.0, 1.0)}),
    ("normalised-twice", "fault", {"ill": constants(1.0, 0.25)}),
    ("wrong-range", "fault", {"net": "bytes", "ill": change(std=torch.ones(1, 1, 1, 1))}),
    ("wrong-channel-order", "fault", {"ill": change(before=lambda x: x.flip(1))}),
    ("transposed-images", "fault", {"ill": change(before=lambda x: x.transpose(2, 3))}),
    ("permuted-labels", "fault", {"data": relabelled(lambda y: (y + 1) % 3)}),
    ("permuted-labels", "fault", {"data": relabelled(lambda y: torch.tensor([1, 0, 2])[y])}),
    ("chance-accuracy", "fault", {"data": relabelled(guessed)}),
    ("zero-gradients", "fault", {"ill": change(before=rounded), "settings": FULL}),
    ("zero-gradients", "fault", {"ill": change(before=lambda x: x.detach()), "settings": FULL}),
    ("non-finite-gradients", "fault", {"ill": change(before=nan_root), "settings": FULL}),
    ("wrong-gradients", "fault", {"ill": change(before=Reversed.apply), "settings": FULL}),
    ("wrong-gradients", "fault", {"ill": change(before=shattered), "settings": FULL}),
    ("saturated-loss", "warning", {"ill": change(after=lambda z, x: 1e4 * z), "settings": FULL}),
    ("weak-cross-entropy", "warning", {"ill": change(after=common), "settings": FULL}),
    ("attack-without-effect", "warning", {"ill": change(before=Reversed.apply), "settings": FULL}),
    ("attack-without-effect", "note", {"settings": FULL.but(threat=Linf(eps=1e-5))}),
    ("gradient-masking-eps", "fault", {"ill": remembers(1.5 * EPS), "settings": FULL}),
    ("gradient-masking-steps", "fault", {"ill": remembers(0.95 * 0.15), "settings": TRIPLE}),
    ("gradient-masking-unbounded", "fault", {"ill": change(before=Reversed.apply), "settings": FULL}),
    ("gradient-masking-unbounded", "warning", {"ill": a_sixth_has_no_gradient, "settings": FULL}),
    ("gradient-masking-fgsm", "fault", {"ill": only_corners, "settings": FULL}),
    ("gradient-masking-noise", "fault", {"ill": change(before=Reversed.apply), "settings": WIDE}),
    ("gradient-masking-black-box", "fault", {"ill": change(before=shattered), "settings": FULL}),
    ("gradient-masking-transfer", "fault", {"ill": change(before=rounded), "settings": FULL, "on": "none"}),
    ("not-examined", "note", {"ill": change(after=infinite), "settings": QUICK}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "level", "case"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_an_illness_is_found_by_its_name(
    name: str, level: str, case: dict[str, Any], nets: dict[str, Small], data: Splits, monkeypatch
):
    if "settings" not in case:  # found before anything is attacked
        monkeypatch.setattr(doctor, "STAGES", doctor.STAGES[:3])
    net = copy.deepcopy(nets[case.get("net", "none")])
    case.get("ill", lambda net, data: None)(net, data)
    surrogate = copy.deepcopy(nets[case["on"]]) if "on" in case else None
    splits = case.get("data", lambda d: d)(data)
    found = by_name(examine(net, splits, case.get("settings", QUICK), surrogate=surrogate))
    assert found[name].level == level, found[name]
    assert found[name].remedy
    json.dumps([f.numbers for f in found.values()], allow_nan=False)


def test_every_finding_has_an_illness():
    assert {name for name, _, _ in CASES} == set(FINDINGS)
    with pytest.raises(KeyError):
        judged("no-such-name", "note", True, "", "")


# ---------------------------------------------------------------- sound networks


@pytest.mark.parametrize("which", ["none", "imagenet", "bytes", "robust"])
@pytest.mark.parametrize("threat", [Linf(eps=EPS), L2(eps=0.4)], ids=["linf", "l2"])
def test_a_sound_network_raises_nothing(which: str, threat: Any, nets: dict[str, Small], data: Splits):
    surrogate = nets["robust" if which == "none" else "none"]
    found = examine(copy.deepcopy(nets[which]), data, FULL.but(threat=threat), surrogate=surrogate)
    assert [str(f) for f in found if f.level != "fine"] == []
    assert all(f.remedy == "" for f in found)
    looked = set(by_name(found))
    assert looked == set(FINDINGS) - {"not-examined"}, "whatever can be looked for was looked for"


def test_two_gray_classes_are_served(nets: dict[str, Small]):
    found = by_name(examine(copy.deepcopy(nets["two gray"]), splits_of(2, 1), FULL))
    assert bad(list(found.values())) == []
    assert "wrong-channel-order" not in found
    assert "mnist" in found["wrong-normalisation"].numbers
    assert "cifar10" not in found["wrong-normalisation"].numbers


def test_a_wrapped_network_is_served(data: Splits):
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, 3))
    found = by_name(examine(Wrapped(net, 3, 3, (0.5,), (0.5,), 6).eval(), data, QUICK))
    assert found["head-mismatch"].level == "fine"
    squashed = Wrapped(nn.Sequential(*net, nn.Softmax(dim=1)), 3, 3, (0.5,), (0.5,), 6).eval()
    found = by_name(examine(squashed, data, QUICK))
    assert found["softmax-outputs"].level == "fault"
    assert found["head-mismatch"].level == "warning"


def test_more_outputs_than_classes_are_attacked_all_the_same(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    head = nn.Linear(net.head.in_features, 5)
    with torch.no_grad():
        head.weight[:3], head.bias[:3] = net.head.weight, net.head.bias
        head.bias[3:] = -50
    net.head = head.eval()
    found = by_name(examine(net, data, QUICK))
    assert bad(list(found.values())) == ["wrong-class-count"]
    assert "gradient-masking-eps" in found


def test_files_sorted_by_class_do_no_harm(nets: dict[str, Small], data: Splits):
    order = data.test.labels.argsort(stable=True)
    test = Split(data.test.images[order], data.test.labels[order])
    splits = Splits(data.train, data.val, test, data.class_names, data.checksum)
    settings = QUICK.but(n=120)
    patient = admitted(nets["none"], splits, settings, None, None)
    assert torch.bincount(patient.y, minlength=3).min() > 20
    assert bad(examine(copy.deepcopy(nets["none"]), splits, settings)) == []


def test_images_come_from_the_first_part_that_has_some(nets: dict[str, Small], data: Splits):
    none = Split(data.test.images[:0], data.test.labels[:0])
    val = Splits(data.train, data.test, none, data.class_names, data.checksum)
    assert "300 val images, seed 0" in by_name(examine(nets["none"], val, QUICK))["dead-features"].found
    train_only = Splits(data.train, none, none, data.class_names, data.checksum)
    assert "train images" in by_name(examine(nets["none"], train_only, QUICK))["dead-features"].found
    with pytest.raises(UserError, match="no images"):
        examine(nets["none"], Splits(none, none, none, data.class_names, data.checksum), QUICK)


# ---------------------------------------------------------------- what findings say


def test_normalisation_names_the_setting_and_the_accuracies(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["imagenet"])
    net.mean, net.std = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    stats = STATISTICS["imagenet"]
    f = by_name(examine(net, data, QUICK, file_normalisation=stats))["wrong-normalisation"]
    # neighbours cannot be told apart on these images: the file has the last word
    assert f.remedy == "set model.normalise={mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
    x, y = admitted(net, data, QUICK, None, None).x, admitted(net, data, QUICK, None, None).y
    for name in ("cifar10", "half"):
        mean, std = STATISTICS[name] if name != "half" else ((0.5,) * 3, (0.5,) * 3)
        seen = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        net.mean, net.std = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
        with torch.no_grad():
            assert f.numbers[name] == pytest.approx(float((net(seen).argmax(1) == y).double().mean()))
    assert f.numbers["loaded"] == "none"
    without = by_name(examine(net, data, QUICK))["wrong-normalisation"]
    assert "model.normalise=" in without.remedy
    assert "300 test images, seed 0" in without.found


def test_range_and_twice_name_the_setting(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["bytes"])
    net.std = torch.ones(1, 1, 1, 1)
    assert "{mean: [0], std: [0.00392157]}" in by_name(examine(net, data, QUICK))["wrong-range"].remedy
    net = copy.deepcopy(nets["none"])
    net.mean, net.std = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.25)
    assert "model.normalise=none" in by_name(examine(net, data, QUICK))["normalised-twice"].remedy


def test_the_file_breaks_a_tie_but_not_the_evidence(nets: dict[str, Small], data: Splits, monkeypatch):
    monkeypatch.setattr(doctor, "STAGES", doctor.STAGES[:3])
    net = copy.deepcopy(nets["imagenet"])
    net.mean, net.std = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    near, far = ((0.6,), (0.3,)), ((0.65,), (0.9,))
    for stats, believed in ((near, True), (far, False)):
        f = by_name(examine(net, data, QUICK, file_normalisation=stats))["wrong-normalisation"]
        assert f.numbers["file"] < 1 == f.numbers["imagenet"]
        assert (str(stats[1][0]) in f.remedy) == believed


def test_the_other_view_is_the_right_one(nets: dict[str, Small], data: Splits, monkeypatch):
    monkeypatch.setattr(doctor, "STAGES", doctor.STAGES[:3])
    views = {"wrong-channel-order": lambda x: x.flip(1), "transposed-images": lambda x: x.transpose(2, 3)}
    whole = by_name(examine(copy.deepcopy(nets["none"]), data, QUICK))["transposed-images"]
    for name, view in views.items():
        net = copy.deepcopy(nets["none"])
        net.before = view
        f = by_name(examine(net, data, QUICK))[name]
        assert f.numbers["other"] == whole.numbers["as given"]


def test_permuted_labels_name_the_permutation(nets: dict[str, Small], data: Splits):
    moved = relabelled(lambda y: (y + 1) % 3)(data)
    f = by_name(examine(copy.deepcopy(nets["none"]), moved, QUICK))["permuted-labels"]
    assert f.numbers["class_of_output"] == [1, 2, 0]
    assert "0 is b, 1 is c, 2 is a" in f.found


class Planar(Small):
    """The pixels themselves are the features."""

    def features(self, x: Tensor) -> Tensor:
        return self.normalise(x).flatten(1)


def planar(classes: int) -> Planar:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Planar(classes, 3).eval()
        net.head = nn.Linear(108, classes, bias=False).eval()
    net.mean = torch.full((1, 1, 1, 1), 0.5)
    return net


def test_many_classes_and_random_labels_are_not_taken_for_a_permutation():
    # with 40 x 40 cells some renumbering fits any 60 images, but not the next 60
    g = seeded(3)
    images = torch.randint(256, (120, 3, 6, 6), generator=g).to(torch.uint8)
    split = Split(images, torch.randint(40, (120,), generator=g))
    names = tuple(str(i) for i in range(40))
    p = admitted(planar(40), Splits(split, split, split, names, "0"), QUICK, None, None)
    predicted, first = p.answers.argmax(dim=1), torch.arange(120) % 2 == 0
    counts = torch.zeros(40, 40, dtype=torch.int64)
    counts.index_put_((p.y[first], predicted[first]), torch.tensor(1), accumulate=True)
    fitted = renumbering(counts)[predicted[first]] == p.y[first]
    assert beats(fitted, predicted[first] == p.y[first], by=0.05), "else this test could not fail"
    assert by_name(labels(p))["permuted-labels"].level == "fine"


def test_what_was_left_out_is_said(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    net.after = infinite
    found = by_name(examine(net, data, QUICK))
    assert "normalisation" in found["not-examined"].found
    assert "radii" in found["not-examined"].found
    assert "gradient-masking-eps" not in found
    net = copy.deepcopy(nets["none"])
    net.head = nn.Linear(7, 3)
    assert set(by_name(examine(net, data, QUICK))) >= {"cannot-run", "not-examined"}
    net = copy.deepcopy(nets["none"])
    net.before = lambda x: x.detach()
    found = by_name(examine(net, data, QUICK))
    assert "no gradient" in found["not-examined"].found
    labels = relabelled(lambda y: (y + 1) % 3)(data)
    found = by_name(examine(copy.deepcopy(nets["none"]), labels, QUICK))
    assert "nothing to attack" in found["not-examined"].found


def test_modules_that_ignore_eval_are_named(nets: dict[str, Small], data: Splits):
    class Stubborn(nn.Dropout):
        def train(self, mode: bool = True) -> "Stubborn":
            self.training = True
            return self

    net = copy.deepcopy(nets["none"])
    net.drop = Stubborn(0.0)
    net.drop.training = False  # so that only eval() shows it
    f = by_name(examine(net, data, QUICK))["train-mode"]
    assert f.level == "warning"
    assert f.numbers["training"] == []


def test_batch_norm_accuracies_are_those_of_the_two_modes(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    net.bn.running_mean += 0.7
    settings = QUICK.but(batch=150)
    p = admitted(net, data, settings, None, None)
    f = by_name(examine(net, data, settings))["stale-batch-norm"]
    with torch.no_grad():
        running = (net(p.x).argmax(1) == p.y).double().mean()
        apart = copy.deepcopy(net)
        apart.bn.train()
        own = torch.cat([apart(p.x[:150]), apart(p.x[150:])])
    assert f.numbers["running"] == pytest.approx(float(running))
    assert f.numbers["batch"] == pytest.approx(float((own.argmax(1) == p.y).double().mean()))


def test_straight_through_rounding_is_no_wrong_gradient(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    net.before = lambda x: x + ((x * 255).round() / 255 - x).detach()
    assert by_name(examine(net, data, FULL))["wrong-gradients"].level == "fine"


def test_the_gradient_of_a_plane_tells_all():
    net = planar(2)
    splits = splits_of(2)
    p = admitted(net.double(), splits, QUICK, None, None)
    w = net.head.weight.detach()
    gradient = torch.where((p.few[1] == 0)[:, None], w[1] - w[0], w[0] - w[1]).view(p.few[0].shape).float()
    assert torch.allclose(_told(p, gradient, 0.25), torch.ones(12).double(), atol=1e-4)
    assert torch.allclose(_told(p, 2 * gradient, 0.25), torch.full((12,), 0.5).double(), atol=1e-4)


# ---------------------------------------------------------------- nothing is left behind


class Wandering(Small):
    """Moves its buffers in eval mode, puts another tensor into one, and draws from every global stream."""

    trip: int | None = None
    count = 0

    def features(self, x: Tensor) -> Tensor:
        self.count += 1
        if self.count == self.trip:
            raise Tripped
        self.bn.running_mean += 1e-6
        self.bn.running_var = self.bn.running_var * 1.0001
        noise = 1e-3 * (torch.rand(1) + random.random() + np.random.random())  # noqa: NPY002
        return super().features(x + noise.to(x))


def state(net: nn.Module) -> list[Any]:
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return [
        [(n, id(t), t.detach().clone(), t.requires_grad, copy.deepcopy(t.grad)) for n, t in tensors],
        [m.training for m in net.modules()],
    ]


def same(a: list[Any], b: list[Any]) -> bool:
    tensors = all(
        p[:2] == q[:2] and torch.equal(p[2], q[2]) and p[3] == q[3] and (p[4] is None) == (q[4] is None)
        and (p[4] is None or torch.equal(p[4], q[4])) for p, q in zip(a[0], b[0], strict=True)
    )  # fmt: skip
    return tensors and a[1] == b[1]


@pytest.mark.parametrize("trip", [None, 1, 3, 30, 60, 200])
def test_network_and_global_streams_are_as_before(trip: int | None, nets: dict[str, Small], data: Splits):
    net = Wandering(3, 3)
    net.load_state_dict(nets["none"].state_dict())
    net.train().bn.eval()
    net.conv.bias.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    net.trip = trip
    surrogate = copy.deepcopy(nets["robust"])
    before, other = state(net), state(surrogate)
    stream, array = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    try:
        examine(net, data, QUICK.but(n=100), surrogate=surrogate)
        assert trip is None
    except Tripped:
        assert trip is not None
    assert same(before, state(net))
    assert same(other, state(surrogate))
    assert torch.equal(stream, torch.get_rng_state())
    assert (array == np.random.get_state()[1]).all()  # noqa: NPY002


def test_untouched_restores_gradients_flags_and_what_was_written(nets: dict[str, Small]):
    net = copy.deepcopy(nets["none"])
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before = state(net)
    with pytest.raises(Tripped), untouched(net):  # noqa: PT012
        net.head.weight.grad.zero_()
        net.conv.weight.grad = torch.ones_like(net.conv.weight)
        net.conv.weight.requires_grad_(False)
        net.bn.train().running_var.fill_(3.0)
        raise Tripped
    assert same(before, state(net))


def test_batch_statistics_move_nothing(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    before, p = state(net), admitted(net, data, QUICK, None, None)
    assert not torch.equal(torch.cat(p.each(p.x, net, batch_statistics=True)), p.answers)
    assert same(before, state(net))
    assert net.bn.track_running_stats


def test_targets_are_the_likeliest_wrong_classes(nets: dict[str, Small], data: Splits):
    p = admitted(nets["none"], data, QUICK, None, None)
    for logits, label, target in zip(p.logits(p.few[0]), p.few[1], p._targets(*p.few), strict=True):
        wrong = [k for k in range(3) if k != int(label)]
        assert int(target) == max(wrong, key=lambda k: float(logits[k]))


def test_python_draws_are_put_back():
    # alone, since the shape checks of these tests draw from this stream themselves
    with private_randomness(0, torch.device("cpu")):
        first = random.random()
        before = random.getstate()
    inner = private_randomness(0, torch.device("cpu"))
    random.setstate(before)
    inner.__enter__()
    assert random.random() == first
    inner.__exit__(None, None, None)
    assert random.getstate() == before


def test_the_same_seed_gives_the_same_findings(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    net.before = lambda x: x + 0.05 * torch.randn_like(x)
    first = examine(net, data, QUICK)
    torch.rand(3)
    assert examine(net, data, QUICK) == first
    assert examine(net, data, QUICK.but(seed=1)) != first


def test_constants_come_back_after_an_exception(nets: dict[str, Small]):
    net = copy.deepcopy(nets["imagenet"])
    mean, std = net.mean, net.std
    with pytest.raises(Tripped):  # noqa: PT012
        with normalising(net, (0.5,), (0.25,)):
            assert float(net.normalise(torch.ones(1, 3, 2, 2))[0, 0, 0, 0]) == 2
            raise Tripped
    assert net.mean is mean
    assert net.std is std


def test_progress_counts_every_check(nets: dict[str, Small], data: Splits):
    told: list[tuple[str, int, int]] = []
    examine(copy.deepcopy(nets["none"]), data, QUICK, progress=lambda *a: told.append(a))
    assert [done for _, done, _ in told] == list(range(len(told)))
    assert told[-1] == ("done", len(told) - 1, len(told) - 1)


def test_a_doctor_needs_a_radius():
    with pytest.raises(ValueError, match="eps=0 attacks nothing"):
        Doctor(threat=Linf(eps=0))


# ---------------------------------------------------------------- what is more than chance


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (10, 0.5), (40, 0.02), (60, 0.135)])
def test_tail_is_the_exact_binomial(n: int, p: float):
    q = Fraction(p)
    for count in range(n + 1):
        exact = sum(math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(count, n + 1))
        assert tail(count, n, p) == pytest.approx(float(exact), rel=1e-9)
    assert tail(3, 3, 1.0) == 1


def test_comparisons_are_paired_and_ask_for_more_than_chance():
    a = torch.zeros(1000, dtype=torch.bool)
    a[:10] = True
    none = torch.zeros_like(a)
    assert beats(a, none)  # 10 : 0 has p = 2^-10 < 1/1000
    assert not beats(a[:9], none[:9])
    assert not beats(none, a)
    assert not beats(a, none, by=0.01)  # one per cent exactly is not more
    assert not beats(a, none, tests=2)
    half = torch.arange(1000) % 2 == 0
    assert not beats(half, ~half), "unpaired counts would be equal, too; here 500 : 500"
    assert beats(torch.ones(1000).bool(), half | (torch.arange(1000) > 20))


def test_a_share_is_exceeded_only_beyond_binomial_error():
    least = next(c for c in range(201) if exceeds(c, 200, 0.02))
    assert tail(least, 200, 0.02) < ALPHA <= tail(least - 1, 200, 0.02)
    assert not exceeds(0, 0, 0.02)


def test_renumbering_is_the_best_one_where_classes_are_clear():
    for meant in permutations(range(4)):
        counts = torch.randint(0, 20, (4, 4), generator=seeded(1))
        for output, true in enumerate(meant):
            counts[true, output] += 40
        assert renumbering(counts).tolist() == list(meant)
    assert renumbering(torch.ones(3, 3, dtype=torch.int64)).tolist() == [0, 1, 2]  # nothing moves unasked
