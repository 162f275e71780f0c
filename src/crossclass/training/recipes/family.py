"""The family of recipes, and what depends on the epoch: warm-ups of eps and of weight perturbation."""

from typing import Annotated

from crossclass.attacks.norms import AnyThreat
from crossclass.core.family import Family
from crossclass.training.recipes.at import AT, Standard
from crossclass.training.recipes.awp import AWP
from crossclass.training.recipes.distillation import KnowledgeDistillation
from crossclass.training.recipes.surrogate import MART, GradAlign, Trades

AnyRecipe = Annotated[Standard | AT | Trades | MART | GradAlign | KnowledgeDistillation | AWP, Family()]

AWP.model_rebuild(_types_namespace={"AnyRecipe": AnyRecipe})  # a recipe that holds a recipe


def within_ball(recipe: AnyRecipe, threat: AnyThreat) -> AnyRecipe:
    """The recipe with its attack in another ball."""
    if isinstance(recipe, Standard):
        return recipe
    if isinstance(recipe, AWP | KnowledgeDistillation):
        return recipe.replace(inner=within_ball(recipe.inner, threat))
    return recipe.replace(attack=recipe.attack.replace(threat=threat))


def in_epoch(recipe: AnyRecipe, epoch: int, eps_warmup: int) -> AnyRecipe:
    """The recipe as it is in an epoch: eps rises linearly to its value in epoch `eps_warmup`."""
    if isinstance(recipe, AWP) and epoch <= recipe.warmup:
        recipe = recipe.inner
    threat = recipe.threat
    if threat is None or epoch >= eps_warmup:
        return recipe
    return within_ball(recipe, threat.replace(eps=threat.eps * epoch / eps_warmup))
