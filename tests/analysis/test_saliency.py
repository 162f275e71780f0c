"""Grad-CAM against its textbook formula and the CAM identity; spread against shapes with a known answer."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import seeded
from crossclass.analysis.saliency import (
    entropy,
    feature_maps,
    grad_cam,
    half_mass_area,
    resized,
    right_then_wrong,
)
from crossclass.core.errors import UserError
from crossclass.core.plugins import kind_of, members
from crossclass.models import AnyModel, Classifier, PreActResNet
from crossclass.models.resnet import ResNet
from crossclass.models.vit import ViT
from crossclass.models.wideresnet import WideResNet


class Net(Classifier):
    """Two convolutions with batch norm, dropout and a shared in-place ReLU; its last map is 3 x 5."""

    def __init__(self, classes: int = 4, depth: int = 6) -> None:
        super().__init__((0.4,), (0.3,))
        self.first, self.second = nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, depth, 3, 2, 1)
        self.bn, self.drop, self.relu = nn.BatchNorm2d(depth), nn.Dropout(0.5), nn.ReLU(inplace=True)
        self.spare = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(depth, classes)

    def features(self, x: Tensor) -> Tensor:
        out = self.relu(self.first(self.normalise(x)))
        return self.relu(self.bn(self.second(self.drop(out)))).mean(dim=(2, 3))

    def saliency_layer(self) -> nn.Module:
        return self.relu

    def as_map(self, activation: Tensor) -> Tensor:
        return activation  # the base's is type-checked in tests


class Tokens(Classifier):
    """A transformer in small: a class token and 2 x 3 patches; attention moves features between them."""

    def __init__(self, classes: int = 4, width: int = 6) -> None:
        super().__init__((0.4,), (0.3,))
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        out = self.patch(self.normalise(x)).flatten(2).mT
        out = torch.cat((self.token.expand(len(out), -1, -1), out), dim=1)
        seen = self.norm(out)
        out = out + self.attention(seen, seen, seen, need_weights=False)[0]
        return self.norm2(out)[:, 0]

    def saliency_layer(self) -> nn.Module:
        return self.norm

    def as_map(self, activation: Tensor) -> Tensor:
        if activation.ndim == 4:
            return activation
        n, _, d = activation.shape
        return activation[:, 1:].mT.reshape(n, d, 2, 3)


def made(kind: type[Classifier], double: bool = False, **settings: Any) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = kind(**settings)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.weight, 0.5, 2)
    return net.double() if double else net


def images(n: int = 7, h: int = 12, w: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = seeded(seed)
    return torch.rand(n, 3, h, w, generator=g), torch.arange(n) % 4


X, Y = images()
TX, TY = images(7, 8, 12)


def textbook(net: Classifier, x: Tensor, y: Tensor, layer: nn.Module) -> Tensor:
    """Selvaraju et al. 2017, one image and one channel at a time, before the ReLU; the model in float64."""
    maps = []
    for image, label in zip(x.double(), y, strict=True):
        seen: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, out: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(out)
            return out.clone()  # an in-place ReLU that follows must not change what was seen

        hook = layer.register_forward_hook(keep)
        logits = net(image[None])
        hook.remove()
        (slope,) = torch.autograd.grad(logits[0, label], seen[-1])
        F_map, slope = net.as_map(seen[-1])[0], net.as_map(slope)[0]
        total = torch.zeros_like(F_map[0])
        for k in range(len(F_map)):
            places = [slope[k, u, v] for u in range(slope.shape[1]) for v in range(slope.shape[2])]
            total = total + sum(places) / len(places) * F_map[k]
        maps.append(total.detach())
    return torch.stack(maps)


def cases() -> list[Any]:
    at = {Net: ("relu", "bn", "second", "first"), Tokens: ("norm", "patch")}
    return [pytest.param(kind, name, id=f"{kind.__name__}-{name}") for kind in at for name in at[kind]]


@pytest.mark.parametrize(("kind", "name"), cases())
def test_the_textbook_formula(kind, name):
    net = made(kind, double=True).eval()
    x, y = (X, Y) if kind is Net else (TX, TY)
    layer = net.get_submodule(name)
    expected = textbook(net, x, y, layer)
    assert (expected < 0).any()
    assert (expected > 0).any()
    torch.testing.assert_close(
        grad_cam(net, x, y, layer=layer, relu=False), expected.float(), rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close(
        grad_cam(net, x, y, layer=layer), expected.clamp(min=0).float(), rtol=1e-5, atol=1e-7
    )


def test_cam_identity_the_map_is_the_attribution_of_cas_spread_over_the_image():
    net = made(Net).eval()
    maps = grad_cam(net, X, Y, relu=False)
    with torch.no_grad():
        g, logits = net.outputs(X)
    A = net.head.weight[Y] * g  # eq. 4
    torch.testing.assert_close(maps.sum(dim=(1, 2)), A.sum(dim=1), rtol=1e-5, atol=1e-5)
    places = maps.shape[1] * maps.shape[2]
    assert places == 15
    gap = logits.gather(1, Y[:, None])[:, 0] - net.head.bias[Y]
    torch.testing.assert_close(places * maps.mean(dim=(1, 2)), gap.detach(), rtol=1e-5, atol=1e-5)


def test_classes_matter_and_the_default_layer_is_the_models():
    net = made(Net)
    assert not torch.allclose(grad_cam(net, X, Y), grad_cam(net, X, (Y + 1) % 4))
    assert torch.equal(grad_cam(net, X, Y), grad_cam(net, X, Y, layer=net.relu))
    assert grad_cam(net, X, Y, layer=net.first).shape == (7, 6, 10)
    assert grad_cam(net, X, Y).dtype == torch.float32


@pytest.mark.parametrize("batch", [1, 2, 3, 250])
def test_a_sample_does_not_depend_on_its_batch(batch):
    for net, x, y in ((made(Net), X, Y), (made(Tokens), TX, TY)):
        torch.testing.assert_close(
            grad_cam(net, x, y, batch=batch), grad_cam(net, x, y), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("flag", [True, False])
def test_the_model_is_handed_back_as_it_was(mode, flag):
    net = made(Net).train(mode).requires_grad_(flag)
    net.drop.train(not mode)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    stream, x = torch.random.get_rng_state(), X.clone()
    with torch.no_grad():
        inside = grad_cam(net, x, Y)
    outside = grad_cam(net, x, Y)
    assert torch.equal(inside, outside)
    assert not outside.requires_grad
    assert torch.equal(stream, torch.random.get_rng_state())
    assert torch.equal(x, X)
    assert not x.requires_grad
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad == flag for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())


def test_the_model_is_handed_back_after_a_failure():
    net = made(Net).train()
    with pytest.raises(UserError, match="'head' gives"):  # within a forward
        grad_cam(net, X, Y, layer=net.head)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_mistakes_are_one_sentence():
    net = made(Net)
    with pytest.raises(UserError, match=r"layer .*Conv2d.* is not part of Net"):
        grad_cam(net, X, Y, layer=nn.Conv2d(3, 3, 1))
    with pytest.raises(UserError, match="'spare' is not used"):
        grad_cam(net, X, Y, layer=net.spare)
    with pytest.raises(UserError, match=r"\[n, d, h, w\] but 'head' gives \[7, 4\]"):
        grad_cam(net, X, Y, layer=net.head)


def test_no_samples_give_no_maps():
    net = made(Net)
    assert grad_cam(net, X[:0], Y[:0]).shape == (0, 3, 5)


THIN = {
    "preactresnet": PreActResNet(width=4, stem=4, stem_stride=2, blocks=(1, 1)),
    "resnet": ResNet(width=4, blocks=(1, 1)),
    "wideresnet": WideResNet(depth=10, widen=1),
    "vit": ViT(width=12, depth=2, heads=3),
}


@pytest.mark.parametrize("settings", THIN.values(), ids=THIN.keys())
def test_built_in_models(settings):
    x, y = images(6, 32, 32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = settings(4, 3, (0.4,), (0.3,), 32).eval()
    maps = grad_cam(net, x, y, relu=False)
    assert maps.shape[1] == maps.shape[2] >= 2
    assert maps.abs().amax(dim=(1, 2)).min() > 0
    expected = textbook(net.double(), x, y, net.saliency_layer())
    torch.testing.assert_close(maps, expected.float(), rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    if isinstance(settings, ViT):
        return
    net.float()
    layer = net.saliency_layer() if isinstance(settings, ResNet) else net.relu
    maps = grad_cam(net, x, y, layer=layer, relu=False)
    A = net.head.weight[y] * net.features(x)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), A.sum(dim=1).detach(), rtol=1e-5, atol=1e-5)


def test_every_built_in_model_is_tried():
    ours = {kind_of(m) for m in members(AnyModel)}
    assert ours - {"python", "hf", "timm", "torchvision"} <= set(
        THIN
    )  # those are others' networks, named by the user


def flat(h: int = 4, w: int = 6) -> Tensor:
    return torch.full((1, h, w), 0.3)


def hot(h: int = 4, w: int = 6) -> Tensor:
    out = torch.zeros(1, h, w)
    out[0, 1, 2] = 5
    return out


def test_spread_of_shapes_with_a_known_answer():
    assert half_mass_area(flat()).item() == pytest.approx(0.5)
    assert entropy(flat()).item() == pytest.approx(1)
    assert half_mass_area(hot()).item() == pytest.approx(0.5 / 24)
    assert entropy(hot()).item() == pytest.approx(0, abs=1e-7)
    assert half_mass_area(hot(100, 100)).item() < 1e-4
    quarter = torch.zeros(1, 4, 4)
    quarter[0, :2, :2] = 1
    assert half_mass_area(quarter).item() == pytest.approx(1 / 8)
    assert entropy(quarter).item() == pytest.approx(math.log(4) / math.log(16))
    uneven = torch.tensor([[[3.0, 1.0], [0.0, 1.0]]])  # half of 5 is 2.5 of the 3: 2.5 / 3 of a place in 4
    assert half_mass_area(uneven).item() == pytest.approx(2.5 / 3 / 4)
    stairs = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])  # half of 10: the 4 and a third of the 3
    assert half_mass_area(stairs).item() == pytest.approx((1 + 1 / 3) / 4)


def test_a_wider_blob_is_wider_and_both_numbers_are_continuous():
    at = torch.linspace(-1, 1, 9)
    squared = at[:, None] ** 2 + at[None, :] ** 2
    blobs = torch.stack([torch.exp(-squared / (2 * s**2)) for s in (0.2, 0.4, 0.8, 1.6)])
    for number in (half_mass_area, entropy):
        values = number(blobs)
        assert (values.diff() > 0.01).all()
        nudged = number(blobs + 1e-5 * torch.rand(blobs.shape, generator=seeded(0)))
        assert (nudged - values).abs().max() < 1e-3


def test_spread_depends_on_the_places_neither_on_their_order_nor_on_the_scale():
    maps = torch.rand(5, 4, 6, generator=seeded(1)) - 0.3
    order = torch.randperm(24, generator=seeded(2))
    moved = maps.flatten(1)[:, order].view(5, 4, 6)
    for number in (half_mass_area, entropy):
        values = number(maps)
        torch.testing.assert_close(number(moved), values)
        torch.testing.assert_close(number(1e4 * maps), values)
        torch.testing.assert_close(number(1e-6 * maps), values)
        torch.testing.assert_close(number(maps.clamp(min=0)), values)  # what speaks against is no mass
        assert ((values > 0) & (values < 1)).all()
        assert values.shape == (5,)
        assert values.dtype == torch.float32
    assert (half_mass_area(maps) <= 0.5).all()


def test_a_map_that_looks_nowhere_is_zero():
    nowhere = torch.cat((torch.zeros(1, 4, 6), -flat(), flat()))
    assert half_mass_area(nowhere).tolist() == [0, 0, 0.5]
    assert entropy(nowhere)[:2].tolist() == [0, 0]


def test_one_place_is_a_flat_map():
    one = torch.tensor([[[2.0]], [[0.0]]])
    assert entropy(one).tolist() == [1, 0]
    assert half_mass_area(one).tolist() == [0.5, 0]


def test_resized_is_bilinear_and_keeps_constants():
    ramp = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    wide = resized(ramp, 4)
    assert wide.shape == (1, 4, 4)
    torch.testing.assert_close(wide[0, 0], torch.tensor([0, 0.25, 0.75, 1]))
    torch.testing.assert_close(resized(flat(), (8, 10)), torch.full((1, 8, 10), 0.3))
    torch.testing.assert_close(resized(ramp, 4)[0], F.interpolate(ramp[None], 4, mode="bilinear")[0, 0])


def test_samples_right_at_best_and_wrong_at_last():
    y = torch.tensor([0, 1, 2, 0, 1])
    best = torch.tensor([0, 1, 0, 0, 2])
    last = torch.tensor([1, 1, 2, 2, 0])
    assert right_then_wrong(y, best, last).tolist() == [0, 3]
    assert right_then_wrong(y, y, y).shape == (0,)
    assert right_then_wrong(y, best, last).dtype == torch.int64


@pytest.mark.parametrize("kind", ["net", "preactresnet", "resnet", "wideresnet"])
def test_the_map_of_a_feature_sums_to_the_feature_where_features_are_spatial_means(kind) -> None:
    model = made(Net) if kind == "net" else THIN[kind](4, 3, (0.4,), (0.3,)).eval()
    x = torch.rand(3, 3, 32, 32, generator=seeded(0))
    k = torch.tensor([0, 3, 2])
    maps = feature_maps(model, x, k)
    model.eval()
    with torch.no_grad():
        g = model.features(x).gather(1, k[:, None])[:, 0]
    torch.testing.assert_close(maps.sum(dim=(1, 2)), g, rtol=1e-4, atol=1e-6)


def test_the_map_of_a_feature_of_a_transformer_is_grad_cam_of_the_feature() -> None:
    model = made(Tokens)
    x, k = torch.rand(4, 3, 8, 12, generator=seeded(0)), torch.tensor([0, 5, 2, 2])
    model.head = nn.Linear(6, 6, bias=False)
    with torch.no_grad():
        model.head.weight.copy_(torch.eye(6))  # the logits are the features
    torch.testing.assert_close(feature_maps(model, x, k), grad_cam(model, x, k))


def test_a_feature_that_does_not_exist_is_refused() -> None:
    model = made(Net)
    x = torch.rand(2, 3, 12, 20, generator=seeded(0))
    for k in ([0, 6], [-1, 0], [0]):
        with pytest.raises(UserError, match="0 to 5"):
            feature_maps(model, x, torch.tensor(k))
