"""Classes of images: labels in the shapes that people store them in, and what a network predicts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossclass.core.errors import UserError

Classes = Int[Tensor, " n"] | Int[Tensor, "n 1"]
"""The class of each image, as functions take it that call `class_labels`."""
NO_CLASS = -1
"""The prediction of an output that is no number: it is wrong whatever the label."""


def class_labels(y: Tensor, n: int | None = None) -> Tensor:
    """Labels as classes [n], from [n] or [n, 1] (as in MedMNIST and Keras); probabilities [n, k] as they are.

    Only shape and type are looked at, so that no device is waited for.

    Args:
        y: Labels of any integer type, or probabilities of a floating type.
        n: The number of images.

    Raises:
        UserError: They are neither, or not one for each image.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    integers = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    what = f"labels have type {str(y.dtype).removeprefix('torch.')} and shape {list(y.shape)}"
    if y.ndim == 2 and integers:
        raise UserError(f"{what}; give the class of each image, as one-hot labels do with .argmax(dim=1)")
    if y.ndim not in (1, 2) or (y.ndim == 1 and not integers) or (y.ndim == 2 and not y.is_floating_point()):
        raise UserError(f"{what}; give the class of each image: integers of shape [n]")
    if n is not None and len(y) != n:
        raise UserError(f"{what}, but there are {n} images; give one label for each image")
    return y


def predicted(logits: Float[Tensor, "n k"]) -> Int[Tensor, " n"]:
    """The class with the largest logit; `NO_CLASS` where that is NaN or infinite.

    torch's argmax takes NaN for the largest number, so that a network which returns nothing else would always
    say class 0.
    """
    return torch.where(logits.amax(dim=1).isfinite(), logits.argmax(dim=1), NO_CLASS)
