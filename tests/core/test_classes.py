"""Labels in the shapes that people store them in, and outputs that are no number."""

import numpy as np
import pytest
import torch
from torch import nn

import crossclass as cc
from conftest import Plane
from crossclass.analysis import evaluate
from crossclass.core.classes import class_labels, predicted
from crossclass.core.errors import UserError
from crossclass.data.base import Split
from crossclass.models import Classifier

Y = torch.tensor([0, 1, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("y", "n"),
    [
        pytest.param(Y.float(), None, id="floats are no classes"),
        pytest.param(Y.bool(), None, id="nor are truth values"),
        pytest.param(Y[:, None].float(), None, id="nor floats [n, 1]"),
        pytest.param(nn.functional.one_hot(Y), None, id="one-hot integers"),
        pytest.param(Y[:, None, None], None, id="three dimensions"),
        pytest.param(Y[0], None, id="one number"),
        pytest.param(Y, 5, id="not one for each image"),
        pytest.param(Y[None], 6, id="a row"),
    ],
)
def test_other_labels_are_a_sentence(y, n):
    with pytest.raises(UserError, match="labels have type") as e:
        class_labels(y, n)
    assert "\n" not in str(e.value)
    assert "give" in str(e.value)


def test_a_column_is_read_as_classes_and_probabilities_stay():
    assert torch.equal(class_labels(Y[:, None], 6), Y)
    soft = torch.rand(6, 2)
    assert class_labels(soft) is soft


@pytest.mark.parametrize("settings", [{"loss": "ce"}, {"loss": "margin"}, {"return_iterate": "first"}])
def test_attacks_read_a_column_as_classes(settings):
    """Read as probabilities of one class, it was attacked as if everything was class 0."""
    torch.manual_seed(0)
    model, x = Plane(torch.randn(27), 0.1), torch.rand(6, 3, 3, 3)
    attack = cc.PGD(threat=cc.Linf(eps=0.05), steps=3, **settings)
    for method in (attack, lambda *a: attack.search(*a).x_adv):
        expected, column = (method(model, x, y, torch.Generator().manual_seed(0)) for y in (Y, Y[:, None]))
        assert torch.equal(expected, column)


def test_losses_read_a_column_as_classes():
    logits = torch.randn(6, 2)
    for loss in (cc.cross_entropy, cc.margin):
        assert torch.equal(loss(logits, Y[:, None]), loss(logits, Y))


class Net(Classifier):
    """Logits are the first pixels; NaN where the image's last pixel is 1."""

    def __init__(self, k: int = 2) -> None:
        super().__init__((0.0,) * 3, (1.0,) * 3)
        self.head = nn.Linear(k, k, bias=False)
        nn.init.eye_(self.head.weight)
        self.k = k

    def features(self, x):
        g = x.flatten(1)[:, : self.k]
        return torch.where(x.flatten(1)[:, -1:] > 0.9, torch.nan, g)


def images(labels: torch.Tensor, nan: int, k: int = 2) -> Split:
    """Images that `Net` classifies rightly, but for the first `nan`, whose logits are NaN."""
    pixels = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    pixels.view(len(labels), -1)[torch.arange(len(labels)), labels.flatten()] = 255
    pixels.view(len(labels), -1)[:nan, -1] = 255
    return Split(pixels, labels)


def test_data_read_a_column_as_classes_and_refuse_others(tmp_path):
    expected, column = (evaluate.evaluate(Net(), images(y, 0), None) for y in (Y, Y[:, None]))
    assert column.accuracy("clean") == expected.accuracy("clean") == 1
    assert torch.equal(column.C, expected.C)
    x = np.zeros((6, 4, 4, 3), dtype=np.uint8)
    for labels, ok in ((Y[:, None].numpy(), True), (nn.functional.one_hot(Y).numpy(), False)):
        np.savez(tmp_path / "test.npz", images=x, labels=labels)
        if ok:
            assert cc.Npz(path=tmp_path)().test.labels.tolist() == Y.tolist()
        else:
            with pytest.raises(UserError, match="one-hot"):
                cc.Npz(path=tmp_path)()


def test_measures_read_a_column_as_classes():
    torch.manual_seed(0)
    g, W, column = torch.rand(6, 4), torch.randn(2, 4), Y[:, None]
    assert torch.equal(cc.class_means(g, W, column), cc.class_means(g, W, Y))
    assert torch.equal(cc.nearest(g, W, column), cc.nearest(g, W, Y))
    assert torch.equal(cc.all_pairs(g, W, column), cc.all_pairs(g, W, Y))
    at = cc.nearest(g, W, Y)
    assert torch.equal(cc.instance_correlation(at, column), cc.instance_correlation(at, Y))
    said = torch.tensor([0, 1, 0, 0, 1, 1])
    assert evaluate.accuracy(said, column) == evaluate.accuracy(said, Y) == pytest.approx(4 / 6)
    assert evaluate.classwise(said, column, 2) == evaluate.classwise(said, Y, 2)
    assert torch.equal(evaluate.confusion(said, column, 2), evaluate.confusion(said, Y, 2))
    for metric in (cc.ClassCorrelation(2, 4), cc.CAS(2, 4), cc.InstanceCAS(2, 4)):
        values = []
        for labels in (Y, column):
            metric.reset()
            metric.update(g, labels, W)
            values.append(metric.compute())
        assert torch.equal(*values)
    accuracy = cc.ClasswiseAccuracy(2)
    accuracy.update(said, column)
    assert accuracy.compute().tolist() == pytest.approx([2 / 3, 2 / 3])


def test_labels_that_the_network_has_no_output_for_are_a_sentence():
    with pytest.raises(UserError, match="the network has 2 outputs"):
        evaluate.evaluate(Net(), images(torch.tensor([0, 2, 1]), 0), None)


def test_an_output_that_is_no_number_is_no_class():
    nan, inf = torch.nan, torch.inf
    logits = torch.tensor([[nan, nan], [1, nan], [inf, 0], [-inf, -inf], [-inf, 1], [2, 1]])
    assert predicted(logits).tolist() == [-1, -1, -1, -1, 1, 0]


def test_nan_counts_as_wrong_in_every_number_and_is_told_first():
    labels = torch.arange(12) % 3
    found = evaluate.evaluate(Net(3), images(labels, nan=3), cc.PGD(steps=1, threat=cc.Linf(eps=0.001)))
    assert found.accuracy("clean") == found.accuracy("robust") == 9 / 12
    assert found.clean[:3].tolist() == found.robust[:3].tolist() == [-1] * 3
    assert found.confusion.tolist() == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert (found.predicted_classes, found.largest_share) == (3, 3 / 12)
    told = evaluate.summary(found, ("a", "b", "c"))
    assert told["classwise_robust"] == [0.75] * 3
    assert told["warnings"][0].startswith("3 of 12 outputs are not finite")


def test_a_network_that_returns_only_nan_is_wrong_everywhere_and_no_class_is_predicted():
    labels = torch.zeros(6, dtype=torch.int64)  # it was said to be always right about class 0
    found = evaluate.evaluate(Net(), images(labels, nan=6), None)
    told = evaluate.summary(found, ("a", "b"))
    assert (found.accuracy("clean"), found.predicted_classes, found.largest_share) == (0, 0, 0)
    assert told["warnings"][0].startswith("6 of 6 outputs are not finite")
    assert not any("collapsed" in w for w in told["warnings"])


@pytest.mark.parametrize(
    "settings", [{"return_iterate": "best"}, {"return_iterate": "first"}, {"restarts": 2}]
)
def test_an_attack_that_makes_nan_has_succeeded(settings):
    class Fragile(nn.Module):
        def forward(self, x):
            m = x.flatten(1).sum(dim=1)
            logits = torch.stack((m + 100, -m), dim=1)
            return torch.where((x.flatten(1).amax(dim=1) > 0.5)[:, None], torch.nan, logits)

    x = torch.full((4, 1, 2, 2), 0.49)
    attack = cc.PGD(threat=cc.Linf(eps=0.1), steps=2, start="uniform", targeted=False, **settings)
    result = attack.search(Fragile(), x, torch.zeros(4, dtype=torch.int64), torch.Generator().manual_seed(0))
    broken = Fragile()(result.x_adv).isnan().any(dim=1)
    assert bool(broken.any())
    assert bool(result.success[broken].all())
