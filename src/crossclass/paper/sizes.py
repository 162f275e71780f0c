"""The same run in three sizes: `paper` as it is, `mini` for hours on a laptop, `smoke` for seconds in tests.

The recipe and its labels, the ball, the kind of network and the data set stay. What costs time is cut:
images, width, steps of the attack, epochs. Schedules keep their phases: before the first drop of the learning
rate, between the drops, after the last.
"""

from collections.abc import Sequence

import numpy as np

from crossclass.attacks import FGSM, PGD, AnyAttack
from crossclass.core.config import replace_everywhere
from crossclass.data import Shapes
from crossclass.data.augment import Augment
from crossclass.models import AnyModel, PreActResNet, ViT
from crossclass.models.model_state import Precision
from crossclass.paper.entry import Size
from crossclass.paper.runs.mini import THIN
from crossclass.training.labels import TemporalEnsembling
from crossclass.training.recipes import Recipe
from crossclass.training.run import Run, Validation


def shrink(run: Run, size: Size) -> Run:
    """A run of the paper in one of the sizes."""
    return {"paper": lambda r: r, "mini": _mini, "smoke": _smoke}[size](run)


def with_crafting_precision(run: Run, precision: Precision) -> Run:
    """The run with the attacks of its training and its checks in a precision; the final attack stays.

    At the paper's size a GPU takes a third of the time in bf16; in fp32 the check alone is longer than an
    epoch. Accuracies are computed in fp32 either way.
    """
    attack = replace_everywhere(run.validation_attack(), precision=precision)
    recipe = replace_everywhere(run.recipe, precision=precision)
    return run.replace(recipe=recipe, validation=run.validation.replace(attack=attack))


# Robust overfitting in all its phases within minutes, as far as this size lets it: on 1,000 images, shifted
# by at most a pixel and flipped, at a large learning rate, robust accuracy reaches a plateau, jumps at the
# first drop and then falls while the images are memorised. The plateau must be short: from epoch 20 on (or
# without shifts and flips from the start) memorising takes over before the drop. Chosen among about ten
# settings on seed 0.
EPOCHS, DROPS = 60, (15, 45)


def _mini(run: Run) -> Run:
    if run.data.mini is None:  # small as it is
        return run.replace(checkpoint_every=run.epochs // 4)
    transformer = isinstance(run.model, ViT)
    precision = "fp32" if transformer else "bf16"  # as trained; bf16 would take half the time by now
    attack = PGD(threat=run.threat, steps=10, rel_step=run.threat.short_step, precision=precision)
    return run.replace(
        data=run.data.replace(**run.data.mini),
        model=_thin(run.model),
        recipe=_shorter_attacks(run.recipe, steps=7, precision=precision),
        augment=Augment(crop=1),
        epochs=EPOCHS,
        lr_milestones=DROPS,
        batch=64,
        lr=0.1 if transformer else 0.2,
        validation=Validation(balanced=False, every=5 if transformer else 3, n=500, attack=attack),
        checkpoint_every=EPOCHS // 4,
        ensembling=_scaled_ensembling(run, DROPS, EPOCHS),
    )


def _smoke(run: Run) -> Run:
    n = 20 if isinstance(run.data, Shapes) else 16  # a run of its own, also here
    return run.replace(
        data=Shapes(n_train=n, n_val=12, n_test=24, classes=4, size=16),
        model=ViT(patch=8, width=8, depth=1, heads=2, normalise="data")
        if isinstance(run.model, ViT)
        else PreActResNet(width=4, blocks=(1,), stem_stride=2, normalise="data"),
        recipe=_shorter_attacks(run.recipe, steps=1, precision="fp32"),
        augment=None,
        epochs=4,
        lr_milestones=(2,),
        batch=8,
        validation=Validation(
            every=1, attack=PGD(threat=run.threat, steps=1), final=PGD(threat=run.threat, steps=2)
        ),
        checkpoint_every=1,
        ensembling=_scaled_ensembling(run, (2,), 4),
    )


def _scaled_ensembling(run: Run, drops: Sequence[int], epochs: int) -> TemporalEnsembling | None:
    """Temporal ensembling that starts, and has its full weight, at the same shares of the phases.

    Phases end at the drops of the learning rate and at the last epoch: of drops at 100 and 150 in 200 epochs,
    epochs 90 and 150 are nine tenths of the first phase and the end of the second.
    """
    if run.ensembling is None:
        return None
    start, end = run.ensembling.start, run.ensembling.start + run.ensembling.ramp
    phases, shorter = [0, *run.lr_milestones[: len(drops)], run.epochs], [0, *drops, epochs]
    start, end = (round(float(np.interp(epoch, phases, shorter))) for epoch in (start, end))
    return run.ensembling.replace(start=max(1, start), ramp=end - max(1, start))


def _thin(model: AnyModel) -> AnyModel:
    if isinstance(model, ViT):
        return ViT(patch=4, width=64, depth=3, heads=4, normalise=model.normalise)
    large = model.normalise == "tinyimagenet"  # the stem cuts the larger images to the same grid
    thin = THIN.replace(stem=8, stem_stride=4) if large else THIN
    return thin.replace(normalise=model.normalise)


def _shorter_attacks(recipe: Recipe, steps: int, precision: str) -> Recipe:
    """The recipe with fewer attack steps, crafting in eval mode, at any depth."""

    def shorter(attack: AnyAttack) -> AnyAttack:
        if isinstance(attack, PGD):
            return attack.replace(steps=min(steps, attack.steps), bn="eval", precision=precision)
        return attack.replace(bn="eval", precision=precision) if isinstance(attack, FGSM) else attack

    return recipe.map_attacks(shorter)
