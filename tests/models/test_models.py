"""Models: [0, 1] in, K rows out; normalisation inside; features and head explain the logits."""

import copy

import pytest
import torch
from pydantic import TypeAdapter

from crossclass import models
from crossclass.cli.arguments import assign
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.core.plugins import kind_of, members
from crossclass.models import (
    AnyModel,
    MeanStd,
    PreActResNet,
    Python,
    ResNet,
    ViT,
    WideResNet,
    statistics,
)
from crossclass.models.base import space_mean, subsample_first
from crossclass.training.run import Run
from networks import BUILT_IN, FOREIGN, IMAGES, RAW, SMALL, THIN, made, parameters

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
    if isinstance(settings, ViT) or getattr(settings, "pool", "mean") != "mean":
        pytest.skip("its features are no mean over a map")
    net, x = made(settings, size=32), torch.rand(2, 3, 32, 32)
    layer = net.saliency_layer() if isinstance(settings, ResNet) else net.relu
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
    assert models.describe(settings, 5).endswith(", 5 classes")


# Known networks


@pytest.mark.parametrize(
    ("settings", "count", "width"),
    [
        (PreActResNet(), 11_172_170, 512),
        (PreActResNet(last_norm=False, shortcut_input="raw"), 11_171_146, 512),
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


@pytest.mark.parametrize("size", [8, 16, 17, 32])
def test_mean_pooling_takes_images_of_any_size(size):
    net = made(THIN)
    g = net.features(torch.rand(3, 3, size, size))
    assert g.shape == (3, 8)
    assert (g >= 0).all()


def test_dropout_acts_in_training_only():
    settings = WideResNet(depth=10, widen=1, dropout=0.5)
    net, x = made(settings), torch.rand(2, 3, 16, 16)
    plain = models.rebuild(settings.replace(dropout=0.0), net.state_dict(), 5, 3)
    assert torch.equal(net(x), plain(x))
    net.train()
    plain.train()
    assert not torch.allclose(net(x), plain(x))


def test_a_wide_nets_depth_is_a_whole_number_of_blocks():
    with pytest.raises(ValueError, match="6n \\+ 4"):
        WideResNet(depth=18)


def test_a_wide_net_starts_with_he_et_als_variance_over_the_fan_out():
    net = models.build(WideResNet(depth=10, widen=4), IMAGES, 5, 0)
    kernel = net.block3.layer[0].conv1.weight
    assert kernel.shape == (256, 128, 3, 3)
    assert abs(kernel.std() / (2 / (9 * 256)) ** 0.5 - 1) < 0.01
    assert (net.head.bias == 0).all()


# Normalisation


def test_normalisation_lives_in_the_model_and_its_state():
    net = models.build(THIN.replace(normalise="cifar10"), IMAGES, 5, 0)
    x = torch.rand(2, 3, 8, 8)
    for c in range(3):
        mean, std = statistics()["cifar10"][0][c], statistics()["cifar10"][1][c]
        assert torch.allclose(net.normalise(x)[:, c], (x[:, c] - mean) / std)
    assert {"mean", "std"} <= set(net.state_dict())
    own = models.build(THIN.replace(normalise=MeanStd(mean=(0.5,), std=(0.25,))), IMAGES, 5, 0)
    assert torch.allclose(own.normalise(x), (x - 0.5) / 0.25)


def test_statistics_of_the_training_part():
    net = models.build(THIN.replace(normalise="data"), IMAGES, 5, 0)
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
    run = assign(Run(), ["model.kind=vit", "model.depth=2"])
    assert run.model == ViT(depth=2)
    assert assign(Run(), ["model=vit"]).model == ViT()
    assert assign(Run(), ["model=python:my_nets:resnet4b"]).model == Python(call="my_nets:resnet4b")
    read = TypeAdapter(AnyModel).validate_python
    assert read("timm:deit_tiny_patch16_224") == models.Timm(name="deit_tiny_patch16_224")
    assert read("torchvision:resnet18") == models.Torchvision(name="resnet18")
    assert read("hf:timm/resnet18.a1_in1k") == models.HF(repo="timm/resnet18.a1_in1k")
    for text, hint in (("resnt", "did you mean 'resnet'"), ("resnet:18", "resnet"), ("tim:x", "timm:NAME")):
        with pytest.raises(UserError, match=hint):
            assign(Run(), [f"model={text}"])


def test_what_stood_in_runs_before_keeps_its_digest():
    assert Run(model=THIN).to_dict(defaults=False) == {
        "model": {"kind": "preactresnet", "blocks": [1, 1], "width": 4, "stem": 4, "stem_stride": 2}
    }
    assert Run(model=PreActResNet()).digest() == Run().digest() == "44136fa355b3"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (PreActResNet(), "PreActResNet-18, width 64"),
        (RAW, "PreActResNet 1-1, width 4, no last batch norm, raw shortcuts"),
        (ResNet(depth=50, blocks=(3, 4, 6, 3)), "ResNet-50, width 64"),
        (ResNet(depth=50, blocks=(1, 2)), "ResNet 1-2, bottlenecks, width 64"),
        (WideResNet(), "WideResNet-34-10"),
        (ViT(depth=3), "ViT, width 192, depth 3, patch 4"),
        (Python(call="my_nets:f"), "my_nets:f"),
    ],
)
def test_networks_are_described_in_a_line(settings, words):
    assert models.describe(settings, 10) == f"{words}, 10 classes"


