"""What the author of a network says about its inputs is asked before anything is guessed."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crossclass.core.runtime import Runtime
from crossclass.models import HF, Python, Timm, Torchvision
from crossclass.models.published import published, published_beside
from measuring import measure

CPU = Runtime(device="cpu", threads=1)
MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)


class Net(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


class OfTimm(Net):
    def __init__(self, classes: int = 4) -> None:
        super().__init__(classes)
        self.pretrained_cfg = {"mean": MEAN, "std": STD, "input_size": (3, 16, 16), "crop_pct": 0.9}


@pytest.fixture
def here(tmp_path, monkeypatch, trusted):
    """Images [8, 8] of four classes, and a file of weights for `somebodys:Net` and `somebodys:OfTimm`."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("somebodys")
    module.Net, module.OfTimm = Net, OfTimm
    monkeypatch.setitem(sys.modules, "somebodys", module)
    labels = np.arange(40) % 4
    g = np.random.default_rng(0)
    for part in ("train", "test"):
        images = g.integers(0, 120, (40, 8, 8, 3)) + (40 * labels)[:, None, None, None]
        np.savez(tmp_path / f"{part}.npz", images=images.astype(np.uint8), labels=labels)
    torch.manual_seed(0)
    torch.save(Net().state_dict(), "a.pth")
    return tmp_path


def of(net: str, *more: str):
    (r,) = measure(["a.pth"], [f"model=python:somebodys:{net}", "data.path=.", "attack=none", *more], CPU)
    return r


def said(mean=MEAN, std=STD):
    return {"mean": list(mean), "std": list(std)}


def test_timms_constants_are_taken_and_their_source_is_stored(here):
    r = of("OfTimm", "check_inputs=false")
    assert r["normalise"] == said()
    source = "pretrained_cfg of somebodys:OfTimm"
    stored = {"source": source, **said(), "size": [16, 16], "crop_pct": 0.9}
    assert r["conditions"]["published"] == stored
    assert any(line.startswith(f"normalisation: {source} says") for line in r["loaded"])
    assert any("16 x 16; these are 8 x 8" in line for line in r["loaded"])
    assert "published" not in of("Net", "check_inputs=false")["conditions"]


def test_an_explicit_setting_wins_with_a_warning(here):
    r = of("OfTimm", "model.normalise=none", "check_inputs=false")
    assert r["normalise"] == {"mean": [0.0], "std": [1.0]}
    assert "pretrained_cfg" in r["warnings"][0]
    same = of("OfTimm", f"model.normalise={{mean: {list(MEAN)}, std: {list(STD)}}}", "check_inputs=false")
    assert same["normalise"] == said()
    assert not any("pretrained_cfg" in w for w in same["warnings"])
    checked = of("OfTimm", "model.normalise=none")
    assert any("pretrained_cfg" in w for w in checked["warnings"])


PROCESSORS = {
    "as usual": ({}, MEAN, STD),
    "bytes": ({"do_rescale": False}, [m / 255 for m in MEAN], [s / 255 for s in STD]),
    "half": ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, [0.5], [0.5]),
    "nothing": ({"do_normalize": False}, [0.0], [1.0]),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_a_preprocessor_beside_the_file_is_asked_first(here, case):
    changes, mean, std = PROCESSORS[case]
    config = {"image_mean": list(MEAN), "image_std": list(STD), "size": {"height": 8, "width": 8}}
    Path("preprocessor_config.json").write_text(json.dumps(config | changes))
    r = of("OfTimm", "check_inputs=false")
    assert r["normalise"] == said([round(m, 4) for m in mean], [round(s, 4) for s in std])
    assert r["conditions"]["published"]["source"] == "preprocessor_config.json beside the file"
    assert not any("resized" in line for line in r["loaded"])


def test_timms_config_beside_the_file_and_damaged_ones(here):
    Path("preprocessor_config.json").write_text('{"image_mean": [1e999], "image_std": [0]}')
    Path("config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}))
    assert of("Net", "check_inputs=false")["normalise"] == said([0.1] * 3, [0.2] * 3)
    for text in ("{", "[1]", '{"pretrained_cfg": 3}', '{"pretrained_cfg": {"mean": "x", "std": [1]}}', "{}"):
        Path("config.json").write_text(text)
        assert published_beside(Path("a.pth"), 3) is None


def test_torchvisions_transforms(monkeypatch):
    def get_model_weights(name):
        transforms = types.SimpleNamespace(mean=list(MEAN), std=list(STD), crop_size=[32])
        weights = types.SimpleNamespace(name="V1", transforms=lambda: transforms)
        return types.SimpleNamespace(DEFAULT=weights, V1=weights)

    top = types.ModuleType("torchvision")
    top.models = types.SimpleNamespace(get_model_weights=get_model_weights)
    monkeypatch.setitem(sys.modules, "torchvision", top)
    for weights in (None, "V1", "Tiny_Weights.V1"):
        found = published(Torchvision(name="tiny", weights=weights), Net(), 3)
        assert (found.mean, found.std, found.size) == (MEAN, STD, (32, 32))
        assert "torchvision's tiny's weights V1" in found.source
    assert published(Torchvision(name="tiny", weights="V9"), Net(), 3) is None
    assert published(Torchvision(name="tiny"), Net(), 1) is None


def test_what_the_hub_says(monkeypatch, tmp_path):
    module = types.ModuleType("huggingface_hub")
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": list(MEAN), "image_std": list(STD), "size": {"shortest_edge": 9}})
    )
    module.hf_hub_download = lambda repo, name: str(tmp_path / name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    found = published(HF(repo="me/it"), Net(), 3)
    assert (found.mean, found.std, found.size) == (MEAN, STD, (9, 9))
    assert published(HF(repo="me/it"), OfTimm(), 3).source.startswith("pretrained_cfg")
    assert published(Timm(name="x"), Net(), 3) is None
    assert published(Python(call="a:b"), Net(), 3) is None
