"""Recognition: names and shapes as they stand in the files of others, and in our own."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from crossclass import models
from crossclass.models import PreActResNet, ResNet, ViT, WideResNet, recognize
from networks import BUILT_IN, STRIDED, THIN, parameters


def norm(name, n):
    return {f"{name}.{k}": (n,) for k in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()
    }


def official_preactresnet18(classes=10):
    shapes = {"conv1.weight": (64, 3, 3, 3), **norm("bn", 512)}
    shapes |= {"linear.weight": (classes, 512), "linear.bias": (classes,)}
    for stage, (a, b) in enumerate(pairwise([64, 64, 128, 256, 512]), 1):
        for i in range(2):
            name, inputs = f"layer{stage}.{i}", a if i == 0 else b
            shapes |= {**norm(f"{name}.bn1", inputs), **norm(f"{name}.bn2", b)}
            shapes |= {f"{name}.conv1.weight": (b, inputs, 3, 3), f"{name}.conv2.weight": (b, b, 3, 3)}
            if inputs != b:
                shapes[f"{name}.shortcut.0.weight"] = (b, inputs, 1, 1)
    return shapes


def official_resnet(blocks, width=64, classes=10, features=None, short="shortcut", head="linear", kernel=3):
    shapes, inputs = {"conv1.weight": (width, 3, kernel, kernel), **norm("bn1", width)}, width
    for stage, count in enumerate(blocks, 1):
        b = width * 2 ** (stage - 1)
        for i in range(count):
            name = f"layer{stage}.{i}"
            shapes |= {**norm(f"{name}.bn1", b), **norm(f"{name}.bn2", b)}
            shapes |= {f"{name}.conv1.weight": (b, inputs, 3, 3), f"{name}.conv2.weight": (b, b, 3, 3)}
            if inputs != b and short:
                shapes |= {f"{name}.{short}.0.weight": (b, inputs, 1, 1), **norm(f"{name}.{short}.1", b)}
            inputs = b
    return shapes | {f"{head}.weight": (classes, features or inputs), f"{head}.bias": (classes,)}


def official_wideresnet(depth, widen):
    shapes = {"conv1.weight": (16, 3, 3, 3), **norm("bn1", 64 * widen)}
    shapes |= {"fc.weight": (10, 64 * widen), "fc.bias": (10,)}
    groups = {
        "block1": (16, 16),
        "sub_block1": (16, 16),
        "block2": (16 * widen, 32),
        "block3": (32 * widen, 64),
    }
    for group, (a, b) in groups.items():
        for i in range((depth - 4) // 6):
            name, outputs, inputs = f"{group}.layer.{i}", b * widen, a if i == 0 else b * widen
            shapes |= {**norm(f"{name}.bn1", inputs), **norm(f"{name}.bn2", outputs)}
            shapes[f"{name}.conv1.weight"] = (outputs, inputs, 3, 3)
            shapes[f"{name}.conv2.weight"] = (outputs, outputs, 3, 3)
            if inputs != outputs:
                shapes[f"{name}.convShortcut.weight"] = (outputs, inputs, 1, 1)
    return shapes


def official_deit(width=192, depth=12, patch=4, grid=8, classes=10):
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + grid**2, width)}
    shapes |= {"head.weight": (classes, width), "head.bias": (classes,)}
    shapes |= {"patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for i in range(depth):
        for name, (a, b) in layers.items():
            shapes |= {
                f"blocks.{i}.{name}.weight": (a * width, b * width),
                f"blocks.{i}.{name}.bias": (a * width,),
            }
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (width,), f"blocks.{i}.{name}.bias": (width,)}
    return shapes


def seen(shapes):
    return recognize({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})


@pytest.mark.parametrize(
    ("shapes", "settings", "classes", "size"),
    [
        (official_preactresnet18(), PreActResNet(), 10, 32),
        (official_resnet((2, 2, 2, 2)), ResNet(), 10, 32),
        (official_resnet((2, 2, 2, 2), classes=200, features=2048), ResNet(pool=4), 200, 64),
        (official_resnet((3, 4, 6, 3), short="downsample", head="fc"), ResNet(depth=34), 10, 32),
        (official_resnet((3, 3, 3), width=16), ResNet(blocks=(3, 3, 3), width=16), 10, 32),
        (official_wideresnet(34, 10), WideResNet(), 10, 32),
        (official_wideresnet(28, 10), WideResNet(depth=28), 10, 32),
        (official_deit(), ViT(), 10, 32),
        (official_deit(384, 3, 8, 4, 7), ViT(width=384, depth=3, patch=8, heads=6), 7, 32),
    ],
    ids=lambda v: str(v)[:60] if not isinstance(v, dict) else "",
)
def test_files_of_others_are_recognised(shapes, settings, classes, size):
    found = seen(shapes)
    assert found == (settings, classes, 3, size, 1.0)
    noted = {**shapes, "mu": (1, 3, 1, 1), "normalize.std": (3,), "total_ops": (1,)}
    assert seen(noted).share == 1.0, "normalisation and counters say nothing about the network"
    name = next(n for n in shapes if n.endswith("conv2.weight") or n.endswith("fc1.weight"))
    assert 0.9 < seen({n: s for n, s in shapes.items() if n != name}).share < 1
    assert 0.9 < seen({**shapes, "extra.weight": (3, 3)}).share < 1, "what nobody uses is not exact"


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        *((s, 32) for s in BUILT_IN),
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
    assert found == (settings, 5, 3, size, 1.0)


def test_networks_that_are_not_ours_give_the_closest():
    akamaster = seen(official_resnet((3, 3, 3), width=16, short=None))  # shortcuts without weights
    assert akamaster.settings == ResNet(blocks=(3, 3, 3), width=16)
    assert 0.85 < akamaster.share < 1
    imagenet = seen(official_resnet((2, 2, 2, 2), classes=1000, short="downsample", head="fc", kernel=7))
    assert imagenet.settings == ResNet()
    assert 0.9 < imagenet.share < 1, "ours has no max pooling behind the stem"
    kuangliu = seen({n: s for n, s in official_preactresnet18().items() if not n.startswith("bn.")})
    assert kuangliu.settings == PreActResNet()
    assert kuangliu.share < 1
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
