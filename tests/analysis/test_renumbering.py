"""Classes in another order than the data's are put right or named; confusions are none."""

from pathlib import Path

import pytest
import torch

from conftest import seeded
from crossclass.analysis.accuracy_tests import beats
from crossclass.analysis.label_warnings import label_warnings
from crossclass.analysis.renumbering import (
    best_renumbering,
    explaining_renumbering,
    orders_of_names,
    renumbered,
)
from crossclass.checkpoints.card import Card
from crossclass.core.errors import UserError
from crossclass.data import Splits
from crossclass.models import PreActResNet
from crossclass.models.reordered import renumber_head
from crossclass.training.teachers import _require_fit
from pattern_network import PatternNetwork, pattern_splits
from settling import BYTES, IMAGENET, buffers, said, settled


@pytest.fixture(scope="module")
def data() -> Splits:
    """Five classes; the network is right on 89 % of the images."""
    return pattern_splits()


def test_names_sorted_as_numbers_or_as_text_are_named_with_one_image_of_each():
    names = tuple(sorted(str(i + 1) for i in range(60)))
    (meant,) = orders_of_names(names)
    assert [names[c] for c in meant[:11]] == [str(i + 1) for i in range(11)]
    assert orders_of_names(("a", "b")) == []
    assert orders_of_names(("bird", "ant")) == [(1, 0)]
    labels = torch.arange(60)
    predicted = torch.tensor(meant).argsort()[labels]
    predicted[:3] = 0  # a few mistakes
    assert explaining_renumbering(predicted, labels) is None, "too few to seek it"
    assert explaining_renumbering(predicted, labels, orders_of_names(names)) == meant
    (line,) = label_warnings(predicted, labels, names)
    assert "output 1 is 2" in line
    assert label_warnings(labels, labels, names) == []


def test_classes_that_are_confused_with_each_other_are_no_numbering():
    """Half of the classes are called by the name of the next one, half of these images are right."""
    labels = torch.arange(1000) % 10
    predicted = torch.where(torch.arange(1000) % 20 < 10, (labels + 1) % 10, labels // 2)
    best = best_renumbering(predicted, labels, 10)
    right = renumbered(predicted, best) == labels
    assert beats(right, predicted == labels, by=0.05), "the case is a case"
    assert explaining_renumbering(predicted, labels) is None
    noisy = torch.where(torch.arange(1000) % 50 < 20, torch.randint(10, (1000,), generator=seeded(1)), labels)
    assert explaining_renumbering((noisy + 1) % 10, labels) == tuple(
        (torch.arange(10) - 1).remainder(10).tolist()
    )


@pytest.mark.parametrize("by", ["guess", "user"])
def test_permuted_classes_are_put_into_the_order_of_the_data(data, by):
    net = PatternNetwork(IMAGENET)
    right = said(net, data)
    renumber_head(net, (2, 0, 1, 4, 3))
    assert torch.equal(said(net, data), torch.tensor([2, 0, 1, 4, 3])[right])
    out = settled(net, data, by)
    assert torch.equal(said(out.loaded.model, data), right)
    assert sorted(out.check.class_of_output) == [0, 1, 2, 3, 4]
    (line,) = out.warnings
    assert "output" in line


def test_permuted_classes_and_a_wrong_normalisation(data):
    net = PatternNetwork()
    right = said(net, data)
    renumber_head(net, (1, 2, 0, 4, 3))
    buffers(net, BYTES)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert len(out.warnings) == 2


def test_labels_that_make_numbers_meaningless_are_named():
    y = torch.arange(300) % 3
    assert label_warnings(y, y, ("a", "b", "c")) == []
    (line,) = label_warnings((y + 1) % 3, y, ("a", "b", "c"))
    assert "0.0%" in line
    assert "100.0%" in line
    assert "output 1 is a" in line
    (line,) = label_warnings(torch.zeros(300, dtype=torch.int64), y, ("a", "b", "c"))
    assert "33.3% of 300" in line
    (line,) = label_warnings(torch.where(y == 2, 1, y), y, ("a", "b", "c"))
    assert "no image is given these classes, although there are images of them: c" in line
    swapped = torch.where(y == 2, 2, 1 - y)
    assert "output 2" not in label_warnings(swapped, y, ("a", "b", "c"))[0]


def test_confusing_two_classes_is_no_renumbering():
    y = torch.arange(400) % 4
    said = torch.where((y == 1) & (torch.arange(400) % 8 < 4), 2, y)  # half of the ones are called twos
    assert explaining_renumbering(said, y) is None


def test_a_teacher_with_other_classes_is_refused(data):
    net = PatternNetwork()
    card = Card(checkpoint="last", epoch=1, model=PreActResNet(), classes=5, channels=3, size=6)
    _require_fit(Path("t.safetensors"), net, card, data)
    renumber_head(net, (1, 2, 3, 4, 0))
    with pytest.raises(UserError, match="numbers its classes otherwise"):
        _require_fit(Path("t.safetensors"), net, card, data)
