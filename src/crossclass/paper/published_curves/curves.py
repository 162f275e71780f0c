"""Published training curves as rows like those of a run, with their conditions."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossclass.core.errors import UserError, did_you_mean

FOLDER = Path(__file__).parent / "data"

LINF = {"kind": "linf", "eps": "8/255"}
L2 = {"kind": "l2", "eps": "128/255"}
BALLS = {"linf": "l_inf 8/255", "l2": "l_2 128/255"}  # as the norms print themselves, without importing torch
PGD = {"kind": "pgd", "steps": 10, "rel_step": 0.25, "bn": "train", "threat": LINF}
PREACT = {"kind": "preactresnet", "depth": 18, "blocks": None, "width": 64, "stem": 3, "stem_stride": 1}
AUGMENT = {"crop": 4, "padding": "reflect", "flip": True}


@dataclass(frozen=True)
class Anchor:
    """A published curve and its conditions, with the names of a run's settings."""

    file: str
    tested: str
    """The attack of its test accuracies."""
    data: str = "cifar10"
    model: Mapping[str, Any] = field(default_factory=lambda: PREACT)
    recipe: str = "at"
    attack: Mapping[str, Any] = field(default_factory=lambda: PGD)
    schedule: str = "steps"
    lr_milestones: tuple[int, ...] = (100, 150)
    """Epochs after which the learning rate falls to a tenth."""
    epochs: int = 200
    n: int = 10_000
    """Test images."""

    @property
    def test(self) -> str:
        """The attack and the ball of its test accuracies, as a run writes them: that of training."""
        return f"{self.tested}, {BALLS[self.attack['threat']['kind']]}"

    def settings(self) -> dict[str, Any]:
        """The settings of a run's config.yaml that correspond; `attack` is the one of training."""
        return {
            "data": {"kind": self.data, "n_train": None, "n_val": 0},
            "augment": AUGMENT,
            "batch": 128,
            "epochs": self.epochs,
            "schedule": self.schedule,
            "lr_milestones": list(self.lr_milestones),
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "recipe": {"kind": self.recipe},
            "model": self.model,
            "attack": self.attack,
        }


_L2 = {"kind": "pgd", "steps": 10, "bn": "train", "threat": L2}
_WIDE = {"kind": "wideresnet", "depth": 34, "widen": 10}
_FGSM_RS = {"kind": "fgsm", "rel_step": 0.875, "start": "uniform", "bn": "train", "threat": LINF}

ANCHORS: dict[str, Anchor] = {
    "rice2020": Anchor("rice2020-cifar10-linf-prn18", "PGD-10"),
    "rice2020-l2": Anchor("rice2020-cifar10-l2-prn18", "PGD-10", attack=_L2),
    "rice2020-cifar100": Anchor("rice2020-cifar100-linf-prn18", "PGD-10", "cifar100"),
    "rice2020-cifar100-l2": Anchor("rice2020-cifar100-l2-prn18", "PGD-10", "cifar100", attack=_L2),
    "rice2020-cosine": Anchor(
        "rice2020-cifar10-linf-prn18-cosine", "PGD-10", schedule="cosine", lr_milestones=()
    ),
    "rice2020-fgsmrs": Anchor("rice2020-cifar10-fgsmrs0875-prn18", "PGD-10", attack=_FGSM_RS),
    "awp": Anchor("awprepo-cifar10-linf-prn18-awp", "PGD-20", recipe="awp"),
    "awp-at": Anchor("awprepo-cifar10-linf-prn18-at", "PGD-20"),
    "awp-at-l2": Anchor("awprepo-cifar10-l2-prn18-at", "PGD-20", attack=_L2),
    "awp-at-cifar100": Anchor("awprepo-cifar100-linf-prn18-at", "PGD-20", "cifar100"),
    "awp-at-wideresnet": Anchor("awprepo-cifar10-linf-wrn3410-at", "PGD-20", model=_WIDE),
}
"""`awp-at*` are the plain adversarial training runs in AWP's repository: re-runs of Rice's recipe."""


def find_anchor(name: str) -> Anchor:
    """The anchor of a name; raises UserError with the nearest one."""
    if name not in ANCHORS:
        raise UserError(f"unknown anchor '{name}'{did_you_mean(name, ANCHORS)}")
    return ANCHORS[name]


def anchor(name: str) -> list[dict[str, Any]]:
    """The rows of a published curve, named as in metrics.csv, epochs from 1. Raises UserError."""
    with open(FOLDER / f"{find_anchor(name).file}.csv", encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return [{**row, "epoch": int(row["epoch"]) + 1} for row in rows]
