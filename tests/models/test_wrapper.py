"""Networks of others: which layer is the head, what the features are, where Grad-CAM looks."""

import pytest
import torch
from torch import nn

from crossclass.core.errors import UserError
from crossclass.models import Wrapped
from crossclass.models.base import SubsampledConv
from foreign_networks import Net, Output, Tokens, variant

# Features and head


def test_features_are_the_input_of_the_layer_that_gives_the_logits(made):
    net, x = made(Net), torch.rand(3, 3, 8, 8)
    z = (x - net.mean) / net.std
    assert net.head is net.net.top
    assert torch.equal(net.features(x), net.net.body(z))
    assert torch.equal(net(x), net.net(z))
    g, logits = net.outputs(x)
    assert torch.equal(g, net.features(x))
    assert torch.equal(logits, net(x))
    assert torch.allclose(logits, g @ net.head.weight.T + net.head.bias, atol=1e-6)
    assert net.notes == ()
    assert not net.head._forward_pre_hooks, "a hook was left behind"
    assert not any(m._forward_hooks for m in net.modules())


def test_features_carry_gradients_and_take_one_forward(made):
    net = made(Net)
    x, forwards = torch.rand(2, 3, 8, 8, requires_grad=True), []
    net.net.conv.register_forward_hook(lambda *a: forwards.append(1))
    net.outputs(x)[0].sum().backward()
    assert len(forwards) == 1
    assert x.grad.abs().max() > 0


def test_the_head_is_held_once_in_the_state(made):
    names = set(made(Net).state_dict())
    assert names == {"mean", "std"} | {f"net.{n}" for n in Net().state_dict()}
    assert len(list(made(Net).parameters())) == len(list(Net().parameters()))


def test_another_head_may_be_named(made):
    def forward(self, x):
        g = self.body(x)
        return self.top(g) + 0 * self.unused(torch.ones(len(x), 7))

    assert made(variant(forward)).head_name == "top"
    named = made(variant(forward), head="unused")
    assert named.head_name == "unused"
    assert named.outputs(torch.rand(2, 3, 8, 8))[0].shape == (2, 7)
    assert "which was named" in named.head_warnings[0]


def test_linear_layers_of_another_width_are_passed_over(made):
    def forward(self, x):
        logits = self.top(self.body(x))
        self.after(logits)
        return logits

    assert made(variant(forward, after=nn.Linear(4, 9))).head_name == "top"


@pytest.mark.parametrize(
    ("forward", "note"),
    [
        (lambda self, x: self.top(self.body(x)).softmax(dim=1), "softmax"),
        (lambda self, x: (self.top(self.body(x)), x), "tuple"),
        (lambda self, x: [None, self.top(self.body(x))], "list"),
        (lambda self, x: Output(None, self.top(self.body(x))), "Output"),
    ],
)
def test_what_is_not_a_tensor_of_logits_is_used_and_noted(made, forward, note):
    net, x = made(variant(forward)), torch.rand(2, 3, 8, 8)
    g, logits = net.outputs(x)
    expected = g @ net.head.weight.T + net.head.bias
    assert torch.allclose(logits, expected.softmax(dim=1) if note == "softmax" else expected, atol=1e-6)
    (said,) = (*net.notes, *net.head_warnings)
    assert note in said
    assert "somebodys:factory" in said


def test_a_hook_is_removed_when_the_network_fails(made):
    def forward(self, x):
        if len(x) == 5:
            raise ValueError("five")
        return self.top(self.body(x))

    net = made(variant(forward))
    with pytest.raises(ValueError, match="five"):
        net.outputs(torch.rand(5, 3, 8, 8))
    assert not net.head._forward_pre_hooks


