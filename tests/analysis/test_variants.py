"""A file that fits two networks: the one whose weights they are is taken, with the right numbers.

The networks are trained on images of three classes; in their second stage everything goes through the
shortcut.
"""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crossclass.analysis import input_alternatives
from crossclass.analysis.feedings import Feeding
from crossclass.analysis.input_alternatives import try_feedings
from crossclass.analysis.settle_inputs import LEAST, settle
from crossclass.attacks import PGD
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.load import Identity, LoadedCheckpoint
from crossclass.data import Split, Splits
from crossclass.diagnostics import Doctor, examine, verdict
from crossclass.models import Classifier, PreActResNet, ResNet, ViT, statistics, variants_of, with_weights_of
from crossclass.models.reordered import Arrangement, Reordered
from faulty_networks import bad, by_name, splits_of
from measuring import measure
from networks import IMAGES, made
from tiny_runs import CPU

ACTIVATED = PreActResNet(width=8, blocks=(1, 1))
RAW = ACTIVATED.replace(shortcut_input="raw")


@pytest.fixture(scope="module")
def data() -> Splits:
    return splits_of()


@pytest.fixture(scope="module")
def nets(data) -> dict[str, Classifier]:
    """By what their shortcuts take; normalised by CIFAR-10's constants."""
    return {s.shortcut_input: trained(s, data) for s in (ACTIVATED, RAW)}


def trained(settings: PreActResNet, data: Splits) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = settings(3, 3, *statistics()["cifar10"], 6)
        net.layer2[0].conv2.weight.requires_grad_(False).zero_()
        optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.01)
        x, y = data.train.images.float() / 255, data.train.labels
        for _ in range(25):
            optimizer.zero_grad()
            F.cross_entropy(net.train()(x), y).backward()
            optimizer.step()
    return net.requires_grad_(True).eval()


def said(net: Classifier, data: Splits) -> torch.Tensor:
    with torch.no_grad():
        return net(data.test.images.float() / 255).argmax(dim=1)


def accuracy(net: Classifier, data: Splits) -> float:
    return float((said(net, data) == data.test.labels).double().mean())


def as_other(net: Classifier, settings: PreActResNet) -> Classifier:
    return with_weights_of(net, settings, 3, 6)


@pytest.fixture
def files(tmp_path, monkeypatch, data, nets):
    """`raw.pt` and `activated.pt`, weights and nothing else, and their images."""
    monkeypatch.chdir(tmp_path)
    for name, net in nets.items():
        torch.save({k: v for k, v in net.state_dict().items() if k not in ("mean", "std")}, f"{name}.pt")
    for part in ("train", "test"):
        split = getattr(data, part)
        np.savez(f"{part}.npz", images=split.images.permute(0, 2, 3, 1).numpy(), labels=split.labels.numpy())


SETTINGS = ["data.path=.", "clean=true"]


def test_the_case_is_a_case(nets, data):
    for own, other in ((ACTIVATED, RAW), (RAW, ACTIVATED)):
        net = nets[own.shortcut_input]
        assert accuracy(net, data) > accuracy(as_other(net, other), data) + 0.1


def test_raw_shortcuts_are_taken_and_named(files, nets, data):
    (r,) = measure(["raw.pt"], [*SETTINGS, "model.normalise=cifar10"], CPU)
    assert r["clean"] == pytest.approx(accuracy(nets["raw"], data))
    assert "raw shortcuts" in r["model"]
    (line,) = r["warnings"]
    assert "model.shortcut_input=raw" in line
    assert "model.shortcut_input=activated sets it otherwise" in line
    assert "shortcut_input=raw" in r["inputs"]["taken"]


def test_a_right_guess_is_kept_in_silence(files, nets, data):
    (r,) = measure(["activated.pt"], [*SETTINGS, "model.normalise=cifar10"], CPU)
    assert r["clean"] == pytest.approx(accuracy(nets["activated"], data))
    assert r["warnings"] == []
    assert "raw" not in r["model"]
    assert "shortcut_input=raw" in r["inputs"]["accuracies"]


def test_what_is_set_is_obeyed_and_the_better_network_named(files, nets, data):
    given = ["model.normalise=cifar10", "model.shortcut_input=activated"]
    (r,) = measure(["raw.pt"], [*SETTINGS, *given], CPU)
    assert r["clean"] == pytest.approx(accuracy(as_other(nets["raw"], ACTIVATED), data))
    named = [line for line in r["warnings"] if "set model.shortcut_input=raw" in line]
    assert len(named) == 1
    (r,) = measure(["raw.pt"], [*SETTINGS, "model.normalise=cifar10", "model.shortcut_input=raw"], CPU)
    assert r["clean"] == pytest.approx(accuracy(nets["raw"], data))
    assert r["warnings"] == []


def loaded(net: Classifier, data: Splits, settings: PreActResNet) -> LoadedCheckpoint:
    about = Identity(checkpoint="theirs", data="npz", model="small", normalise={}, source="t.pt", sha256="0")
    return LoadedCheckpoint(net, data, about, (Linf(),), None, "user", True, "cifar10", settings)


def marked(n: int, data: Splits) -> Splits:
    """Images that carry their class and a digit, for networks that are made up."""
    number = torch.arange(n)
    images = torch.zeros(n, 3, 6, 6, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 1, 0, 0] = number % 3, number // 3 % 10
    return Splits(data.train, data.val, Split(images, number % 3), data.class_names, data.checksum)


