"""Models: [0, 1] in, K rows out; normalisation inside; features and head explain the logits."""

import pytest
import torch

from crossclass import models
from crossclass.errors import UserError
from crossclass.models import STATISTICS, MeanStd, PreActResNet

IMAGES = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
THIN = PreActResNet(width=4, stem=4, stem_stride=2, blocks=(1, 1))


def test_preactresnet18_is_the_well_known_one():
    net = models.build(PreActResNet(), IMAGES, 10, 0)
    assert sum(p.numel() for p in net.parameters()) == 11_172_170
    names = dict(net.named_parameters())
    assert names["layer4.1.conv2.weight"].shape == (512, 512, 3, 3)
    assert names["layer2.0.shortcut.0.weight"].shape == (128, 64, 1, 1)
    assert names["bn.weight"].shape == (512,)


@pytest.mark.parametrize(("depth", "width"), [(18, 512), (34, 512), (50, 2048)])
def test_depths_have_their_feature_width(depth, width):
    with torch.device("meta"):
        net = PreActResNet(depth=depth)(10, 3, (0.0,), (1.0,))
    assert net.head.in_features == width


@pytest.mark.parametrize("size", [8, 16, 17, 32])
def test_logits_are_the_head_of_the_features(size):
    net = models.build(THIN, IMAGES, 7, 0).eval()
    x = torch.rand(3, 3, size, size)
    g = net.features(x)
    assert g.shape == (3, 8)
    assert (g >= 0).all()
    assert torch.allclose(net(x), g @ net.head.weight.T + net.head.bias)


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


def test_the_seed_alone_decides_the_weights_and_the_global_stream_stays():
    before = torch.random.get_rng_state()
    a, b, c = (models.build(THIN, IMAGES, 5, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["conv1.weight"], c["conv1.weight"])


def test_rebuilding_gives_the_same_function():
    net = models.build(THIN.but(normalise="data"), IMAGES, 5, 0).eval()
    again = models.rebuild(THIN.but(normalise="data"), net.state_dict(), 5, 3)
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(net(x), again(x))
    with pytest.raises(UserError, match="do not fit"):
        models.rebuild(THIN, net.state_dict(), 6, 3)
