"""Further measurements that single figures need of a run, made once and kept with its evidence.

    clean      CAS and C on clean images at quarters of the schedule, best and last (Fig. 9)
    saliency   how wide the maps spread at best and at last, and their grid by sample id (Fig. 3c, 11)
    parts      on Shapes: how much of the maps' mass lies on planted parts, best against last

All are computed in float32 on the test part, with the run's final attack.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossclass import models
from crossclass.analysis import compare, evaluate, intervals, saliency
from crossclass.analysis.compare import SaliencyMaps
from crossclass.analysis.evaluate import EvaluationPass
from crossclass.analysis.measure import Measure, evaluate_checkpoint
from crossclass.checkpoints.card import Card
from crossclass.checkpoints.load import load_model
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.device import to_device
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.data import Shapes, Splits
from crossclass.training.run import Run

QUARTERS = (0.25, 0.5, 0.75, 1.0)
GRID = 24
"""Samples in the grid, as in Fig. 11."""

DrawMaps = Callable[[SaliencyMaps, Path], object]
"""Called with the maps of the grid and the path of its picture."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that is trained, with its images."""

    run: Run
    folder: RunFolder
    splits: Splits
    runtime: Runtime
    evidence: Path
    """The folder of its evidence, for what has a picture."""
    draw_maps: DrawMaps

    @property
    def best(self) -> str:
        """The name of the best checkpoint: by validation images, else by test images."""
        return "best.val" if self.folder.checkpoint("best.val").exists() else "best.test"

    def load(self, name: str) -> tuple[models.Classifier, Card]:
        """A checkpoint and its card. Raises UserError if the file was deleted."""
        path = self.folder.checkpoint(name)
        if not path.exists():
            raise UserError(
                f"{path} is gone, and a figure needs it; delete {path.parent} to train the run again"
            )
        model, card = load_model(path)
        return to_device(model, self.runtime.torch_device, self.runtime.memory_format), card

    def best_and_last(self) -> list[tuple[str, models.Classifier, EvaluationPass]]:
        """Name, model and evaluation of the two checkpoints."""
        settings = Measure(seed=self.run.seed, batch=self.run.validation.batch, saliency=GRID)
        attack, out = self.run.final_attack(), []
        for name in (self.best, "last"):
            model, _ = self.load(name)
            passed = evaluate_checkpoint(model, self.splits, attack, settings, self.runtime)
            out.append((name, model, passed))
        return out


def clean(of: FinishedRun) -> Any:
    """CAS, C and accuracy on clean images, by stage."""
    names = {f"{100 * q:g} %": f"epoch_{round(q * of.run.epochs):03d}" for q in QUARTERS}
    names |= {"best": of.best, "last": "last"}
    if not of.folder.checkpoint(names["100 %"]).exists():
        names["100 %"] = "last"
    out = {}
    for stage, name in names.items():
        model, card = of.load(name)
        passed = evaluate.evaluate(model, of.splits.test, None, of.run.seed, batch=of.run.validation.batch)
        numbers = {"clean": passed.accuracy("clean"), "cas": passed.cas, "C": evaluate.rounded(passed.C)}
        out[stage] = {"epoch": card.epoch, **numbers}
    return out


def maps(of: FinishedRun) -> Any:
    """Grad-CAM where best is right and last is wrong: how wide the maps spread, and a picture of some."""
    best, last = of.best_and_last()
    between = compare.saliency_between(
        best, last, of.splits.test, of.splits.class_names, GRID, "adversarial images"
    )
    if between is None:
        return {"n": 0, "reason": "fewer than two test images are right at best and wrong at last"}
    numbers, drawn = between
    of.draw_maps(drawn, of.evidence / "saliency.png")
    return {"grid": "saliency.png", **numbers}


def parts(of: FinishedRun) -> Any:
    """The share of a map's mass on the exclusive and on the cross-class parts, best against last.

    A flat map has the share of the area. Raises UserError if the run was not trained on Shapes, the only data
    whose parts are known.
    """
    if not isinstance(of.run.data, Shapes):
        raise UserError(
            f"planted parts are known on shapes alone, and {of.folder.path} has {of.run.data.kind}"
        )
    pair = of.best_and_last()
    labels, drawn = of.splits.test.labels.cpu(), of.run.data.drawn("test")
    masks = {"exclusive": drawn.exclusive, "shared": drawn.shared}
    both = [_shares(model, passed, labels, masks) for _, model, passed in pair]
    best, last = (passed.robust for _, _, passed in pair)
    chosen = {"chosen": saliency.right_then_wrong(labels, best, last), "all": torch.arange(len(labels))}
    out: dict[str, Any] = {}
    for group, index in chosen.items():
        out[group] = {"n": len(index)}
        for name in masks:
            a, b = both[0][name][index], both[1][name][index]
            known = ~(a.isnan() | b.isnan())  # a class may have no shared part, a map no mass
            if int(known.sum()) >= 2:
                d = intervals.mean_difference(a[known], b[known])
                mean = {"best": float(a[known].mean()), "last": float(b[known].mean())}
                out[group][name] = {**mean, "difference": d.estimate, "interval": [d.low, d.high]}
    area = {name: float(m.double().mean()) for name, m in masks.items()}
    return {**out, "area": area}


def _shares(
    model: models.Classifier,
    passed: EvaluationPass,
    labels: Tensor,
    masks: dict[str, Bool[Tensor, "n s s"]],
) -> dict[str, Float[Tensor, " n"]]:
    """The share of each map's positive mass inside each mask; NaN where the map or the mask is empty."""
    images, device = passed.images, model.mean.device
    assert images is not None
    coarse = saliency.grad_cam(model, images.to(device), labels.to(device))
    large = saliency.resized(coarse, (images.shape[-2], images.shape[-1])).clamp(min=0).double()
    total = large.flatten(1).sum(1)
    out = {}
    for name, mask in masks.items():
        inside = (large * mask).flatten(1).sum(1) / total
        out[name] = torch.where((total > 0) & mask.flatten(1).any(1), inside, torch.nan)
    return out


EXTRAS: dict[str, Callable[[FinishedRun], Any]] = {"clean": clean, "saliency": maps, "parts": parts}
