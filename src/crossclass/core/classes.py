"""Classes of images: labels in the shapes that people store them in, and what a network predicts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossclass.core.errors import UserError
from crossclass.core.logits import logits_of, require_tensor

Classes = Int[Tensor, " n"] | Int[Tensor, "n 1"]
"""The class of each image, as functions take it that call `class_labels`."""
NO_CLASS = -1
"""The prediction of an output that is no number: it is wrong whatever the label."""
Reach = tuple[int, int] | None
"""The smallest and the largest label; None where there is none, or where nobody needs to know."""
_KNOWN: ContextVar[tuple[Reach] | None] = ContextVar("what is known of the labels", default=None)


def class_labels(y: Tensor, n: int | None = None) -> Tensor:
    """Labels as classes [n], from [n] or [n, 1] (as in MedMNIST and Keras); probabilities [n, k] as they are.

    Only shape and type are looked at, so that no device is waited for.

    Args:
        y: Labels of any integer type, or probabilities of a floating type.
        n: The number of images.

    Raises:
        UserError: They are neither, or not one for each image.
    """
    require_tensor(y, "labels")
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
    return y.long() if integers and not y.dtype.is_signed else y  # bytes as an index are a mask


def whole_labels(y: Tensor, n: int | None = None) -> Int[Tensor, " n"]:
    """Labels as classes [n], as of `class_labels`; raises UserError for probabilities too."""
    y = class_labels(y, n)
    if y.ndim != 1:
        raise UserError(
            f"labels have shape {list(y.shape)}; give the class of each image, as one-hot labels "
            "and logits do with .argmax(dim=1)"
        )
    return y


@contextmanager
def known_labels(reach: Reach = None) -> Iterator[None]:
    """Inside, labels are not looked at, which would wait for the device.

    They are known to reach from one class to another, or else (None) to be classes of the network.
    """
    token = _KNOWN.set((reach,))
    try:
        yield
    finally:
        _KNOWN.reset(token)


def require_labels(y: Tensor, k: int, what: str = "the network", made_for: str | None = None) -> None:
    """Raise UserError unless labels are classes from 0 to k - 1, or probabilities of k classes.

    Neither torch nor CUDA does: -100 is left out of the mean, and a label above k - 1 ends a CUDA process.
    `what` has k of them, as `made_for` says.
    """
    made_for = made_for or f"{k} outputs"
    if y.ndim == 2 and y.shape[1] != k:
        raise UserError(f"labels are probabilities of {y.shape[1]} classes, but {what} has {made_for}")
    if y.ndim == 1 and (reach := _reach(y)) is not None:
        _require_reach(reach, k, what, made_for)


def label_check(y: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that returns the logits it gets, and raises UserError if labels lie beyond their classes.

    The device is waited for here, once, before the first forward; the function looks at shapes alone.
    """
    reach = _reach(y) if y.ndim == 1 else None
    if reach is not None and reach[0] < 0:
        raise UserError(f"a label is {reach[0]}; labels count from 0 to the number of classes less 1")

    def check(logits: Tensor) -> Tensor:
        if y.ndim == 2:
            require_labels(y, logits.shape[1])
        elif reach is not None:
            _require_reach(reach, logits.shape[1], "the network", f"{logits.shape[1]} outputs")
        return logits

    return check


def _reach(y: Int[Tensor, " n"]) -> Reach:
    known = _KNOWN.get()
    return (
        known[0]
        if known is not None
        else read_with_reach(torch.ones((), dtype=torch.bool, device=y.device), y)[1]
    )


def read_with_reach(flag: Bool[Tensor, ""], y: Tensor) -> tuple[bool, Reach]:
    """A truth value and the reach of labels on its device, which is waited for once."""
    if y.ndim != 1 or not len(y):
        return bool(flag), None
    value, low, high = torch.stack((flag.to(y.device).long(), *y.long().aminmax())).tolist()
    return bool(value), (low, high)


def _require_reach(reach: tuple[int, int], k: int, what: str, made_for: str) -> None:
    low, high = reach
    if low < 0 or high >= k:
        raise UserError(
            f"labels reach from {low} to {high}, but {what} has {made_for}; labels count from 0 to {k - 1}"
        )


def require_predictions(predicted: Tensor) -> Int[Tensor, " n"]:
    """Predicted classes [n]; raises UserError for logits."""
    require_tensor(predicted, "predictions")
    if predicted.ndim != 1 or predicted.is_floating_point():
        raise UserError(
            f"predictions have type {str(predicted.dtype).removeprefix('torch.')} and shape "
            f"{list(predicted.shape)}; give the predicted class of each image: logits.argmax(dim=1)"
        )
    return predicted


def predicted(logits: Float[Tensor, "n k"]) -> Int[Tensor, " n"]:
    """The class with the largest logit; `NO_CLASS` where that is NaN or infinite.

    torch's argmax takes NaN for the largest number, so that a network which returns nothing else would always
    say class 0. Raises UserError for other shapes: a single output of a binary classifier would always be
    class 0 too.
    """
    logits = logits_of(logits, len(logits))
    return torch.where(logits.amax(dim=1).isfinite(), logits.argmax(dim=1), NO_CLASS)