def test_bottlenecks_have_no_raw_shortcut():
    with pytest.raises(UserError, match=r"shortcut_input=raw is for basic blocks"):
        PreActResNet().replace(depth=50, shortcut_input="raw")


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [False, True])
def test_a_subsampled_convolution_is_the_strided_one(layout, bias):
    # in float64, which the faulty kernel does not serve
    theirs = torch.nn.Conv2d(4, 8, 1, 2, bias=bias).double()
    ours = copy.deepcopy(theirs)
    subsample_first(ours)
    assert type(ours) is not type(theirs)
    x = torch.rand(3, 4, 7, 8, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    results = [
        (conv(x), torch.autograd.grad(conv(x).square().sum(), (x, *conv.parameters())))
        for conv in (ours, theirs)
    ]
    for a, b in zip(*[(out, *gradients) for out, gradients in results], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "subsampled"),
    [
        ({}, True),
        ({"in_channels": 8}, False),
        ({"stride": 1}, False),
        ({"stride": (1, 2)}, True),
        ({"kernel_size": 3}, False),
        ({"padding": 1}, False),
        ({"groups": 2}, False),
    ],
)
def test_only_convolutions_that_the_fault_can_meet_are_subsampled(arguments, subsampled):
    conv = torch.nn.Conv2d(
        **{"in_channels": 4, "out_channels": 8, "kernel_size": 1, "stride": 2, **arguments}
    )
    subsample_first(conv)
    assert (type(conv) is not torch.nn.Conv2d) == subsampled


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_over_space_is_torchs_and_its_gradient_has_the_layout_of_its_input(layout, dtype):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, 4, 3, generator=g).to(dtype).contiguous(memory_format=layout).requires_grad_()
    up = torch.randn(6, 8, generator=g).to(dtype)
    mine, its = space_mean(x), x.mean(dim=(2, 3))
    assert torch.equal(mine, its)
    (a,), (b,) = (torch.autograd.grad(out, x, up) for out in (mine, its))
    assert torch.equal(a, b)
    assert a.is_contiguous(memory_format=layout)


def test_statistics_are_those_of_doubles():
    pixels = torch.randint(
        0, 256, (9, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean, std = models.channel_statistics(pixels, block=4)
    values = pixels.double() / 255
    assert torch.allclose(torch.tensor(mean).double(), values.mean(dim=(0, 2, 3)), atol=1e-7)
    expected = values.std(dim=(0, 2, 3), correction=0)
    assert torch.allclose(torch.tensor(std).double(), expected, atol=1e-7)
    assert models.channel_statistics(torch.full((2, 1, 3, 3), 7, dtype=torch.uint8))[1] == (1e-3,)
