"""Settings of a run that mean something else than they seem, in one sentence each, before the first epoch."""

from collections.abc import Iterator

import torch

from crossclass.attacks import AnyAttack
from crossclass.attacks.attack_warnings import attack_warnings
from crossclass.core.errors import UserError
from crossclass.data import Splits
from crossclass.data.image_warnings import image_warnings
from crossclass.models import HF
from crossclass.training.recipes import Recipe
from crossclass.training.run import Run


def run_warnings(run: Run, splits: Splits) -> list[str]:
    """What to say before a run is trained on these images; they are printed and kept in env.json.

    Raises UserError where nothing sensible can be meant.
    """
    classes = len(splits.class_names)
    if run.label_smoothing >= 1 - 1 / classes:
        raise UserError(
            f"label_smoothing={run.label_smoothing:g} gives the true class no more than each other of "
            f"{classes} classes; give less than {1 - 1 / classes:.3g}, such as 0.1"
        )
    return list(dict.fromkeys([*_attacks(run, splits), *_schedule(run), *_images(run, splits), *_model(run)]))


def _attacks(run: Run, splits: Splits) -> Iterator[str]:
    shape = splits.train.images.shape[1:]
    for path, attack in _crafting(run.recipe, "recipe."):
        yield from (
            f"training: {w}" for w in attack_warnings(attack, shape, evaluation=False, path=f"{path}attack.")
        )
    for name, attack in (("attack", run.validation_attack()), ("final", run.final_attack())):
        path = f"validation.{name}"
        told = attack_warnings(attack, shape, evaluation=True, path=f"{path}.")
        yield from (f"{path}: {w}" for w in told)
        if run.recipe.threat is not None and attack.threat != run.recipe.threat:
            yield (
                f"trained in {run.recipe.threat}, but {path} is in {attack.threat}; where that is "
                f"not meant, set {path}.threat too"
            )


def _crafting(recipe: Recipe, path: str) -> Iterator[tuple[str, AnyAttack]]:
    """The attacks that a recipe and those inside it train with, by the path of the recipe."""
    if (attack := getattr(recipe, "attack", None)) is not None:
        yield path, attack
    for name, inner in recipe:
        if isinstance(inner, Recipe):
            yield from _crafting(inner, f"{path}{name}.")


def _schedule(run: Run) -> Iterator[str]:
    epochs = run.epochs
    if run.validation.every > epochs:
        every = run.validation.every
        yield f"validation.every={every} is more than {epochs} epochs: only the first and last are validated"
    if run.checkpoint_every > epochs:
        yield f"checkpoint_every={run.checkpoint_every} is more than {epochs} epochs: no epoch is kept"
    for name in ("lr_warmup", "eps_warmup"):
        if (length := getattr(run, name)) > epochs:
            value = name.split("_")[0]
            yield f"{name}={length} is more than {epochs} epochs: {value} stays below its value"
    if run.lr * run.weight_decay >= 1:
        yield (
            f"lr={run.lr:g} times weight_decay={run.weight_decay:g} is 1 or more: each step turns the "
            "signs of the weights"
        )
    if run.attack_labels == "soft" and not run.label_smoothing:
        yield "attack_labels=soft changes nothing without label_smoothing"
    if run.mix is not None and (run.mix.prob == 0 or not run.mix.mixup + run.mix.cutmix):
        yield "mix mixes nothing: its prob, or both mixup and cutmix, are 0"
    if run.restore_last_good and not run.stop_on_alarms:
        yield "restore_last_good changes nothing without stop_on_alarms"


def _images(run: Run, splits: Splits) -> Iterator[str]:
    yield from image_warnings(splits, "test" if len(splits.test) else "train")
    n, most = len(splits.train), max(len(splits.val), len(splits.test))
    if run.batch > n:
        yield f"batch={run.batch} is more than the {n} training images: an epoch is one step"
    if run.validation.n is not None and run.validation.n > most:
        yield f"validation.n={run.validation.n} is more than there are: all {most} images are taken"
    seen = torch.bincount(splits.train.labels.cpu(), minlength=len(splits.class_names))
    if bool((seen == 0).any()):
        absent = [name for name, count in zip(splits.class_names, seen.tolist(), strict=True) if not count]
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        yield f"no training image is of {', '.join(absent[:3])}{more}"


def _model(run: Run) -> Iterator[str]:
    starts_trained = isinstance(run.model, HF) or any(
        getattr(run.model, n, 0) for n in ("pretrained", "weights")
    )
    if starts_trained and run.model.normalise == "data":
        yield (
            f"{run.model} starts from trained weights, which know images normalised by their author's "
            "constants; model.normalise=data takes those of these images (imagenet: the usual ones)"
        )
