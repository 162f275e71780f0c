"""A recipe answers two questions: on which inputs, and with which loss?

`craft(model, x, y, generator) -> x_adv` puts the model back as it was; `loss(model, x, x_adv, y, generator)
-> (loss, logits)` returns its logits too (of the adversarial images, if there are any), so that training
accuracy costs no further forward: in train mode every forward moves batch-norm statistics. There is one
training loop, in `train` and `epoch`. `Run` is everything that determines a trained model.
"""

from crossclass.recipes.averaging import EMA, SWA, AnyAverage, refresh
from crossclass.recipes.awp import AWP
from crossclass.recipes.basic import AT, Loss, Standard
from crossclass.recipes.distilled import Distilled, Teacher
from crossclass.recipes.family import AnyRecipe, within_ball
from crossclass.recipes.labels import Mix, TemporalEnsembling, smoothed
from crossclass.recipes.run import Check, Run, reference_attack
from crossclass.recipes.surrogate import MART, GradAlign, Trades

__all__ = [
    "AT",
    "AWP",
    "EMA",
    "MART",
    "SWA",
    "AnyAverage",
    "AnyRecipe",
    "Check",
    "Distilled",
    "GradAlign",
    "Loss",
    "Mix",
    "Run",
    "Standard",
    "Teacher",
    "TemporalEnsembling",
    "Trades",
    "reference_attack",
    "refresh",
    "smoothed",
    "within_ball",
]
