"""Recognition: names and shapes as they stand in the files of others, and in our own."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from crossclass import models
from crossclass.models import PreActResNet, ResNet, ViT, WideResNet, recognize
from networks import BUILT_IN, RAW, STRIDED, THIN, parameters
from published_networks import (
    official_deit,
    official_gradalign,
    official_preactresnet18,
    official_resnet,
    official_wideresnet,
    without_last_norm,
)


def seen(shapes):
    return recognize({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})


@pytest.mark.parametrize(
    ("shapes", "settings", "classes"),
    [
        (official_preactresnet18(), PreActResNet(), 10),
        (official_gradalign(), PreActResNet(last_norm=False, shortcut_input="raw"), 10),
        (without_last_norm(), PreActResNet(last_norm=False, shortcut_input="raw"), 10),
        (official_resnet((2, 2, 2, 2)), ResNet(), 10),
        (official_resnet((2, 2, 2, 2), classes=200, features=2048), ResNet(pool=4), 200),
        (official_resnet((3, 4, 6, 3), short="downsample", head="fc"), ResNet(depth=34), 10),
        (official_resnet((3, 3, 3), width=16), ResNet(blocks=(3, 3, 3), width=16), 10),
        (official_wideresnet(34, 10), WideResNet(), 10),
        (official_wideresnet(28, 10), WideResNet(depth=28), 10),
        (official_deit(), ViT(), 10),
        (official_deit(384, 3, 8, 4, 7), ViT(width=384, depth=3, patch=8, heads=6), 7),
    ],
    ids=lambda v: str(v)[:60] if not isinstance(v, dict) else "",
)
def test_files_of_others_are_recognised(shapes, settings, classes):
    found = seen(shapes)
    assert found == (settings, classes, 1.0)
    noted = {**shapes, "mu": (1, 3, 1, 1), "normalize.std": (3,), "total_ops": (1,)}
    assert seen(noted).share == 1.0, "normalisation and counters say nothing about the network"
    name = next(n for n in shapes if n.endswith("conv2.weight") or n.endswith("fc1.weight"))
    assert 0.9 < seen({n: s for n, s in shapes.items() if n != name}).share < 1
    assert 0.9 < seen({**shapes, "extra.weight": (3, 3)}).share < 1, "what nobody uses is not exact"


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        *((s, 32) for s in BUILT_IN if s != RAW),  # shapes do not show what a shortcut takes
        (PreActResNet(depth=50), 32),
        (ResNet(depth=50), 32),
        (THIN, 32),
        (STRIDED, 64),
    ],
    ids=str,
)
def test_our_own_networks_are_recognised(settings, size):
    net, _ = parameters(settings, 5, size)
    before = torch.random.get_rng_state()
    found = recognize(net.state_dict())
    assert torch.equal(before, torch.random.get_rng_state())
    assert found == (settings, 5, 1.0)


def test_networks_that_are_not_ours_give_the_closest():
    akamaster = seen(official_resnet((3, 3, 3), width=16, short=None))  # shortcuts without weights
    assert akamaster.settings == ResNet(blocks=(3, 3, 3), width=16)
    assert 0.85 < akamaster.share < 1
    imagenet = seen(official_resnet((2, 2, 2, 2), classes=1000, short="downsample", head="fc", kernel=7))
    assert imagenet.settings == ResNet()
    assert 0.9 < imagenet.share < 1, "ours has no max pooling behind the stem"
    odd = seen({**official_resnet((1, 1)), "linear.weight": (10, 4 * 128 + 1)})
    assert odd.settings.pool == "mean"
    assert odd.share < 1
    assert seen({"conv.weight": (3, 3, 3, 3), "fc.weight": (2, 3)}) is None
    assert seen({n: s for n, s in official_preactresnet18().items() if "linear" not in n}) is None
    assert recognize({}) is None


def test_a_published_resnet20_is_called_by_its_name():
    folder = os.environ.get("CROSSCLASS_SHARED")
    path = Path(folder or ".") / "data" / "checkpoints" / "resnet20-12fca82f.npz"
    if folder is None or not path.exists():
        pytest.skip("CROSSCLASS_SHARED names no folder with data/checkpoints/resnet20-12fca82f.npz")
    with np.load(path) as file:
        found = recognize({name: torch.tensor(file[name]) for name in file.files})
    assert found.share < 1
    assert models.describe(found.settings, found.classes) == "ResNet 3-3-3, width 16, 10 classes"
