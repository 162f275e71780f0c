"""What single figures need of a run beside its full evaluation; measured once, kept with its evidence.

    clean      CAS and C on clean images at quarters of the schedule, best and last (Fig. 9)
    saliency   how far the maps spread at best and at last, and the grid by sample id (Fig. 3c, 11)
    parts      on Shapes: how much of the maps' mass lies on planted parts, best against last

Everything is judged in float32, on the test part, with the run's own attack.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossclass import models
from crossclass.analysis import compare, evaluate, intervals, saliency
from crossclass.analysis.measure import Measure, evaluate_checkpoint
from crossclass.checkpoints.load import load_model
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.data import Shapes, Splits
from crossclass.report import plots
from crossclass.training.run import Run
from crossclass.training.validation import classifier

QUARTERS = (0.25, 0.5, 0.75, 1.0)
GRID = 24
"""Samples in the grid, as in Fig. 11."""

Extra = Callable[[Run, RunFolder, Splits, Runtime, Path], Any]


def clean(run: Run, folder: RunFolder, splits: Splits, runtime: Runtime, into: Path) -> Any:
    """CAS, C and accuracy on clean images, by stage."""
    names = {f"{100 * q:g} %": f"epoch_{round(q * run.epochs):03d}" for q in QUARTERS}
    names |= {"best": _best(folder), "last": "last"}
    out = {}
    for stage, name in names.items():
        path = folder.checkpoint(
            "last" if not folder.checkpoint(name).exists() and stage == "100 %" else name
        )
        model, card = _loaded(path, runtime)
        seen = evaluate.evaluate(model, splits.test, None, run.seed, batch=run.validation.batch)
        numbers = {"clean": seen.accuracy("clean"), "cas": seen.cas, "C": evaluate.rounded(seen.C)}
        out[stage] = {"epoch": card["epoch"], **numbers}
    return out


def maps(run: Run, folder: RunFolder, splits: Splits, runtime: Runtime, into: Path) -> Any:
    """Where best is right and last is wrong: the spread of the maps, and the grid beside the numbers."""
    pair, seen = _pair(run, folder, splits, runtime)
    named = [(name, model, one) for (name, model), one in zip(pair, seen, strict=True)]
    found = compare.saliency_between(
        named[0], named[1], splits.test, splits.class_names, GRID, "adversarial images"
    )
    if found is None:
        return {"n": 0, "why": "fewer than two test images are right at best and wrong at last"}
    numbers, drawn = found
    images, path = drawn.images.movedim(1, -1).numpy(), into / "saliency.png"
    maps = {name: m.numpy() for name, m in drawn.maps.items()}
    plots.save(plots.saliency_grid(images, maps, drawn.captions), path)
    return {"grid": path.name, **numbers}


def parts(run: Run, folder: RunFolder, splits: Splits, runtime: Runtime, into: Path) -> Any:
    """The share of a map's mass on the exclusive and on the cross-class parts, best against last.

    A flat map has the share of the area; `lift` is the share over that. Raises UserError if the run was
    not trained on Shapes, the only data whose parts are known.
    """
    if not isinstance(run.data, Shapes):
        raise UserError(f"planted parts are known on shapes alone, and {folder.path} has {run.data.kind}")
    pair, seen = _pair(run, folder, splits, runtime)
    labels = splits.test.labels.cpu()
    drawn = run.data.drawn("test")
    masks = {"exclusive": drawn.exclusive, "shared": drawn.shared}
    both = [_mass(model, one, labels, masks) for (_, model), one in zip(pair, seen, strict=True)]
    best, last = (one.robust for one in seen)
    chosen = {"chosen": saliency.compared(labels, best, last), "all": torch.arange(len(labels))}
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


def _mass(
    model: models.Classifier,
    seen: evaluate.EvaluationPass,
    labels: Tensor,
    masks: dict[str, Bool[Tensor, "n s s"]],
) -> dict[str, Float[Tensor, " n"]]:
    """The share of each map's positive mass inside each mask; NaN where there is none of one of them."""
    images = seen.images
    assert images is not None
    place = model.mean.device
    found = saliency.grad_cam(model, images.to(place), labels.to(place))
    large = saliency.resized(found, images.shape[-1]).clamp(min=0).double()
    total = large.flatten(1).sum(1)
    out = {}
    for name, mask in masks.items():
        inside = (large * mask).flatten(1).sum(1) / total
        out[name] = torch.where((total > 0) & mask.flatten(1).any(1), inside, torch.nan)
    return out


def _pair(
    run: Run, folder: RunFolder, splits: Splits, runtime: Runtime
) -> tuple[list[tuple[str, models.Classifier]], list[evaluate.EvaluationPass]]:
    settings = Measure(seed=run.seed, batch=run.validation.batch, saliency=GRID)
    pair = [(name, _loaded(folder.checkpoint(name), runtime)[0]) for name in (_best(folder), "last")]
    return pair, [
        evaluate_checkpoint(model, splits, run.final_attack(), settings, runtime) for _, model in pair
    ]


def _best(folder: RunFolder) -> str:
    return "best.val" if folder.checkpoint("best.val").exists() else "best.test"


def _loaded(path: Path, runtime: Runtime) -> tuple[models.Classifier, dict[str, Any]]:
    if not path.exists():
        raise UserError(f"{path} is gone, and a figure needs it; delete {path.parent} to train the run again")
    model, card = load_model(path)
    return classifier(runtime.to_device(model)), card


EXTRAS: dict[str, Extra] = {"clean": clean, "saliency": maps, "parts": parts}
