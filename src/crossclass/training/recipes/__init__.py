"""A recipe answers two questions: on which inputs does a step train, and with which loss?

`craft(model, x, y, generator) -> x_adv` leaves the model as it was; `loss(model, x, x_adv, y, generator)
-> (loss, logits)` also returns the logits (of the adversarial images, if there are any), so that training
accuracy costs no extra forward pass: in train mode every forward updates batch-norm statistics.
"""

from typing import Annotated

from crossclass.core.plugins import Family
from crossclass.training.recipes.at import AT, Standard
from crossclass.training.recipes.awp import AWP
from crossclass.training.recipes.base import Loss, Noise, Recipe
from crossclass.training.recipes.distillation import (
    KnowledgeDistillation,
    Teacher,
    distillations,
    map_teachers,
    without_teachers,
)
from crossclass.training.recipes.gradalign import GradAlign
from crossclass.training.recipes.mart import MART
from crossclass.training.recipes.trades import Trades

AnyRecipe = Annotated[Recipe, Family(Standard, AT, Trades, MART, GradAlign, KnowledgeDistillation, AWP)]

AWP.model_rebuild(_types_namespace={"AnyRecipe": AnyRecipe})  # a recipe that holds a recipe

__all__ = [
    "AT",
    "AWP",
    "MART",
    "AnyRecipe",
    "GradAlign",
    "KnowledgeDistillation",
    "Loss",
    "Noise",
    "Recipe",
    "Standard",
    "Teacher",
    "Trades",
    "distillations",
    "map_teachers",
    "without_teachers",
]
