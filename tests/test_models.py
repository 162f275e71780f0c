"""Models: [0, 1] in, K rows out; normalisation inside; features and head explain the logits.

Each family is computed again from its published names, slowly and in float64.
"""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crossclass import models
from crossclass.errors import UserError
from crossclass.models import (
    STATISTICS,
    AnyModel,
    MeanStd,
    PreActResNet,
    Python,
    ResNet,
    ViT,
    WideResNet,
    adapted,
    recognise,
    vit,
)
from crossclass.recipes import Run
from crossclass.settings import adapter, kind_of, load_yaml, members, override

IMAGES = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
THIN = PreActResNet(width=4, stem=4, stem_stride=2, blocks=(1, 1))
SMALL = {
    "preactresnet": THIN,
    "resnet": ResNet(width=4, blocks=(1, 2)),
    "wideresnet": WideResNet(depth=10, widen=1),
    "vit": ViT(width=12, depth=2, heads=3),
}
STRIDED = ResNet(width=4, blocks=(1, 1), stem=4, stem_stride=2, pool=4)
BUILT_IN = [*SMALL.values(), ResNet(width=2, depth=50, blocks=(1, 1), pool=4), THIN.but(depth=50)]
FOREIGN = {"python", "timm", "torchvision", "hf"}


def made(settings, size=16, classes=5, channels=3, seed=0):
    """A net whose norms have seen something, in eval mode."""
    images = IMAGES[:, :channels].repeat(1, 1, size // 16, size // 16)
    net = models.build(settings.but(normalise="data"), images, classes, seed)
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, t in net.state_dict().items():
            if name.endswith("running_var"):
                t.copy_(0.5 + torch.rand(t.shape, generator=g))
            elif name not in ("mean", "std") and t.is_floating_point() and t.ndim <= 1:
                t.add_(0.3 * torch.randn(t.shape, generator=g))
        if isinstance(settings, ViT):
            net.cls_token.add_(torch.randn(net.cls_token.shape, generator=g))
    return net.eval()


# Contracts over every family


def test_every_family_is_tested_here():
    assert {kind_of(m) for m in members(AnyModel)} == set(SMALL) | FOREIGN
    assert all(settings.kind == kind for kind, settings in SMALL.items())


@pytest.mark.parametrize("settings", BUILT_IN, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_k_rows_out_and_outputs_are_features_and_logits_of_one_forward(settings, channels):
    net = made(settings, channels=channels)
    x = torch.rand(3, channels, 16, 16)
    forwards = []
    net.head.register_forward_hook(lambda *a: forwards.append(1))
    g, logits = net.outputs(x)
    assert len(forwards) == 1
    assert logits.shape == (3, 5)
    assert torch.equal(g, net.features(x))
    assert torch.equal(logits, net(x))
    assert torch.allclose(logits, g @ net.head.weight.T + net.head.bias, atol=1e-5)
    assert torch.allclose(net(x[1:2]), logits[1:2], atol=1e-5), "a sample must not depend on its batch"


@pytest.mark.parametrize("settings", BUILT_IN, ids=str)
def test_the_saliency_layer_gives_a_map_through_which_the_image_acts(settings):
    net, x = made(settings), torch.rand(2, 3, 16, 16)
    seen = []
    net.saliency_layer().register_forward_hook(lambda m, a, out: seen.append(out))
    (slope,) = torch.autograd.grad(net(x)[:, 1].sum(), seen)
    fine = net.as_map(slope)
    assert fine.ndim == 4
    assert fine.shape[0] == 2
    assert fine.shape[2] == fine.shape[3] > 1
    assert (fine.abs().amax(dim=(1, 2, 3)) > 0).all(), "the map's gradient is zero"


@pytest.mark.parametrize("settings", BUILT_IN, ids=str)
def test_the_last_map_splits_the_attribution_over_space(settings):
    # CAM identity: the mean over space of sum_k W[c,k] F_k is logit_c - bias_c
    net, x = made(settings, size=32), torch.rand(2, 3, 32, 32)
    layer = net.last_map_layer()
    if isinstance(settings, ViT) or getattr(settings, "pool", "mean") != "mean":
        assert layer is None
        return
    seen = []
    layer.register_forward_hook(lambda m, a, out: seen.append(out))
    logits = net(x)
    cam = torch.einsum("ck,nkuv->ncuv", net.head.weight, seen[0])
    assert seen[0].shape[-1] > 1
    assert torch.allclose(cam.mean(dim=(2, 3)), logits - net.head.bias, atol=1e-4)


@pytest.mark.parametrize("settings", BUILT_IN, ids=str)
def test_the_seed_alone_decides_and_rebuilding_gives_the_same_function(settings):
    before = torch.random.get_rng_state()
    a, b, c = (models.build(settings, IMAGES, 5, seed).state_dict() for seed in (0, 0, 1))
    net = made(settings)
    again = models.rebuild(settings, net.state_dict(), 5, 3, 16)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])
    assert not again.training
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(net(x), again(x))
    with pytest.raises(UserError, match="do not fit"):
        models.rebuild(settings, net.state_dict(), 6, 3, 16)


