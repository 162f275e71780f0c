"""Symmetric label noise: some training labels are wrong, as in most data sets that people have labelled.

Which images get a wrong label, and which one, is drawn from a stream of its own, so that nothing else of a
run changes. The labels of validation and test images are never changed.
"""

from dataclasses import replace

import torch

from crossclass.core.rng import generator
from crossclass.data.base import Data, Split, Splits


def with_label_noise(splits: Splits, data: Data) -> Splits:
    """The same with a wrong label for a share of the training images, if the data set's settings say so.

    Of n training images round(label_noise * n) get another class, each other class being equally likely.
    """
    train, n = splits.train, round(data.label_noise * len(splits.train))
    if n == 0:
        return splits
    classes, g = len(splits.class_names), generator(data.draw_seed, purpose="label noise")
    chosen = torch.randperm(len(train), generator=g)[:n]
    labels = train.labels.clone()
    labels[chosen] = (labels[chosen] + torch.randint(1, classes, (n,), generator=g)) % classes
    return replace(splits, train=Split(train.images, labels))
