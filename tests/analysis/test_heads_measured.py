"""Every door that needs a head takes the one that gives the logits, or says in a sentence what it takes."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import crossclass as cc
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.data import Npz
from measuring import measure

CPU = Runtime(device="cpu", threads=1)


class Body(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.fc, self.rot = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, classes), nn.Linear(6, classes)
        self.cls = nn.Conv2d(6, classes, 1)

    def g(self, x):
        return self.conv(x).relu().mean((2, 3))


class Auxiliary(Body):
    def forward(self, x):
        g = self.g(x)
        out = self.fc(g)
        self.seen = self.rot(g)
        return out


class Cosine(Body):
    def forward(self, x):
        return 8 * F.linear(F.normalize(self.g(x)), F.normalize(self.fc.weight))


class Squeeze(Body):
    def forward(self, x):
        return self.cls(self.conv(x).relu()).relu().mean((2, 3))


class Softmax(Body):
    def forward(self, x):
        return self.fc(self.g(x)).softmax(1)


NETS = (Auxiliary, Cosine, Squeeze, Softmax)


@pytest.fixture
def here(tmp_path, monkeypatch, trusted):
    """Images of four classes, and the weights of each network."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("somebodys")
    labels = np.arange(60) % 4
    images = np.random.default_rng(0).integers(0, 120, (60, 8, 8, 3)) + (40 * labels)[:, None, None, None]
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", images=images.astype(np.uint8), labels=labels)
    for net in NETS:
        setattr(module, net.__name__, net)
        torch.manual_seed(0)
        torch.save(net().state_dict(), f"{net.__name__}.pth")
    monkeypatch.setitem(sys.modules, "somebodys", module)
    return tmp_path


def of(name: str, *more: str):
    settings = [f"model=python:somebodys:{name}", "data.path=.", "attack=none", "model.normalise=none"]
    return measure([f"{name}.pth"], [*settings, *more], CPU)[0]


def test_an_auxiliary_head_that_runs_last_is_not_taken(here):
    found, named, other = (of("Auxiliary", *more) for more in ([], ["model.head=fc"], ["model.head=rot"]))
    assert found["head"] == named["head"] == {"layer": "fc", "matches_logits": True}
    assert found["cas"] == named["cas"] != other["cas"]
    assert other["head"] == {"layer": "rot", "matches_logits": False}
    assert any("'rot', which was named" in w for w in other["warnings"])
    assert not any("W g(x)" in w for w in (*found["warnings"], *named["warnings"]))


@pytest.mark.parametrize(("name", "words"), [("Cosine", "is not W g(x) + b"), ("Softmax", "its softmax")])
def test_another_attribution_than_of_a_linear_layer_is_a_warning_in_the_result(here, name, words):
    assert any(words in w for w in of(name)["warnings"])


def test_without_a_head_a_measurement_is_refused_and_doctor_says_it(here, call):
    with pytest.raises(UserError, match=r"'cls' differs by .* %.*model\.head=") as e:
        of("Squeeze")
    assert str(e.value).isprintable()
    r = of("Squeeze", "model.head=cls")
    assert r["head"] == {"layer": "cls", "matches_logits": False}
    assert any("'cls', which was named" in w for w in r["warnings"])
    network = ["model=python:somebodys:Squeeze", "model.normalise=none", "data.path=."]
    _, out, _ = call("doctor", "Squeeze.pth", *network, "n=40", "n_attack=10", "--trust")
    assert "head-mismatch: W g(x) + b and outputs differ" in out
    assert "'cls', the closest that it has" in out


def test_evaluate_in_python_checks_the_head(here):
    split = Npz(path=here)().test
    torch.manual_seed(0)
    for net, said in ((Auxiliary(), ()), (Softmax(), ("its softmax",))):
        model = cc.Wrapped(net, 4, 3, (0.0,), (1.0,), 8).eval()
        result = cc.evaluate(model, split, None)
        assert result.head is not None
        assert result.head.layer == "fc"
        assert result.head.matches_logits == (not said)
        assert len(result.head_warnings) == len(said)
        assert all(word in w for word, w in zip(said, result.head_warnings, strict=True))
    squeeze = cc.Wrapped(Squeeze(), 4, 3, (0.0,), (1.0,), 8).eval()
    with pytest.raises(UserError, match=r"model\.head="):
        cc.evaluate(squeeze, split, None)


@pytest.mark.parametrize("partial", [False, True])
def test_a_head_of_other_classes_is_one_sentence(here, partial):
    data = dict(np.load("test.npz"))
    for folder, labels in (("from1", data["labels"] + 1), ("no_last", np.minimum(data["labels"], 2))):
        Path(folder).mkdir()
        for part in ("test",):
            np.savez(f"{folder}/{part}.npz", images=data["images"], labels=labels)
    settings = ["model=python:somebodys:Auxiliary", "attack=none"]
    words = {"from1": r"4 classes apart, the data have 5 \(no image of class 0", "no_last": "data have 3;"}
    for folder, sentence in words.items():
        with pytest.raises(UserError, match=sentence):
            measure(["Auxiliary.pth"], [*settings, f"data.path={folder}"], CPU, allow_partial=partial)


class Doubled(Body):
    """Twice its logits for bright images: an expert that few images reach."""

    def forward(self, x):
        z = self.fc(self.g(x))
        return torch.where((x.mean((1, 2, 3)) > 0.9)[:, None], 2 * z, z)


def test_the_head_is_checked_on_every_image(here):
    data = dict(np.load("test.npz"))
    few = data["images"].repeat(3, axis=0)
    few[-5:] = 255
    np.savez("test.npz", images=few, labels=data["labels"].repeat(3, axis=0))
    torch.manual_seed(0)
    model = cc.Wrapped(Doubled(), 4, 3, (0.0,), (1.0,), 8).eval()
    result = cc.evaluate(model, Npz(path=here)().test, None)
    assert result.head is not None
    assert not result.head.matches_logits
    (warning,) = result.head_warnings
    assert "of 5 of the 180 images" in warning
