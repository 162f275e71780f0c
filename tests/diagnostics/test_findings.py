"""The doctor says nothing bad about sound networks, and of the others what is wrong and what to set."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import seeded
from crossclass import diagnostics
from crossclass.analysis.renumbering import renumbering
from crossclass.attacks.norms import L2, Linf
from crossclass.core.errors import UserError
from crossclass.data import Split, Splits
from crossclass.diagnostics import FINDINGS, examine
from crossclass.diagnostics.findings import beats
from crossclass.diagnostics.gradient_masking import _gradient_ratio
from crossclass.diagnostics.inputs import labels
from crossclass.diagnostics.probe import make_probe
from crossclass.models import statistics
from crossclass.models.wrapper import Wrapped
from faulty_networks import EPS, FULL, QUICK, Small, bad, by_name, infinite, relabelled, splits_of

# ---------------------------------------------------------------- sound networks


@pytest.mark.parametrize("which", ["none", "imagenet", "bytes", "robust"])
@pytest.mark.parametrize("threat", [Linf(eps=EPS), L2(eps=0.4)], ids=["linf", "l2"])
def test_a_sound_network_raises_nothing(which: str, threat: Any, nets: dict[str, Small], data: Splits):
    surrogate = nets["robust" if which == "none" else "none"]
    found = examine(copy.deepcopy(nets[which]), data, FULL.replace(threat=threat), surrogate=surrogate)
    assert [f for f in found if f.level != "fine"] == []
    assert all(f.remedy == "" for f in found)
    looked = set(by_name(found))
    assert looked == set(FINDINGS) - {"not-examined"}, "whatever can be looked for was looked for"


def test_two_gray_classes_are_served(nets: dict[str, Small]):
    found = by_name(examine(copy.deepcopy(nets["two gray"]), splits_of(2, 1), FULL))
    assert bad(list(found.values())) == []
    assert "wrong-channel-order" not in found
    assert "mnist" in found["wrong-normalisation"].numbers
    assert "cifar10" not in found["wrong-normalisation"].numbers


def test_a_wrapped_network_is_served(data: Splits):
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, 3))
    found = by_name(examine(Wrapped(net, 3, 3, (0.5,), (0.5,), 6).eval(), data, QUICK))
    assert found["head-mismatch"].level == "fine"
    squashed = Wrapped(nn.Sequential(*net, nn.Softmax(dim=1)), 3, 3, (0.5,), (0.5,), 6).eval()
    found = by_name(examine(squashed, data, QUICK))
    assert found["softmax-outputs"].level == "fault"
    assert found["head-mismatch"].level == "warning"


def test_more_outputs_than_classes_are_attacked_all_the_same(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    head = nn.Linear(net.head.in_features, 5)
    with torch.no_grad():
        head.weight[:3], head.bias[:3] = net.head.weight, net.head.bias
        head.bias[3:] = -50
    net.head = head.eval()
    found = by_name(examine(net, data, QUICK))
    assert bad(list(found.values())) == ["wrong-class-count"]
    assert "gradient-masking-eps" in found


def test_cas_of_features_of_both_signs_is_said_to_be_movable(nets: dict[str, Small], data: Splits):
    sound = by_name(examine(copy.deepcopy(nets["none"]), data, QUICK))["movable-cas"]
    assert sound.level == "fine"
    net = copy.deepcopy(nets["none"])
    with torch.no_grad():  # the same logits from features that are one unit lower
        net.head.bias += net.head.weight.sum(dim=1)
    features = net.features
    net.features = lambda x: features(x) - 1
    found = by_name(examine(net, data, QUICK))["movable-cas"]
    assert found.level == "note"
    assert sound.numbers["as_it_is"] != sound.numbers["features_centred"]
    assert found.numbers["features_centred"] == pytest.approx(sound.numbers["features_centred"], rel=1e-4)
    assert len(found.numbers["rotated"]) == 5


def test_files_sorted_by_class_do_no_harm(nets: dict[str, Small], data: Splits):
    order = data.test.labels.argsort(stable=True)
    test = Split(data.test.images[order], data.test.labels[order])
    splits = Splits(data.train, data.val, test, data.class_names, data.checksum)
    settings = QUICK.replace(n=120)
    probe = make_probe(nets["none"], splits, settings, None, None)
    assert torch.bincount(probe.y, minlength=3).min() > 20
    assert bad(examine(copy.deepcopy(nets["none"]), splits, settings)) == []


@pytest.mark.filterwarnings("error")
def test_one_image_says_nothing_about_what_varies(nets: dict[str, Small], data: Splits):
    one = Splits(data.train, data.val, data.test.first(1), data.class_names, data.checksum)
    found = by_name(examine(copy.deepcopy(nets["none"]), one, QUICK))
    assert found["constant-outputs"].level == found["dead-features"].level == "fine"


def test_images_come_from_the_first_part_that_has_some(nets: dict[str, Small], data: Splits):
    none = Split(data.test.images[:0], data.test.labels[:0])
    val = Splits(data.train, data.test, none, data.class_names, data.checksum)
    assert "300 val images, seed 0" in by_name(examine(nets["none"], val, QUICK))["dead-features"].evidence
    train_only = Splits(data.train, none, none, data.class_names, data.checksum)
    assert "train images" in by_name(examine(nets["none"], train_only, QUICK))["dead-features"].evidence
    with pytest.raises(UserError, match="no images"):
        examine(nets["none"], Splits(none, none, none, data.class_names, data.checksum), QUICK)


# ---------------------------------------------------------------- what findings say


def test_normalisation_names_the_setting_and_the_accuracies(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["imagenet"])
    net.mean, net.std = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    stats = statistics()["imagenet"]
    f = by_name(examine(net, data, QUICK, file_normalisation=stats))["wrong-normalisation"]
    # neighbours cannot be told apart on these images: the file has the last word
    assert f.remedy == "set model.normalise={mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
    x, y = make_probe(net, data, QUICK, None, None).x, make_probe(net, data, QUICK, None, None).y
    for name in ("cifar10", "half"):
        mean, std = statistics()[name] if name != "half" else ((0.5,) * 3, (0.5,) * 3)
        seen = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        net.mean, net.std = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
        with torch.no_grad():
            assert f.numbers[name] == pytest.approx(float((net(seen).argmax(1) == y).double().mean()))
    assert f.numbers["loaded"] == "none"
    without = by_name(examine(net, data, QUICK))["wrong-normalisation"]
    assert "model.normalise=" in without.remedy
    assert "300 test images, seed 0" in without.evidence


def test_range_and_twice_name_the_setting(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["bytes"])
    net.std = torch.ones(1, 1, 1, 1)
    assert "{mean: [0], std: [0.00392157]}" in by_name(examine(net, data, QUICK))["wrong-range"].remedy
    net = copy.deepcopy(nets["none"])
    net.mean, net.std = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.25)
    assert "model.normalise=none" in by_name(examine(net, data, QUICK))["normalised-twice"].remedy


def test_the_file_breaks_a_tie_but_not_the_evidence(nets: dict[str, Small], data: Splits, monkeypatch):
    monkeypatch.setattr(diagnostics, "STAGES", diagnostics.STAGES[:3])
    net = copy.deepcopy(nets["imagenet"])
    net.mean, net.std = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    near, far = ((0.6,), (0.3,)), ((0.65,), (0.9,))
    for stats, believed in ((near, True), (far, False)):
        f = by_name(examine(net, data, QUICK, file_normalisation=stats))["wrong-normalisation"]
        assert f.numbers["file"] < 1 == f.numbers["imagenet"]
        assert (str(stats[1][0]) in f.remedy) == believed


def test_the_other_view_is_the_right_one(nets: dict[str, Small], data: Splits, monkeypatch):
    monkeypatch.setattr(diagnostics, "STAGES", diagnostics.STAGES[:3])
    views = {"wrong-channel-order": lambda x: x.flip(1), "transposed-images": lambda x: x.transpose(2, 3)}
    whole = by_name(examine(copy.deepcopy(nets["none"]), data, QUICK))["transposed-images"]
    for name, view in views.items():
        net = copy.deepcopy(nets["none"])
        net.before = view
        f = by_name(examine(net, data, QUICK))[name]
        assert f.numbers["other"] == whole.numbers["as given"]


def test_permuted_labels_name_the_permutation(nets: dict[str, Small], data: Splits):
    moved = relabelled(lambda y: (y + 1) % 3)(data)
    f = by_name(examine(copy.deepcopy(nets["none"]), moved, QUICK))["permuted-labels"]
    assert f.numbers["class_of_output"] == [1, 2, 0]
    assert "0 is b, 1 is c, 2 is a" in f.evidence


class Planar(Small):
    """The pixels themselves are the features."""

    def features(self, x: Tensor) -> Tensor:
        return self.normalise(x).flatten(1)


def planar(classes: int) -> Planar:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Planar(classes, 3).eval()
        net.head = nn.Linear(108, classes, bias=False).eval()
    net.mean = torch.full((1, 1, 1, 1), 0.5)
    return net


def test_many_classes_and_random_labels_are_not_taken_for_a_permutation():
    # with 40 x 40 cells some renumbering fits any 60 images, but not the next 60
    g = seeded(3)
    images = torch.randint(256, (120, 3, 6, 6), generator=g).to(torch.uint8)
    split = Split(images, torch.randint(40, (120,), generator=g))
    names = tuple(str(i) for i in range(40))
    p = make_probe(planar(40), Splits(split, split, split, names, "0"), QUICK, None, None)
    predicted, first = p.all_logits.argmax(dim=1), torch.arange(120) % 2 == 0
    counts = torch.zeros(40, 40, dtype=torch.int64)
    counts.index_put_((p.y[first], predicted[first]), torch.tensor(1), accumulate=True)
    fitted = renumbering(counts)[predicted[first]] == p.y[first]
    assert beats(fitted, predicted[first] == p.y[first], by=0.05), "else this test could not fail"
    assert by_name(labels(p))["permuted-labels"].level == "fine"


def test_what_was_left_out_is_said(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    net.after = infinite
    found = by_name(examine(net, data, QUICK))
    assert "normalisation" in found["not-examined"].evidence
    assert "radii" in found["not-examined"].evidence
    assert "gradient-masking-eps" not in found
    net = copy.deepcopy(nets["none"])
    net.head = nn.Linear(7, 3)
    assert set(by_name(examine(net, data, QUICK))) >= {"cannot-run", "not-examined"}
    net = copy.deepcopy(nets["none"])
    net.before = lambda x: x.detach()
    found = by_name(examine(net, data, QUICK))
    assert "no gradient" in found["not-examined"].evidence
    labels = relabelled(lambda y: torch.randint(3, y.shape, generator=seeded(0)))(data)
    found = by_name(examine(copy.deepcopy(nets["none"]), labels, QUICK.replace(n_attack=4)))
    assert "nothing to attack" in found["not-examined"].evidence


def test_modules_that_ignore_eval_are_named(nets: dict[str, Small], data: Splits):
    class Stubborn(nn.Dropout):
        def train(self, mode: bool = True) -> "Stubborn":
            self.training = True
            return self

    net = copy.deepcopy(nets["none"])
    net.drop = Stubborn(0.0)
    net.drop.training = False  # so that only eval() shows it
    f = by_name(examine(net, data, QUICK))["train-mode"]
    assert f.level == "warning"
    assert f.numbers["training"] == []


def test_batch_norm_accuracies_are_those_of_the_two_modes(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    net.bn.running_mean += 0.7
    settings = QUICK.replace(batch=150)
    p = make_probe(net, data, settings, None, None)
    f = by_name(examine(net, data, settings))["stale-batch-norm"]
    with torch.no_grad():
        running = (net(p.x).argmax(1) == p.y).double().mean()
        apart = copy.deepcopy(net)
        apart.bn.train()
        own = torch.cat([apart(p.x[:150]), apart(p.x[150:])])
    assert f.numbers["running"] == pytest.approx(float(running))
    assert f.numbers["batch"] == pytest.approx(float((own.argmax(1) == p.y).double().mean()))


def test_straight_through_rounding_is_no_wrong_gradient(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    net.before = lambda x: x + ((x * 255).round() / 255 - x).detach()
    assert by_name(examine(net, data, FULL))["wrong-gradients"].level == "fine"


def test_the_gradient_of_a_plane_tells_all():
    net = planar(2)
    splits = splits_of(2)
    p = make_probe(net.double(), splits, QUICK, None, None)
    w = net.head.weight.detach()
    gradient = (
        torch.where((p.attack_set[1] == 0)[:, None], w[1] - w[0], w[0] - w[1])
        .view(p.attack_set[0].shape)
        .float()
    )
    assert torch.allclose(_gradient_ratio(p, gradient, 0.25), torch.ones(12).double(), atol=1e-4)
    assert torch.allclose(_gradient_ratio(p, 2 * gradient, 0.25), torch.full((12,), 0.5).double(), atol=1e-4)
