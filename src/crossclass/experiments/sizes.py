"""The same run in three sizes: `paper` as it is, `mini` for hours on a laptop, `smoke` for seconds in tests.

What a run is about stays: its recipe and its labels, its ball, the kind of network, the data set. What makes
it dear is cut: images, width, steps of the attack, epochs. Schedules keep their shape, so that a share
of the schedule means the same in every size.
"""

from typing import Any

from crossclass.attacks import FGSM, PGD
from crossclass.augment import Augment
from crossclass.data import AnyData, Shapes
from crossclass.experiments.entry import Size
from crossclass.experiments.mini import THIN
from crossclass.models import AnyModel, PreActResNet, ViT
from crossclass.recipes import AnyRecipe, Check, Distilled, Run, TemporalEnsembling


def shrink(run: Run, size: Size) -> Run:
    """A run of the paper in a size."""
    return {"paper": lambda r: r, "mini": _mini, "smoke": _smoke}[size](run)


def _mini(run: Run) -> Run:
    if isinstance(run.data, Shapes):
        return run.but(keep_every=run.epochs // 4)
    token = isinstance(run.model, ViT)
    epochs = 60
    attack = PGD(threat=run.threat, steps=10, step=_step(run), precision="fp32" if token else "bf16")
    return run.but(
        data=_subset(run.data),
        model=_thin(run.model),
        recipe=_lighter(run.recipe, steps=7, precision="fp32" if token else "bf16"),
        augment=None if run.augment is None else Augment(crop=1),
        epochs=epochs,
        drops=tuple(round(d / run.epochs * epochs) for d in run.drops),
        batch=64,
        check=Check(every=3, n=500, attack=attack),
        keep_every=epochs // 4,
        ensembling=_sooner(run, epochs),
    )


def _smoke(run: Run) -> Run:
    n = 20 if isinstance(run.data, Shapes) else 16  # a run of its own, also here
    return run.but(
        data=Shapes(n_train=n, n_val=12, n_test=24, classes=4, size=16),
        model=ViT(patch=8, width=8, depth=1, heads=2, normalise="data")
        if isinstance(run.model, ViT)
        else PreActResNet(width=4, blocks=(1,), stem_stride=2, normalise="data"),
        recipe=_lighter(run.recipe, steps=1, precision="fp32"),
        augment=None,
        epochs=4,
        drops=(2,),
        batch=8,
        check=Check(every=1, attack=PGD(threat=run.threat, steps=1), final=PGD(threat=run.threat, steps=2)),
        keep_every=1,
        ensembling=_sooner(run, 4),
    )


def _sooner(run: Run, epochs: int) -> TemporalEnsembling | None:
    """Temporal ensembling from the same share of the schedule on."""
    if run.ensembling is None:
        return None
    start, ramp = (round(v / run.epochs * epochs) for v in (run.ensembling.start, run.ensembling.ramp))
    return run.ensembling.but(start=max(1, start), ramp=ramp)


def _step(run: Run) -> float:
    return 0.2 if run.threat.kind == "l2" else 0.25


def _subset(data: AnyData) -> AnyData:
    counts: dict[str, dict[str, Any]] = {
        "cifar10": {"n_train": 2000, "n_val": 1000, "n_test": 1000},
        "cifar100": {"n_train": 3000, "n_val": 1000, "n_test": 2000},
        "tiny_imagenet": {"n_train": 2000, "n_val": 1000, "n_test": 1000, "balanced": True},
    }
    return data.but(**counts[data.kind])


def _thin(model: AnyModel) -> AnyModel:
    if isinstance(model, ViT):
        return ViT(patch=4, width=64, depth=3, heads=4, normalise=model.normalise)
    large = model.normalise == "tinyimagenet"  # the stem cuts the larger images to the same grid
    thin = THIN.but(stem=8, stem_stride=4) if large else THIN
    return thin.but(normalise=model.normalise)


def _lighter(recipe: AnyRecipe, steps: int, precision: str) -> AnyRecipe:
    """The recipe with fewer steps, crafting in eval mode, in recipes inside it too."""
    changes: dict[str, Any] = {}
    attack = getattr(recipe, "attack", None)
    if isinstance(attack, PGD):
        changes["attack"] = attack.but(steps=min(steps, attack.steps), bn="eval", precision=precision)
    elif isinstance(attack, FGSM):
        changes["attack"] = attack.but(bn="eval", precision=precision)
    if isinstance(recipe, Distilled):
        changes["inner"] = _lighter(recipe.inner, steps, precision)
    return recipe.but(**changes)
