"""An epoch never waits for its device between batches: nothing is read from a tensor until it is over."""

from collections import Counter

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from crossclass import models
from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import L2
from crossclass.core.progress import silent
from crossclass.data import Shapes
from crossclass.training.epoch import train_epoch
from crossclass.training.labels import TemporalEnsembling
from crossclass.training.recipes import AT, KnowledgeDistillation, Teacher
from crossclass.training.state import TrainState
from tiny_runs import CPU, RECIPES, TINY

READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default", "unique", "masked_select")


class Reading(TorchDispatchMode):
    """Counts what would make a GPU's host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in READS):
            self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


def reads(recipe, batches: int, **settings) -> Counter[str]:
    data = Shapes(n_train=8 * batches, n_val=6, n_test=6, classes=3, size=16)
    splits = data()
    run = TINY.replace(data=data, recipe=recipe, epochs=1, lr_milestones=(), **settings)

    def net():
        return models.build(TINY.model, splits.train.images, 3, 0)

    if isinstance(recipe, KnowledgeDistillation):
        recipe = recipe.replace(teachers=(Teacher(module=net().requires_grad_(False)),))
    state = TrainState(run, CPU, net(), splits)
    with Reading() as mode:
        train_epoch(recipe, state, splits, 1, silent, lambda text: None)
    return mode.seen


MORE = [
    AT(attack=PGD(threat=L2(), steps=2, restarts=2, loss="margin", bn="train")),
    AT(attack=FGSM(start="uniform", rel_step=1.25)),
]


@pytest.mark.parametrize("recipe", [*RECIPES.values(), *MORE], ids=lambda r: r.kind)
def test_what_is_read_does_not_grow_with_the_number_of_batches(recipe):
    extras = {"label_smoothing": 0.1, "grad_clip_norm": 1.0, "ensembling": TemporalEnsembling(start=1)}
    extras |= {"weight_averaging": {"kind": "ema"}}
    for settings in ({}, extras):
        few, many = (reads(recipe, n, **settings) for n in (2, 5))
        assert few == many
        assert few  # the sums of the epoch are read at its end, and seen here


def test_an_attack_by_itself_looks_at_its_images_once():
    data = Shapes(n_train=4, n_val=2, n_test=2, classes=3, size=16)()
    net = models.build(TINY.model, data.train.images, 3, 0).eval()
    x, y = data.train.images / 255, data.train.labels
    PGD()(net, x, y)  # the norm of gray images is computed once, on the host
    for steps in (1, 6):
        with Reading() as mode:
            PGD(steps=steps)(net, x, y)
        assert sum(mode.seen.values()) == 0  # but for one tolist(), which waits once and is no operation