@pytest.mark.parametrize("settings", BUILT_IN, ids=str)
def test_settings_are_plain_text_and_back(settings):
    assert load_yaml(type(settings), settings.yaml(), "f") == settings
    assert models.settings_of(settings.plain()) == settings
    assert models.describe(settings, 5).endswith(", 5 classes")


# Literal versions


def bn(s, name, x):
    weight, bias, mean, var = (
        s[f"{name}.{k}"][:, None, None] for k in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def conv(s, name, x, stride=1):
    kernel = s[f"{name}.weight"]
    return F.conv2d(x, kernel, stride=stride, padding=(kernel.shape[-1] - 1) // 2)


def relu(x):
    return x.clamp(min=0)


def literal_preactresnet(s, x, settings, blocks):
    out = conv(s, "conv1", x, settings.stem_stride)
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, stride = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            h = relu(bn(s, f"{name}.bn1", out))
            short = conv(s, f"{name}.shortcut.0", h, stride) if f"{name}.shortcut.0.weight" in s else out
            if settings.depth == 50:
                h = conv(s, f"{name}.conv1", h)
                h = conv(s, f"{name}.conv2", relu(bn(s, f"{name}.bn2", h)), stride)
                h = conv(s, f"{name}.conv3", relu(bn(s, f"{name}.bn3", h)))
            else:
                h = conv(s, f"{name}.conv1", h, stride)
                h = conv(s, f"{name}.conv2", relu(bn(s, f"{name}.bn2", h)))
            out = h + short
    return relu(bn(s, "bn", out)).mean(dim=(2, 3))


def literal_resnet(s, x, settings, blocks):
    out = relu(bn(s, "bn1", conv(s, "conv1", x, settings.stem_stride)))
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, stride, short = f"layer{stage + 1}.{i}", 2 if stage and not i else 1, out
            if f"{name}.shortcut.0.weight" in s:
                short = bn(s, f"{name}.shortcut.1", conv(s, f"{name}.shortcut.0", out, stride))
            if settings.depth == 50:
                h = relu(bn(s, f"{name}.bn1", conv(s, f"{name}.conv1", out)))
                h = relu(bn(s, f"{name}.bn2", conv(s, f"{name}.conv2", h, stride)))
                h = bn(s, f"{name}.bn3", conv(s, f"{name}.conv3", h))
            else:
                h = relu(bn(s, f"{name}.bn1", conv(s, f"{name}.conv1", out, stride)))
                h = bn(s, f"{name}.bn2", conv(s, f"{name}.conv2", h))
            out = relu(h + short)
    return (
        out.mean(dim=(2, 3)) if settings.pool == "mean" else F.avg_pool2d(out, settings.pool).view(len(x), -1)
    )


def literal_wideresnet(s, x, count):
    out = conv(s, "conv1", x)
    for group in (1, 2, 3):
        for i in range(count):
            name, stride = f"block{group}.layer.{i}", 2 if group > 1 and not i else 1
            h = relu(bn(s, f"{name}.bn1", out))
            short = conv(s, f"{name}.convShortcut", h, stride) if f"{name}.convShortcut.weight" in s else out
            h = conv(s, f"{name}.conv2", relu(bn(s, f"{name}.bn2", conv(s, f"{name}.conv1", h, stride))))
            out = short + h
    return relu(bn(s, "bn1", out)).mean(dim=(2, 3))


def layer_norm(s, name, x):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
    return scaled * s[f"{name}.weight"] + s[f"{name}.bias"]


def linear(s, name, x):
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def literal_vit(s, x, settings):
    p, d = settings.patch, settings.width // settings.heads
    rows = []
    for image in x:
        tokens = [s["cls_token"][0, 0]]
        for u in range(0, x.shape[2], p):
            for v in range(0, x.shape[3], p):
                cell = image[:, u : u + p, v : v + p]
                kernel, bias = s["patch_embed.proj.weight"], s["patch_embed.proj.bias"]
                tokens.append((kernel * cell).sum(dim=(1, 2, 3)) + bias)
        t = torch.stack(tokens) + s["pos_embed"][0]
        for i in range(settings.depth):
            name = f"blocks.{i}"
            q, k, v = linear(s, f"{name}.attn.qkv", layer_norm(s, f"{name}.norm1", t)).chunk(3, dim=1)
            heads = []
            for h in range(settings.heads):
                part = slice(h * d, (h + 1) * d)
                scores = torch.exp(q[:, part] @ k[:, part].T / d**0.5)
                heads.append(scores / scores.sum(dim=1, keepdim=True) @ v[:, part])
            t = t + linear(s, f"{name}.attn.proj", torch.cat(heads, dim=1))
            h = linear(s, f"{name}.mlp.fc1", layer_norm(s, f"{name}.norm2", t))
            t = t + linear(s, f"{name}.mlp.fc2", h * 0.5 * (1 + torch.erf(h / 2**0.5)))
        rows.append(layer_norm(s, "norm", t)[0])
    return torch.stack(rows)


def literal(settings, s, x):
    if isinstance(settings, PreActResNet):
        return literal_preactresnet(s, x, settings, settings.blocks)
    if isinstance(settings, ResNet):
        return literal_resnet(s, x, settings, settings.blocks)
    if isinstance(settings, WideResNet):
        return literal_wideresnet(s, x, (settings.depth - 4) // 6)
    return literal_vit(s, x, settings)


@pytest.mark.parametrize(
    "settings",
    [*BUILT_IN, WideResNet(depth=16, widen=2), ResNet(width=3, stem=5, stem_stride=2, blocks=(2, 1, 1))],
    ids=str,
)
def test_features_equal_the_literal_version(settings):
    net = made(settings, size=32).double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = literal(settings, dict(net.state_dict()), net.normalise(x))
    assert torch.allclose(net.features(x), expected, rtol=1e-9, atol=1e-11)


# Known networks


def parameters(settings, classes=10, size=32):
    with torch.device("meta"):
        net = settings(classes, 3, (0.0,), (1.0,), size)
    return net, sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("settings", "count", "width"),
    [
        (PreActResNet(), 11_172_170, 512),
        (PreActResNet(depth=34), 21_280_330, 512),
        (PreActResNet(depth=50), 23_513_162, 2048),
        (ResNet(), 11_173_962, 512),
        (ResNet(depth=34), 21_282_122, 512),
        (ResNet(depth=50), 23_520_842, 2048),
        (WideResNet(depth=28), 36_479_194, 640),
        (WideResNet(), 46_160_474, 640),
        (ViT(), 5_362_762, 192),
    ],
    ids=str,
)
def test_known_networks_have_their_known_size(settings, count, width):
    net, counted = parameters(settings)
    assert counted == count
    assert net.head.in_features == width


def test_preactresnet18_has_the_well_known_names():
    names = dict(parameters(PreActResNet())[0].named_parameters())
    assert names["layer4.1.conv2.weight"].shape == (512, 512, 3, 3)
    assert names["layer2.0.shortcut.0.weight"].shape == (128, 64, 1, 1)
    assert names["bn.weight"].shape == (512,)


def test_the_papers_tiny_imagenet_net_has_2048_features():
    assert parameters(ResNet(pool=4), 200, 64)[0].head.in_features == 2048
    assert parameters(ResNet(pool=4), 10, 32)[0].head.in_features == 512
    assert parameters(ResNet(pool=4, stem_stride=2), 10, 128)[0].head.in_features == 2048
    assert parameters(ResNet(), 200, 64)[0].head.in_features == 512
    with pytest.raises(UserError, match=r"model.pool=4 is larger than the last map, which is 2x2 .* 16x16"):
        parameters(ResNet(pool=4), 10, 16)


def test_pooling_the_whole_map_is_mean_pooling():
    net, x = made(ResNet(width=4, blocks=(1, 1), pool=8)), torch.rand(2, 3, 16, 16)
    other = models.rebuild(ResNet(width=4, blocks=(1, 1)), net.state_dict(), 5, 3)
    assert torch.allclose(net(x), other(x), atol=1e-6)
    assert net.last_map_layer() is net.saliency_layer()


@pytest.mark.parametrize("size", [8, 16, 17, 32])
def test_mean_pooling_takes_images_of_any_size(size):
    net = made(THIN)
    g = net.features(torch.rand(3, 3, size, size))
    assert g.shape == (3, 8)
    assert (g >= 0).all()


def test_dropout_acts_in_training_only():
    settings = WideResNet(depth=10, widen=1, dropout=0.5)
    net, x = made(settings), torch.rand(2, 3, 16, 16)
    plain = models.rebuild(settings.but(dropout=0.0), net.state_dict(), 5, 3)
    assert torch.equal(net(x), plain(x))
    net.train()
    plain.train()
    assert not torch.allclose(net(x), plain(x))


def test_a_wide_net_starts_with_he_et_als_variance_over_the_fan_out():
    net = models.build(WideResNet(depth=10, widen=4), IMAGES, 5, 0)
    kernel = net.block3.layer[0].conv1.weight
    assert kernel.shape == (256, 128, 3, 3)
    assert abs(kernel.std() / (2 / (9 * 256)) ** 0.5 - 1) < 0.01
    assert (net.head.bias == 0).all()


def test_a_vit_starts_as_timms_and_refuses_what_does_not_fit():
    net = models.build(ViT(width=96, depth=2), IMAGES, 5, 0)
    for name, p in net.named_parameters():
        if name == "cls_token":
            assert 0 < p.abs().max() < 1e-5
        elif "norm" in name:
            assert (p == float(name.endswith("weight"))).all()
        elif name.endswith("bias") and "proj.bias" not in name.removeprefix("patch_embed."):
            assert (p == 0).all()
        elif (name.endswith("weight") and "patch" not in name) or name == "pos_embed":
            assert 0.018 < p.std() < 0.022, name
    with pytest.raises(UserError, match="images of 16x16, not 32x32"):
        net(torch.rand(1, 3, 32, 32))
    with pytest.raises(UserError, match=r"model\.patch=5 does not divide"):
        models.build(ViT(patch=5), IMAGES, 5, 0)
    with pytest.raises(ValueError, match="cannot be shared by heads=5"):
        ViT(heads=5)
    with pytest.raises(ValueError, match="6n \\+ 4"):
        WideResNet(depth=18)


def test_a_vits_tokens_become_the_map_in_reading_order():
    net = models.build(ViT(width=12, depth=1), IMAGES, 5, 0)
    tokens = torch.randn(2, 17, 12)
    for u in range(4):
        for v in range(4):
            assert torch.equal(net.as_map(tokens)[:, :, u, v], tokens[:, 1 + 4 * u + v])


def test_a_ratio_of_whole_numbers_gives_a_whole_number_of_hidden_units():
    assert int(11 * (15 / 11)) == 14, "floating point alone loses one"
    net = ViT(width=11, heads=1, depth=1, mlp_ratio=15 / 11)(5, 3, (0.0,), (1.0,), 16)
    assert net.blocks[0].mlp.fc1.out_features == 15


# Normalisation


def test_normalisation_lives_in_the_model_and_its_state():
    net = models.build(THIN.but(normalise="cifar10"), IMAGES, 5, 0)
    x = torch.rand(2, 3, 8, 8)
    for c in range(3):
        mean, std = STATISTICS["cifar10"][0][c], STATISTICS["cifar10"][1][c]
        assert torch.allclose(net.normalise(x)[:, c], (x[:, c] - mean) / std)
    assert {"mean", "std"} <= set(net.state_dict())
    own = models.build(THIN.but(normalise=MeanStd(mean=(0.5,), std=(0.25,))), IMAGES, 5, 0)
    assert torch.allclose(own.normalise(x), (x - 0.5) / 0.25)


def test_statistics_of_the_training_part():
    net = models.build(THIN.but(normalise="data"), IMAGES, 5, 0)
    z = net.normalise(IMAGES.float() / 255)
    assert torch.allclose(z.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(z.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def test_wrong_channels_are_refused():
    with pytest.raises(UserError, match="normalise=data"):
        models.build(THIN, IMAGES[:, :1], 5, 0)
    with pytest.raises(ValueError, match="equally many"):
        MeanStd(mean=(0.5, 0.5), std=(1.0,))


# The union


def test_a_model_may_be_named_in_a_word():
    run = override(Run(), ["model.kind=vit", "model.depth=2"])
    assert run.model == ViT(depth=2)
    assert override(Run(), ["model=vit"]).model == ViT()
    assert override(Run(), ["model=python:my_nets:resnet4b"]).model == Python(call="my_nets:resnet4b")
    read = adapter(AnyModel).validate_python
    assert read("timm:deit_tiny_patch16_224") == models.Timm(name="deit_tiny_patch16_224")
    assert read("torchvision:resnet18") == models.Torchvision(name="resnet18")
    assert read("hf:timm/resnet18.a1_in1k") == models.HF(repo="timm/resnet18.a1_in1k")
    for text, hint in (("resnt", "did you mean 'resnet'"), ("resnet:18", "resnet"), ("tim:x", "timm:NAME")):
        with pytest.raises(UserError, match=hint):
            override(Run(), [f"model={text}"])


def test_what_stood_in_runs_before_keeps_its_digest():
    assert Run(model=THIN).plain(defaults=False) == {
        "model": {"kind": "preactresnet", "blocks": [1, 1], "width": 4, "stem": 4, "stem_stride": 2}
    }
    assert Run(model=PreActResNet()).digest() == Run().digest() == "44136fa355b3"
    with pytest.raises(UserError, match=r"checkpoint's card.*'rnet'"):
        models.settings_of({"kind": "rnet"})


def test_networks_are_described_in_a_line():
    assert models.describe(PreActResNet(), 10) == "PreActResNet-18, width 64, 10 classes"
    assert models.describe(ResNet(depth=50, blocks=(3, 4, 6, 3)), 10) == "ResNet-50, width 64, 10 classes"
    assert models.describe(ResNet(blocks=(3, 3, 3), width=16), 10) == "ResNet 3-3-3, width 16, 10 classes"
    assert (
        models.describe(ResNet(depth=50, blocks=(1, 2)), 3) == "ResNet 1-2, bottlenecks, width 64, 3 classes"
    )
    assert models.describe(WideResNet(), 100) == "WideResNet-34-10, 100 classes"
    assert models.describe(ViT(), 10) == "DeiT-Ti, width 192, depth 12, patch 4, 10 classes"
    assert models.describe(ViT(depth=3), 10) == "ViT, width 192, depth 3, patch 4, 10 classes"
    assert models.describe(Python(call="my_nets:f"), 10) == "my_nets:f, 10 classes"


# Pretrained transformers


def test_a_summed_kernel_sees_an_image_as_the_old_one_sees_it_enlarged():
    tensors = {"patch_embed.proj.weight": torch.randn(5, 3, 16, 16), "pos_embed": torch.randn(1, 197, 5)}
    kernel = adapted(tensors, 4, 14)["patch_embed.proj.weight"]
    x = torch.rand(2, 3, 8, 12)
    enlarged = x.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    expected = F.conv2d(enlarged, tensors["patch_embed.proj.weight"], stride=16)
    assert torch.allclose(F.conv2d(x, kernel, stride=4), expected, atol=1e-4)


def test_positions_are_resized_bilinearly_and_the_class_token_stays():
    positions = torch.randn(1, 197, 5, dtype=torch.float64)
    tensors = {
        "patch_embed.proj.weight": torch.randn(5, 3, 16, 16),
        "pos_embed": positions,
        "x": torch.ones(1),
    }
    out = adapted(tensors, 4, 8)
    old, new = positions[0, 1:].view(14, 14, 5), out["pos_embed"][0, 1:].view(8, 8, 5)
    for u in range(8):
        for v in range(8):
            a, b = (u + 0.5) * 14 / 8 - 0.5, (v + 0.5) * 14 / 8 - 0.5
            i, j = int(a), int(b)
            s, t = a - i, b - j
            top = (1 - t) * old[i, j] + t * old[i, j + 1]
            below = (1 - t) * old[i + 1, j] + t * old[i + 1, j + 1]
            assert torch.allclose(new[u, v], (1 - s) * top + s * below)
    assert torch.equal(out["pos_embed"][:, 0], positions[:, 0])
    assert out["x"] is tensors["x"]
    assert torch.equal(adapted(tensors, 16, 14)["pos_embed"], positions)
    assert torch.equal(
        adapted(tensors, 16, 14)["patch_embed.proj.weight"], tensors["patch_embed.proj.weight"]
    )
    assert tensors["pos_embed"] is positions


@pytest.mark.parametrize(
    ("tensors", "patch", "words"),
    [
        ({}, 4, "lack 'patch_embed.proj.weight'"),
        ({"patch_embed.proj.weight": torch.ones(2, 3, 16, 16)}, 4, "lack 'pos_embed'"),
        (
            {"patch_embed.proj.weight": torch.ones(2, 3, 16, 16), "pos_embed": torch.ones(1, 5, 2)},
            3,
            "multiple",
        ),
        (
            {"patch_embed.proj.weight": torch.ones(2, 3, 16, 16), "pos_embed": torch.ones(1, 6, 2)},
            4,
            "square",
        ),
    ],
)
def test_weights_that_cannot_be_adapted_are_refused(tensors, patch, words):
    with pytest.raises(UserError, match=words):
        adapted(tensors, patch, 8)


# Recognition: names and shapes as they stand in the files of others


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
    return recognise({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})


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
    found = recognise(net.state_dict())
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
    assert recognise({}) is None


def test_a_published_resnet20_is_called_by_its_name():
    folder = os.environ.get("CROSSCLASS_SHARED")
    path = Path(folder or ".") / "data" / "checkpoints" / "resnet20-12fca82f.npz"
    if folder is None or not path.exists():
        pytest.skip("CROSSCLASS_SHARED names no folder with data/checkpoints/resnet20-12fca82f.npz")
    with np.load(path) as file:
        found = recognise({name: torch.tensor(file[name]) for name in file.files})
    assert found.share < 1
    assert models.describe(found.settings, found.classes) == "ResNet 3-3-3, width 16, 10 classes"


def test_attention_in_bf16_on_a_cpu_is_attention() -> None:
    q, k, v = (torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    expected = (q.double() @ k.double().mT / 8**0.5).softmax(dim=-1) @ v.double()
    torch.testing.assert_close(vit._attend(q, k, v).double(), expected, rtol=0, atol=1e-6)
    low = vit._attend(*(t.bfloat16() for t in (q, k, v)))
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), expected, rtol=0, atol=0.03)  # 8 bits of numbers up to 2
