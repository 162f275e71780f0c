"""What every recipe has: images to train on, a loss, and the recipes inside it.

Whoever asks something of a recipe at any depth (its teachers, its cost, its size) uses `children` and
`map_children` alone, so that a recipe around recipes needs no edit anywhere else.
"""

from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from crossclass.attacks import AnyAttack, Images, Network, require_images
from crossclass.attacks.losses import Labels, Logits
from crossclass.attacks.norms import AnyThreat
from crossclass.core.classes import class_labels
from crossclass.core.config import Settings
from crossclass.core.logits import logits_of

Loss = Float[Tensor, ""]
Noise = torch.Generator | None
R = TypeVar("R", bound="Recipe")


def logits_at(model: Network, x: Images) -> Logits:
    """The logits of a batch of images; raises UserError for what is neither."""
    require_images(x)
    return logits_of(model(x), len(x))


class Recipe(Settings):
    """Base of the recipes. A field that holds a recipe makes it a child; a field `attack` crafts images."""

    kind: str
    couples_batch: ClassVar[bool] = False
    """Whether an image's gradient depends on the other images of its batch (beside batch norm)."""

    def craft(self, model: Network, x: Images, y: Labels, generator: Noise = None) -> Images:
        """Images to train on, float32 in [0, 1]; the model is left as it was.

        They come from the recipe's own attack, else from the first recipe inside; else they are `x` itself.
        Raises UserError for what are no images, and for labels that do not fit them.
        """
        require_images(x)
        if (attack := getattr(self, "attack", None)) is not None:
            x_adv: Images = attack.search(model, x, class_labels(y, len(x)), generator).x_adv
            return x_adv  # not a call, which warns of settings: `train` has done so
        inner = next(iter(self.children()), None)
        return x if inner is None else inner.craft(model, x, y, generator)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """The mean loss over a batch, and the logits on the images that training accuracy counts."""
        raise NotImplementedError(f"{type(self).__name__} must define loss")

    @property
    def crafting_attack(self) -> AnyAttack | None:
        """The attack behind `craft`, its own or the first one inside; None where images stay clean."""
        return next((a for r in self.walk() if (a := getattr(r, "attack", None)) is not None), None)

    @property
    def threat(self) -> AnyThreat | None:
        """The ball that is trained in; None without an attack."""
        attack = self.crafting_attack
        return None if attack is None else attack.threat

    def children(self) -> tuple["Recipe", ...]:
        """The recipes directly inside this one."""
        return tuple(value for _, value in self if isinstance(value, Recipe))

    def map_children(self: R, f: Callable[["Recipe"], "Recipe"]) -> R:
        """A copy with every child replaced by `f(child)`."""
        inner = {name: value for name, value in self if isinstance(value, Recipe)}
        return self.replace(**{name: f(child) for name, child in inner.items()}) if inner else self

    def map_attacks(self: R, f: Callable[[AnyAttack], AnyAttack]) -> R:
        """A copy with every attack `a`, at any depth, replaced by `f(a)`."""
        copy = self.map_children(lambda child: child.map_attacks(f))
        attack = getattr(copy, "attack", None)
        return copy if attack is None else copy.replace(attack=f(attack))

    def walk(self) -> Iterator["Recipe"]:
        """This recipe and all inside it, outermost first."""
        yield self
        for child in self.children():
            yield from child.walk()

    def at_epoch(self, epoch: int) -> "Recipe":
        """The recipe as it is in an epoch, counted from 1; a recipe with a warm-up overrides it."""
        return self.map_children(lambda child: child.at_epoch(epoch))
