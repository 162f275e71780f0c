"""A network in memory is measured as its checkpoint is: the same numbers, checks and warnings."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import crossclass as cc
from crossclass.analysis.records import result_file
from crossclass.analysis.result_files import load_results, write_results
from crossclass.data import Split, as_float
from networks import THIN, made

G = torch.Generator().manual_seed(3)
IMAGES = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=G)
LABELS = torch.arange(40) % 5
ATTACK = cc.PGD(steps=2)
QUIET = cc.Measure(check_inputs=False, images=0)


class Net(nn.Module):
    """Convolution, batch norm, linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).relu().mean(dim=(2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def test_it_gives_the_numbers_of_evaluate(net):
    by_hand = cc.evaluate(cc.Wrapped(net, 5, 3, (0.0,), (1.0,), 16), Split(IMAGES, LABELS), ATTACK)
    result = cc.measure(net, IMAGES, LABELS, attack=ATTACK, settings=QUIET)
    assert result["robust"] == by_hand.accuracy("robust")
    assert result["clean"] == by_hand.accuracy("clean")
    assert result["cas"] == pytest.approx(by_hand.cas, abs=1e-6)
    assert np.allclose(result.C, by_hand.C.numpy(), atol=1e-6)
    assert result.intervals.ends("cas") is not None
    assert (result.per_image.correct_robust == (by_hand.robust == LABELS).numpy()).all()
    assert result.per_image.correct_clean.mean() == result["clean"]
    assert result.attack == str(ATTACK)


def test_a_classifier_is_measured_as_it_is():
    net = made(THIN)
    result = cc.measure(net, IMAGES, LABELS, ATTACK, settings=QUIET)
    whole = cc.evaluate(net, Split(IMAGES, LABELS), ATTACK)
    assert result["robust"] == whole.accuracy("robust")
    with pytest.raises(cc.UserError, match="normalise"):
        cc.measure(net, IMAGES, LABELS, normalise="cifar10")


def test_images_may_be_floats_or_bytes_in_either_order_of_sides_and_arrays(net):
    forms = [
        IMAGES,
        as_float(IMAGES),
        IMAGES.permute(0, 2, 3, 1),
        as_float(IMAGES).permute(0, 2, 3, 1).numpy(),
        as_float(IMAGES).double(),
    ]
    results = [cc.measure(net, x, LABELS.tolist(), None, settings=QUIET) for x in forms]
    assert len({json.dumps(r.to_dict()) for r in results}) == 1


def test_the_network_comes_back_as_it_was(net):
    net.train()
    net.fc.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = as_float(IMAGES)
    cc.measure(net, x, LABELS, attack=ATTACK)
    assert [m.training for m in net.modules()] == [True, True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(x, as_float(IMAGES))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"images": as_float(IMAGES) * 4 - 2}, "normalis"),
        ({"images": as_float(IMAGES) * 255}, "255"),
        ({"images": IMAGES[0]}, "shape"),
        ({"images": IMAGES.int()}, "int32"),
        ({"images": torch.full((40, 3, 16, 16), float("nan"))}, "nan"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "0 images"),
        ({"labels": LABELS[:3]}, "label"),
        ({"labels": LABELS + 1}, "label"),
        ({"class_names": "abc"}, "3"),
        ({"normalise": "cifar11"}, "cifar10"),
        ({"head": "conv"}, "head=conv"),
        ({"settings": cc.Measure(attack=ATTACK)}, "attack="),
        ({"eps": 8 / 255}, "attack=PGD"),
        ({"n": 20}, "settings=Measure"),
        ({"class_name": ["a"]}, "class_names"),
    ],
)
def test_a_mistake_is_one_sentence(net, change, word):
    given = {"model": net, "images": IMAGES, "labels": LABELS, "attack": ATTACK, **change}
    with pytest.raises(cc.UserError, match=word) as told:
        cc.measure(**given)
    assert "model." not in str(told.value)


def test_what_must_be_given_is_named(net):
    for call, word in (
        (lambda: cc.measure(net, IMAGES), "labels"),
        (lambda: cc.CAS(num_classes=5), "num_features"),
    ):
        with pytest.raises(cc.UserError, match=word):
            call()


def test_what_is_no_network_is_told_what_measure_takes():
    with pytest.raises(cc.UserError, match="measure"):
        cc.measure("runs/a")
    with pytest.raises(cc.UserError, match="logits"):
        cc.measure(nn.Flatten(0), IMAGES, LABELS)


@pytest.mark.usefixtures("without_shape_checks")
def test_what_is_no_list_of_files_is_told_so():
    with pytest.raises(cc.UserError, match="list of run folders and files"):
        cc.measure(1)


def test_another_normalisation_that_is_clearly_better_is_said_and_not_taken():
    # brightness of the image is its class, for images in [-1, 1]
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([[-1.0] * 3, [1.0] * 3]))
        net[2].bias.zero_()
    labels = torch.arange(400) % 2
    images = (60 + 130 * labels)[:, None, None, None].expand(400, 3, 4, 4).byte()
    images = images + torch.randint(0, 20, images.shape, dtype=torch.uint8, generator=G)
    result = cc.measure(net, images, labels, attack=None)
    assert result["clean"] == 0.5  # as it was called
    told = " ".join(result.warnings)
    assert 'normalise="imagenet"' in told
    right = cc.measure(net, images, labels, attack=None, normalise=([0.5], [0.5]))
    assert right["clean"] == 1
    assert "normalise" not in " ".join(right.warnings)


def test_the_record_is_a_result_file_like_any(net, tmp_path):
    result = cc.measure(net, IMAGES, LABELS, ATTACK, settings=QUIET, name="mine", class_names="abcde")
    write_results(tmp_path / "a.json", result_file([result]))
    again = load_results(tmp_path / "a.json").of("mine")
    assert again["cas"] == result["cas"]
    assert again.class_names == list("abcde")
    assert (again.C == result.C).all()
    assert again.per_image is None  # never in the file


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_labels_of_any_whole_type_are_measured(net, kind) -> None:
    result = cc.measure(net, IMAGES, LABELS.numpy().astype(kind), attack=ATTACK)
    assert result["clean"] == cc.measure(net, IMAGES, LABELS, attack=ATTACK)["clean"]
