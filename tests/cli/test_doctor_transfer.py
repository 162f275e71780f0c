"""`doctor transfer=`: what the second network is read as."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

NETS = """
from torch import nn

def net(num_classes=3, width=4):
    pooled = nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*pooled, nn.Linear(width, num_classes))
"""


@pytest.fixture
def examine(tmp_path, monkeypatch, call):
    """Run the doctor on `first.pth`, a network of the current folder, with a second one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("transfer_nets.py").write_text(NETS)
    import transfer_nets

    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        torch.save({"ema": transfer_nets.net().state_dict()}, f"{name}.pth")
    torch.save(transfer_nets.net().state_dict(), "bare.pth")
    torch.save(transfer_nets.net(width=5).state_dict(), "other.pth")
    pictures = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    np.savez("test.npz", images=pictures, labels=np.arange(24) % 3)

    def run(second: str, *more: str) -> tuple[int, str, str]:
        settings = ("model=python:transfer_nets:net", "data.path=.", "everything=true", "runtime.threads=1")
        return call("doctor", "first.pth", *settings, f"transfer={second}", *more)

    yield run
    sys.modules.pop("transfer_nets", None)


def test_a_file_that_nobody_recognises_is_the_network_that_is_named(examine):
    code, out, err = examine("second.pth")
    assert code != 2, err
    lines = [line for line in out.splitlines() if line.startswith("transfer=second.pth: ")]
    assert "transfer_nets:net" in lines[0]


def test_what_is_said_of_the_first_file_and_its_images_is_not_of_the_second(examine):
    _, out, err = examine("bare.pth", "weights.container=ema", "model.normalise=imagenet")
    assert not err
    notes = "".join(line for line in out.splitlines() if line.startswith("transfer="))
    assert "nobody says it" in notes, "how the second is normalised"


def test_neither_recognised_nor_the_network_that_is_named(examine):
    code, out, err = examine("other.pth")
    assert (code, out) == (2, "")
    assert "other.pth" in err
    assert "model=" in err


def test_a_file_that_is_not_there_is_said_once(examine):
    code, _, err = examine("nowhere.pth")
    assert code == 2
    assert err.count("nowhere.pth") == 1


@pytest.mark.parametrize("ending", ["html", "json"])
def test_how_far_cas_moves_is_said_although_nothing_is_wrong(examine, monkeypatch, call, ending):
    from crossclass import diagnostics
    from crossclass.diagnostics.findings import finding

    sound = finding("movable-cas", "note", False, "CAS is 6.17, and 29.02 elsewhere", "")
    monkeypatch.setattr(diagnostics, "examine", lambda *_, **__: [sound])
    where = ("model=python:transfer_nets:net", "data.path=.", "runtime.threads=1", f"out=found.{ending}")
    _, out, _ = call("doctor", "first.pth", *where)
    assert "about    CAS is 6.17, and 29.02 elsewhere" in out.splitlines()
    assert "CAS is 6.17, and 29.02 elsewhere" in Path(f"found.{ending}").read_text()
