"""A recipe answers two questions: on which inputs does a step train, and with which loss?

`craft(model, x, y, generator) -> x_adv` leaves the model as it was; `loss(model, x, x_adv, y, generator)
-> (loss, logits)` also returns the logits (of the adversarial images, if there are any), so that training
accuracy costs no extra forward pass: in train mode every forward updates batch-norm statistics.
"""

from crossclass.training.recipes.at import AT, Loss, Standard
from crossclass.training.recipes.awp import AWP
from crossclass.training.recipes.distillation import KnowledgeDistillation, Teacher
from crossclass.training.recipes.family import AnyRecipe, within_ball
from crossclass.training.recipes.surrogate import MART, GradAlign, Trades

__all__ = [
    "AT",
    "AWP",
    "MART",
    "AnyRecipe",
    "GradAlign",
    "KnowledgeDistillation",
    "Loss",
    "Standard",
    "Teacher",
    "Trades",
    "within_ball",
]