def test_looking_at_a_network_changes_nothing(made):
    def forward(self, x):
        return self.top(self.noise(self.norm(self.moving(self.body(x)))) + 0 * torch.rand(1))

    frozen = nn.BatchNorm1d(6).eval()
    net = variant(forward, noise=nn.Dropout(0.5), norm=frozen, moving=nn.BatchNorm1d(6))()
    net.train()
    frozen.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    stream = torch.random.get_rng_state()
    Wrapped(net, 4, 3, (0.5,), (0.2,), 8)
    assert torch.equal(stream, torch.random.get_rng_state())
    assert [m.training for m in net.modules()] == modes
    assert False in modes
    assert True in modes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_thin_strided_1x1_convolutions_subsample_first(made):
    def forward(self, x):
        return self.top(self.body(x) + self.short(x).mean(dim=(2, 3)))

    net, x = made(variant(forward, short=nn.Conv2d(3, 6, 1, 2))), torch.rand(2, 3, 8, 8)
    assert type(net.net.short) is SubsampledConv
    assert type(net.net.conv) is nn.Conv2d
    plain = variant(forward, short=nn.Conv2d(3, 6, 1, 2))()
    plain.load_state_dict(net.net.state_dict())
    assert torch.allclose(net(x), plain(net.normalise(x)), atol=1e-6)


# Maps for Grad-CAM


def test_grad_cam_looks_at_the_last_map(made):
    net = made(Net)
    assert net.saliency_layer() is net.net.relu
    out = torch.rand(2, 5, 4, 4)
    assert net.as_map(out) is out
    assert made(Net, saliency="conv").saliency_layer()._get_name() == "Conv2d"


def test_grad_cam_looks_behind_the_last_activation(made):
    def forward(self, x):
        return self.top(self.flat(self.pool(self.act(self.relu(self.conv(x))))))

    parts = {"top": nn.Linear(5, 4), "act": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    largest = made(variant(forward, **{**parts, "pool": nn.AdaptiveMaxPool2d(1)}))
    assert largest.saliency_layer() is largest.net.act
    net, x = made(variant(forward, **parts)), torch.rand(2, 3, 8, 8)
    assert net.saliency_layer() is net.net.act
    seen = []
    net.net.act.register_forward_hook(lambda m, a, out: seen.append(out))
    assert torch.allclose(net.features(x), seen[0].mean(dim=(2, 3)), atol=1e-6)


@pytest.mark.parametrize(("lead", "side"), [(1, 2), (0, 4), (2, 4), (5, 4)])
def test_tokens_become_a_map_without_those_that_lead(made, lead, side):
    net = made(lambda: Tokens(max(lead, 1), side) if lead else Tokens(1, side))
    assert net.saliency_layer() is net.net.norm1
    patches = torch.randn(3, side**2, 8)
    out = net.as_map(torch.cat((torch.randn(3, lead, 8), patches), dim=1))
    for u in range(side):
        for v in range(side):
            assert torch.equal(out[:, :, u, v], patches[:, u * side + v])


def test_token_models_name_the_norm_before_attention_or_fall_back(made):
    x, seen = torch.rand(2, 3, 8, 8), []
    net = made(lambda: Tokens(norm="ln_1"))
    net.saliency_layer().register_forward_hook(lambda m, a, out: seen.append(out))
    (slope,) = torch.autograd.grad(net(x)[:, 0].sum(), seen)
    assert net.saliency_layer() is net.net.ln_1
    assert net.as_map(slope).abs().amax(dim=(1, 2, 3)).min() > 0
    assert made(lambda: Tokens(norm="before")).saliency_layer()._get_name() == "LayerNorm"
    for tokens in (2, 15):
        with pytest.raises(UserError, match=f"{tokens} tokens are no grid"):
            made(Tokens).as_map(torch.rand(1, tokens, 8))


def test_a_network_without_maps_says_so(made):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 4)

        def forward(self, x):
            return self.fc(x.flatten(1))

    net = made(Flat)
    assert net.features(torch.rand(2, 3, 8, 8)).shape == (2, 192)
    with pytest.raises(UserError, match="no layer with a map"):
        net.saliency_layer()
