"""The head of other people's networks: CAS against a literal computation with the layer that is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import crossclass as cc
from crossclass.core.errors import UserError
from crossclass.models import Wrapped
from crossclass.models.reordered import renumber_head
from head_networks import (
    Cosine,
    D,
    Inside,
    K,
    Normed,
    add,
    gate_layers,
    gated,
    gated_operands,
    hooked,
    in_place,
    logits_and_auxiliary,
    net_of,
    nothing,
    pair,
    pair_that_goes_on,
    plain,
    rows_of,
    side_effect,
    views,
    weight_normed,
)


def wrapped(net, classes=K, **settings):
    return Wrapped(net, classes, 3, (0.5,), (0.25,), 12, **settings).eval()


def images(n=40, seed=3):
    return torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def literal_cas(g: Tensor, W: Tensor, y: Tensor) -> float:
    """Equations 5 to 7, written out."""
    A = torch.stack([(g[y == c] * W[c]).double().mean(dim=0) for c in range(len(W))])
    U = A / A.norm(dim=1, keepdim=True)
    C = U @ U.T
    return float(sum(max(C[i, j], 0) for i in range(len(W)) for j in range(len(W)) if i != j))


@torch.no_grad()
def measured_cas(model: Wrapped, x: Tensor, y: Tensor) -> float:
    return cc.cas(cc.correlation(cc.class_means(model.features(x), model.head.weight, y)))


SAME = {
    "auxiliary head that runs last": (side_effect("rot"), add("rot", lambda k, d: nn.Linear(d, k)), plain),
    "gate of K units, 1x1 convolution": (gated, gate_layers, gated_operands),
    "convolution before the pooling": (
        lambda self, z: self.cls(self.map(z)).mean((2, 3)),
        add("cls", lambda k, d: nn.Conv2d(d, k, 1)),
        lambda self, z: (self.g(z), self.cls.weight.flatten(1)),
    ),
    "convolution over the whole map": (
        lambda self, z: self.cls(self.map(z)).flatten(1),
        add("cls", lambda k, d: nn.Conv2d(d, k, 3)),
        lambda self, z: (self.map(z).flatten(1), self.cls.weight.flatten(1)),
    ),
    "in-place operations": (in_place, lambda self, k, d: None, plain),
    "temperature": (lambda self, z: self.fc(self.g(z)) / 1.7, lambda self, k, d: None, plain),
    "weight norm": (lambda self, z: self.fc(self.g(z)), weight_normed, plain),
    "hooks on the head": (lambda self, z: self.fc(self.g(z)), hooked, plain),
    "functional": (
        lambda self, z: F.linear(self.g(z), self.fc.weight, self.fc.bias),
        add("x", nn.Linear),
        plain,
    ),
    "no module": (
        lambda self, z: self.g(z) @ self.w + self.b,
        lambda self, k, d: (
            setattr(self, "w", nn.Parameter(torch.randn(d, k))),
            setattr(self, "b", nn.Parameter(torch.randn(k))),
        ),
        lambda self, z: (self.g(z), self.w.T),
    ),
    "cosine subclass": (
        lambda self, z: self.fc(self.g(z)),
        lambda self, k, d: setattr(self, "fc", Cosine(d, k, bias=False)),
        lambda self, z: (F.normalize(self.g(z)), F.normalize(self.fc.weight)),
    ),
    "normed linear": (
        lambda self, z: 16 * self.cls(self.g(z)),
        add("cls", lambda k, d: Normed(d, k)),
        lambda self, z: (F.normalize(self.g(z)), F.normalize(self.cls.w, dim=0).T),
    ),
    "two heads, their mean": (
        lambda self, z: (self.fc(self.g(z)) + self.two(self.g(z).square())) / 2,
        add("two", lambda k, d: nn.Linear(d, k)),
        lambda self, z: (
            torch.cat((self.g(z), self.g(z).square()), dim=1),
            torch.cat((self.fc.weight, self.two.weight), dim=1),
        ),
    ),
    "one head on two views": (
        views,
        lambda self, k, d: None,
        lambda self, z: ((self.g(z) + self.g(z.flip(3))) / 2, self.fc.weight),
    ),
    "batch norm behind the head": (
        lambda self, z: self.bn(self.fc(self.g(z))),
        add("bn", lambda k, d: nn.BatchNorm1d(k)),
        lambda self, z: (
            self.g(z),
            self.fc.weight * self.bn.weight[:, None] / self.bn.running_var[:, None].sqrt(),
        ),
    ),
    "batch norm behind a head on two views": (
        lambda self, z: self.bn(views(self, z)),
        add("bn", lambda k, d: nn.BatchNorm1d(k)),
        lambda self, z: (
            (self.g(z) + self.g(z.flip(3))) / 2,
            self.fc.weight * self.bn.weight[:, None] / self.bn.running_var[:, None].sqrt(),
        ),
    ),
    "log-softmax": (lambda self, z: self.fc(self.g(z)).log_softmax(1), lambda self, k, d: None, plain),
    "softmax": (lambda self, z: self.fc(self.g(z)).softmax(1), lambda self, k, d: None, plain),
    "distance to prototypes": (
        lambda self, z: -torch.cdist(self.g(z), self.w).square(),
        add("w", lambda k, d: nn.Parameter(torch.randn(k, d))),
        lambda self, z: (self.g(z), self.w),
    ),
    "inside of a Sequential": (
        lambda self, z: self.top(self.g(z)),
        add("top", lambda k, d: nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Dropout(), nn.Linear(d, k))),
        lambda self, z: (self.top[:3](self.g(z)), self.top[3].weight),
    ),
}


@pytest.mark.parametrize("classes", [2, K, 12])
@pytest.mark.parametrize("case", SAME)
def test_cas_is_that_of_the_known_head(case, classes):
    forward, more, operands = SAME[case]
    net = net_of(forward, more, classes)
    model, x = wrapped(net, classes), images()
    y = torch.arange(len(x)) % classes
    with torch.no_grad():
        g, W = operands(net, model.normalise(x))
        assert measured_cas(model, x, y) == pytest.approx(literal_cas(g, W, y), rel=1e-3)


REFUSED = {
    "ReLU behind a convolutional head": (
        lambda self, z: F.relu(self.cls(self.map(z))).mean((2, 3)),
        add("cls", lambda k, d: nn.Conv2d(d, k, 1)),
        "cls",
    ),
    "tanh behind the head": (lambda self, z: self.fc(self.g(z)).tanh(), nothing, "fc"),
    "mean of probabilities": (
        lambda self, z: self.fc(self.g(z)).softmax(1) + self.other(self.g(z)).softmax(1),
        nothing,
        "fc",
    ),
    "factor of the image": (
        lambda self, z: self.fc(self.g(z)) * (1 + self.g(z).sum(1, keepdim=True)),
        nothing,
        "fc",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_without_a_head_is_refused_unless_one_is_named(case):
    forward, more, layer = REFUSED[case]
    net, x = net_of(forward, more), images()
    model = wrapped(net)
    assert not model.head_is_known
    assert torch.equal(model(x), net(model.normalise(x))), "attacks need no head"
    for door in (lambda: model.head, lambda: model.features(x), lambda: model.outputs(x)):
        with pytest.raises(UserError, match=f"not W g.*'{layer}' differs by .*model.head=") as e:
            door()
        assert str(e.value).isprintable()
    named = wrapped(net, head=layer)
    assert named.head_name == layer
    assert "which was named" in named.head_warnings[0]
    assert torch.equal(named.features(x), net.g(named.normalise(x)))


SAID = {
    "log-softmax": "up to a constant of each image",
    "softmax": "gradient masking",
    "cosine subclass": "not W g(x) + b of the input and the weight of 'fc' (Cosine)",
    "temperature": "'fc', with 0.5882 times W g(x) + b",
    "two heads, their mean": "'fc + two', with the sum of 0.5 'fc', 0.5 'two'",
    "batch norm behind the head": "'fc', with a factor for each class, constants of the classes",
    "convolution before the pooling": "'cls', with pooled features",
}


@pytest.mark.parametrize("case", SAME)
def test_what_is_taken_instead_of_one_linear_layer_is_said(case):
    forward, more, _ = SAME[case]
    model, x = wrapped(net_of(forward, more)), images()
    said = (*model.head_warnings, *model.notes)
    assert all(sentence.isprintable() for sentence in said)
    assert SAID.get(case, "") in " ".join(said)
    with torch.no_grad():
        g, logits = model.outputs(x)
        z = F.linear(g, model.head.weight, model.head.bias)
    if case == "softmax":
        z = z.softmax(dim=1)
    elif case in ("log-softmax", "distance to prototypes"):
        z, logits = (t - t.mean(dim=1, keepdim=True) for t in (z, logits))
    assert torch.allclose(z, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max()))


def test_logits_that_another_layer_reads_are_logits_still():
    net, x = net_of(pair_that_goes_on, add("hidden", lambda k, d: nn.Linear(d, d)), width=K), images()
    model = wrapped(net)
    assert model.head_name == "fc"
    with torch.no_grad():
        assert torch.equal(model(x), net.fc(net.hidden(net.g(model.normalise(x)))))


@pytest.mark.parametrize(("forward", "kind"), [(pair, "tuple"), (logits_and_auxiliary, "dict")])
def test_the_logits_are_found_among_tensors_of_their_shape(forward, kind):
    net, x = net_of(forward, width=K), images()
    model = wrapped(net)
    with torch.no_grad():
        g = net.g(model.normalise(x))
        assert torch.equal(model(x), net.fc(g))
        assert torch.equal(model.features(x), g)
    assert kind in model.notes[0]


def compiled_in_place(net):
    net.compile(backend="eager")
    return net


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (nn.DataParallel, "module.fc"),
        (lambda net: torch.compile(net, backend="eager"), "_orig_mod.fc"),
        (compiled_in_place, "fc"),
        (Inside, "model.fc"),
        (lambda net: nn.Sequential(nn.Identity(), net), "1.fc"),
    ],
)
def test_wrappers_do_not_hide_the_head(wrap, name):
    net, x = net_of(side_effect("rot"), add("rot", lambda k, d: nn.Linear(d, k))), images()
    model = wrapped(wrap(net))
    assert model.head_name == name
    with torch.no_grad():
        assert torch.equal(model.features(x), net.g(model.normalise(x)))


def test_an_ensemble_has_the_features_of_all():
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.nets = nn.ModuleList(net_of(lambda self, z: self.fc(self.g(z)), seed=i) for i in range(3))

        def forward(self, x):
            return torch.stack([net(x) for net in self.nets]).mean(dim=0)

    net, x = Ensemble(), images()
    model = wrapped(net)
    z = model.normalise(x)
    with torch.no_grad():
        g = torch.cat([n.g(z) for n in net.nets], dim=1)
        W = torch.cat([n.fc.weight for n in net.nets], dim=1)
        y = torch.arange(len(x)) % K
        assert measured_cas(model, x, y) == pytest.approx(literal_cas(g, W, y), rel=1e-4)


def test_layers_that_are_equal_by_chance_are_told_apart():
    def forward(self, z):
        self.first = self.fc(self.g(z))
        self.second = self.other(self.g(z).square())
        return self.first + 0 * self.second

    net = net_of(forward)
    for layer in (net.fc, net.other):
        for p in layer.parameters():
            nn.init.zeros_(p)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert wrapped(net).head_name == "fc"
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_head_that_runs_twice_and_one_of_two_names():
    net, x = net_of(lambda self, z: (self.fc(self.g(z).square()), self.fc(self.g(z)))[1]), images()
    net.other = net.fc
    model = wrapped(net)
    with torch.no_grad():
        assert torch.equal(model.features(x), net.g(model.normalise(x)))


def test_features_are_copies_with_a_gradient():
    net = net_of(lambda self, z: self.fc(self.g(z)).div_(3))
    model, x = wrapped(net), images(4).requires_grad_()
    g = model.features(x)
    (slope,) = torch.autograd.grad(g.sum(), x)
    assert slope.abs().max() > 0


def test_another_order_of_classes_moves_logits_and_rows_together():
    forward, more, _ = SAME["batch norm behind the head"]
    model, x = wrapped(net_of(forward, more)), images()
    with torch.no_grad():
        before, W = model(x), model.head.weight.clone()
        renumber_head(model, (2, 0, 1, 3))  # output 0 is class 2
        assert torch.equal(model(x)[:, [2, 0, 1, 3]], before)
        assert torch.equal(model.head.weight[[2, 0, 1, 3]], W)
        g, logits = model.outputs(x)
        assert torch.allclose(F.linear(g, model.head.weight, model.head.bias), logits, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "more"),
    [((1, 2, 3, 4), 5), ((0, 1, 2, 3), 8), ((2, 0, 3, 1), 4)],
    ids=["background", "first", "moved"],
)
@pytest.mark.parametrize("named", [None, "head"])
def test_logits_may_be_some_rows_of_a_layer(rows, more, named):
    net = net_of(*rows_of(list(rows), more))
    model, x = wrapped(net, head=named), images()
    y = torch.arange(len(x)) % K
    with torch.no_grad():
        wanted = literal_cas(net.g(model.normalise(x)), net.head.weight[list(rows)], y)
    assert measured_cas(model, x, y) == pytest.approx(wanted, abs=1e-5)
    assert not model.head_warnings
    assert any(f"rows {rows[0]}, {rows[1]}" in note for note in model.notes)
    assert model.head_weights == {"head.weight", "head.bias"}
    assert torch.allclose(
        model(x), F.linear(model.features(x), model.head.weight, model.head.bias), atol=1e-5
    )


@pytest.mark.parametrize("side_by_side", [False, True])
def test_views_of_an_image_in_one_batch_count_as_their_mean(side_by_side):
    def forward(self, x):
        z = self.fc(self.g(views(x)))
        return z.unflatten(0, (-1, 2)).mean(1) if side_by_side else z.unflatten(0, (2, -1)).mean(0)

    def views(x):
        return torch.stack((x, x.flip(3)), 1).flatten(0, 1) if side_by_side else torch.cat((x, x.flip(3)))

    net, x = net_of(forward), images()
    model, y = wrapped(net), torch.arange(len(x)) % K
    z = model.normalise(x)
    with torch.no_grad():
        wanted = literal_cas((net.g(z) + net.g(z.flip(3))) / 2, net.fc.weight, y)
    assert measured_cas(model, x, y) == pytest.approx(wanted, abs=1e-5)
    assert any("several views" in note for note in model.notes)


def test_a_product_with_a_parameter_of_the_network_is_a_head_without_a_warning():
    def forward(self, x):
        return torch.addmm(self.b, self.g(x), self.w.T)

    def more(self, k, d):
        self.w, self.b = nn.Parameter(torch.randn(k, d)), nn.Parameter(torch.randn(k))

    assert not wrapped(net_of(forward, more)).head_warnings
    listed = net_of(lambda self, x: self.heads[0](self.g(x)), add("heads", lambda k, d: [nn.Linear(d, k)]))
    assert not wrapped(listed).head_warnings
    cosine = net_of(lambda self, x: self.fc(self.g(x)), lambda self, k, d: setattr(self, "fc", Cosine(d, k)))
    assert wrapped(cosine).head_warnings


def test_constant_logits_are_a_multiple_of_no_layer():
    model = wrapped(net_of(lambda self, x: 0 * self.fc(self.g(x))))
    assert not model.head_is_known


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.rand(2, 3, 12, 12))]
)
def test_torchscript_is_refused_by_its_name(make):
    net = nn.Sequential(nn.Conv2d(3, D, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(D, K)).eval()
    with pytest.raises(UserError, match="TorchScript"):
        wrapped(make(net))
    assert wrapped(nn.Sequential(make(net[:3]), net[3])).head_name == "1"  # inside it is like any layer


def test_outputs_that_are_no_number_leave_the_head_to_the_others():
    def some(self, x):
        z = self.fc(self.g(x))
        return torch.where((x[:, 0, 0, 0] > 0)[:, None], z / 0 * 0, z)

    net = net_of(some)
    assert wrapped(net).head_name == "fc"
    assert wrapped(net).head_is_known
    broken = net_of(lambda self, x: self.fc(self.g(x)))
    broken.fc.bias.data[1] = torch.nan
    assert wrapped(broken).head_is_known
    model = wrapped(net_of(lambda self, x: self.fc(self.g(x)) * torch.nan))
    with pytest.raises(UserError, match="not finite"):
        model.features(images())
