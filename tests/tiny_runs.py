"""A run of seconds, killed where one likes, and what two of its folders have in common."""

import torch

from crossclass.attacks import FGSM, PGD
from crossclass.checkpoints.card import load_checkpoint
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.runtime import Runtime
from crossclass.data import Shapes
from crossclass.data.augment import Augment
from crossclass.models import PreActResNet
from crossclass.training.loop import iterate_epochs
from crossclass.training.recipes import AT, AWP, MART, GradAlign, KnowledgeDistillation, Standard, Trades
from crossclass.training.run import Run, Validation

CPU = Runtime(device="cpu")


TINY = Run(
    data=Shapes(n_train=26, n_val=12, n_test=14, classes=3, size=16),
    model=PreActResNet(width=4, stem_stride=2, blocks=(1, 1), normalise="data"),
    recipe=AT(attack=PGD(steps=2)),
    augment=Augment(crop=1),
    epochs=4,
    lr_milestones=(2, 3),
    batch=8,
    lr=0.05,
    validation=Validation(attack=PGD(steps=2), final=PGD(steps=3), batch=5),
    checkpoint_every=2,
)


RECIPES = {
    "standard": Standard(),
    "at": AT(attack=PGD(steps=2)),
    "trades": Trades(attack=PGD(steps=2, start="gauss", loss="kl")),
    "mart": MART(attack=PGD(steps=2, start="gauss")),
    "gradalign": GradAlign(attack=FGSM()),
    "kd": KnowledgeDistillation(inner=AT(attack=PGD(steps=2))),
    "awp": AWP(inner=AT(attack=PGD(steps=2))),
}
"""Every recipe, with few steps."""

UNTIMED = ("seconds", "check_seconds")


def ones(results: list[dict]) -> list[dict]:
    """The objects about one checkpoint each."""
    return [r for r in results if "comparison" not in r]


def weights(folder: RunFolder, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(folder.checkpoint(name))[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def untimed(rows):
    return [{k: v for k, v in row.items() if k not in UNTIMED} for row in rows]


class KilledError(Exception):
    pass


def killed_after(epoch: int, out, run=TINY, inside: bool = False) -> None:
    """Stop training after an epoch, or in the middle of the next."""
    current = 0

    def progress(what, done, total):
        if inside and what == "train" and current == epoch and done == 2:
            raise KilledError

    stream = iterate_epochs(run, out, "tiny", CPU, progress)
    try:
        for _, row in stream:
            current = row["epoch"]
            if current == epoch and not inside:
                break
    except KilledError:
        pass
    stream.close()
