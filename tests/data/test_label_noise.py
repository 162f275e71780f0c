"""Symmetric label noise: so many training labels are wrong, each other class as likely, and nothing else."""

import pytest
import torch

from crossclass.core.errors import UserError
from crossclass.data import Digits, Shapes
from crossclass.data.label_noise import with_label_noise
from crossclass.training.loop import iterate_epochs
from crossclass.training.run import Run
from tiny_runs import CPU, TINY


def noisy(data):
    return with_label_noise(data(), data)


@pytest.mark.parametrize("data", [Shapes(n_train=3000, size=16, classes=4), Digits()])
def test_a_share_of_the_training_labels_is_wrong_and_nothing_else(data):
    clean, found = data(), noisy(data.replace(label_noise=0.3))
    n, classes = len(clean.train), len(clean.class_names)
    assert torch.equal(clean.train.images, found.train.images)
    for part in ("val", "test"):
        assert torch.equal(getattr(clean, part).labels, getattr(found, part).labels)
    wrong = found.train.labels != clean.train.labels
    assert int(wrong.sum()) == round(0.3 * n)
    away = (found.train.labels - clean.train.labels)[wrong] % classes
    shares = torch.bincount(away, minlength=classes) / len(away)
    assert shares[0] == 0
    assert shares[1:] == pytest.approx(1 / (classes - 1), abs=0.05)
    assert found.checksum == clean.checksum  # of what the files hold


def test_the_seed_of_the_data_draws_it():
    one, again = (noisy(Shapes(label_noise=0.2)).train.labels for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, noisy(Shapes(label_noise=0.2, seed=1)).train.labels)
    a, b = (noisy(Digits(label_noise=0.2, subset_seed=s)).train.labels for s in (0, 1))
    assert not torch.equal(a, b)


def test_a_run_without_it_is_the_run_that_it_was():
    assert Shapes().digest() == Shapes(label_noise=0.0).digest()
    assert Run(data=Shapes(label_noise=0.1)).digest() != Run(data=Shapes()).digest()
    splits = Shapes()()
    assert with_label_noise(splits, Shapes()) is splits
    with pytest.raises(UserError, match="label_noise"):
        Shapes(label_noise=1.0)


def test_a_run_is_trained_on_wrong_labels_and_judged_on_right_ones(tmp_path):
    # all wrong: with two classes the network learns the opposite
    data = TINY.data.replace(classes=2, edges=(), label_noise=0.999, n_train=64, n_test=32)
    run = TINY.replace(data=data, epochs=6, lr_milestones=())
    *_, (folder, row) = iterate_epochs(run, tmp_path, "r", CPU)
    assert row.train_clean > 0.7
    assert row["test_clean"] < 0.3
    assert "label_noise=0.999" in folder.read("env.json")["data"]