def made_up(monkeypatch, is_right) -> Classifier:
    """A network that is right where `is_right(raw, constants, digit)`, and guesses where that is False."""

    def predictions(model, feeding, x, batch=250):
        label, digit = ((255 * x[:, c, 0, 0]).round().long() for c in (0, 1))
        raw = model.layer2[0].raw_shortcut
        if feeding.variant is not None:
            raw = feeding.variant.settings.shortcut_input == "raw"
        right = is_right(raw, feeding.name if feeding.variant is None else feeding.constants, digit)
        return torch.zeros_like(label) if right is False else torch.where(right, label, (label + 1) % 3)

    def answers(model, feeding, x, outputs, batch):
        said = predictions(model, feeding, x, batch)
        return said, torch.where(said == outputs, 1.0, -1.0)

    monkeypatch.setattr(input_alternatives, "predictions", predictions)
    monkeypatch.setattr(input_alternatives, "_answers", answers)
    with torch.random.fork_rng(devices=[]):
        return ACTIVATED(3, 3, *statistics()["cifar10"], 6).eval()


CASES = [(600, (), 1), (60, (), 1), (600, ("shortcut_input",), 0)]


@pytest.mark.parametrize(("n", "given", "lines"), CASES, ids=["many", "few", "set"])
def test_two_networks_that_images_cannot_tell_are_named(data, monkeypatch, n, given, lines):
    net = made_up(monkeypatch, lambda raw, fed, digit: digit != raw if fed == "cifar10" or raw else False)
    one = replace(loaded(net, marked(n, data), ACTIVATED), given=frozenset(given))
    out = settle(one, "test", [PGD(steps=20)], n)
    assert out.loaded.model is net
    assert len(out.warnings) == lines
    for line in out.warnings:
        assert "cannot tell" in line
        assert "model.shortcut_input=raw" in line


@pytest.mark.parametrize("by", ["guess", "user"])
def test_a_wrong_network_that_is_also_normalised_wrongly_is_put_right(data, monkeypatch, by):
    none = ("none", statistics()["none"])
    net = made_up(monkeypatch, lambda raw, fed, digit: digit > 0 if raw and fed in none else False)
    out = settle(replace(loaded(net, marked(600, data), ACTIVATED), normalised_by=by), "test", [PGD()], 600)
    if by == "user":
        assert out.loaded.model is net
        return
    assert out.loaded.about.normalise == {"mean": [0], "std": [1]}
    assert "raw shortcuts" in out.loaded.about.model
    assert out.loaded.model.layer2[0].raw_shortcut
    (line,) = out.warnings
    assert "model.shortcut_input=raw model.normalise=none" in line


def test_a_sound_network_costs_no_more_than_before(nets, data):
    one = loaded(nets["activated"], data, ACTIVATED)
    out = settle(one, "test", [PGD(steps=20)], len(data.test))
    assert out.warnings == ()
    assert out.check.forward_passes < LEAST


@pytest.mark.parametrize("settings", [ACTIVATED, RAW, RAW.replace(last_norm=False), ViT(width=96, depth=2)])
def test_a_variant_is_the_network_of_its_settings(settings):
    x, model = IMAGES.float() / 255, made(settings)
    model.head.weight.requires_grad_(False)
    variants = variants_of(settings)
    assert variants
    for v in variants:
        with torch.random.fork_rng(devices=[]):
            by_hand = v.settings(5, 3, (0.5,) * 3, (0.5,) * 3, 16)
        by_hand.load_state_dict(model.state_dict())
        net = with_weights_of(model, v.settings, 3, 16)
        with torch.no_grad():
            assert torch.equal(net(x), by_hand.eval()(x))
            assert not torch.allclose(net(x), model(x))
            turned = with_weights_of(
                Reordered(model, Arrangement(channels=(2, 1, 0))).eval(), v.settings, 3, 16
            )
            assert torch.equal(turned(x), net(x.flip(1)))
        own = dict(model.named_parameters())
        assert all(p is own[n] for n, p in net.named_parameters())
        assert [n for n, p in own.items() if not p.requires_grad] == ["head.weight"]


def test_networks_that_shapes_show_have_no_variants():
    assert variants_of(None) == variants_of(ResNet()) == variants_of(PreActResNet(depth=50)) == ()
    assert {v.settings.heads for v in variants_of(ViT(width=768, heads=12))} == {8, 24}


def test_doctor_names_the_network_that_the_weights_are_for(nets, data):
    settings, variants = Doctor(n=300, n_attack=12, threat=Linf(eps=0.05), batch=100), variants_of(ACTIVATED)
    ill = as_other(copy.deepcopy(nets["raw"]), ACTIVATED)
    found = examine(ill, data, settings, variants=variants)
    assert [f.name for f in found if f.level == "fault" and not f.follows_from] == ["wrong-variant"]
    assert by_name(found)["wrong-variant"].remedy.startswith("set model.shortcut_input=raw")
    assert "model.shortcut_input=raw" in verdict(found)
    sound = examine(copy.deepcopy(nets["activated"]), data, settings, variants=variants)
    assert "wrong-variant" not in bad(sound)
    assert by_name(sound)["wrong-variant"].level == "fine"


def test_one_image_is_no_reason_for_a_warning_of_torch(nets, data):
    x, y = data.test.images[:1].float() / 255, data.test.labels[:1]
    known = statistics()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        others = [Feeding(n, known[n]) for n in ("none", "imagenet")]
        trial = try_feedings(nets["raw"], x, y, Feeding("cifar10", known["cifar10"]), others)
    assert trial.loaded.n == 1
