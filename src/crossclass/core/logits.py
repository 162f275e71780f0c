"""What a network returns for n images: logits [n, K] of two or more classes, alone or among other outputs."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from crossclass.core.errors import UserError


def logits_of(returned: Any, n: int, who: str = "the network") -> Float[Tensor, "n k"]:
    """The logits in what a network returns for n images; only types and shapes are looked at.

    Args:
        returned: A tensor [n, K] or [n, K, 1, 1], an object with `logits` as transformers return it, or a
            tuple, list or dictionary in which exactly one entry can be logits [n, K].
        n: The number of images.
        who: Names the network in errors.

    Raises:
        UserError: There are no logits [n, K] with K at least 2, or it is not clear which entry they are.
    """
    if isinstance(returned, Tensor):
        returned = without_positions(returned)
        if reason := _no_logits(returned, n):
            raise UserError(f"{who} returns {_described(returned)} for {n} images{reason}")
        return returned
    entries = returned.values() if isinstance(returned, Mapping) else returned
    named = returned.get("logits") if isinstance(returned, Mapping) else getattr(returned, "logits", None)
    if isinstance(named, Tensor):
        return logits_of(named, n, who)
    what = f"{who} returns a {type(returned).__name__}"
    if not isinstance(returned, tuple | list | Mapping):
        raise UserError(f"{what}; it must return logits [n, K], a floating-point tensor")
    tensors = [entry for entry in entries if isinstance(entry, Tensor)]  # among others [n, K, 1, 1] is a map
    possible = [t for t in tensors if not _no_logits(t, n)]
    if len(possible) == 1:
        return possible[0]
    shapes = ", ".join(map(_described, tensors)) or "no tensor"
    which = "none of which is" if not possible else f"of which {len(possible)} can be"
    raise UserError(
        f"{what} of {shapes} for {n} images, {which} logits [n, K]; return the logits alone, as "
        "lambda x: net(x)[0] does for a first entry"
    )


def without_positions(t: Tensor) -> Tensor:
    """[n, K, 1, 1], as networks of convolutions alone return their logits, as [n, K]; others as they are."""
    return t.flatten(1) if t.ndim > 2 and t.shape[2:].numel() == 1 else t


def _no_logits(t: Tensor, n: int) -> str | None:
    """Why a tensor cannot be the logits of n images, and what to do, as the end of a sentence."""
    if t.ndim == 1 or (t.ndim == 2 and t.shape[1] == 1):
        return (
            ", one number for each, and no logits [n, K] of two or more classes; a binary classifier's z is "
            "the logits [0, z]: torch.stack([0 * z, z], dim=1) of z [n]"
        )
    if t.ndim != 2 or t.shape[1] < 2:
        return f"; logits are [n, K], one number for each image and class{of_a_map(t)}"
    if len(t) != n:
        return "; it must return one row of logits for each image"
    if not t.is_floating_point():
        return "; logits are floating-point numbers, not the classes that are predicted"
    return None


def of_a_map(t: Tensor) -> str:
    """What to do with [n, K, h, w], as the end of a sentence; empty for other shapes."""
    return ": let it return their mean over the positions, z.mean((2, 3))" if t.ndim == 4 else ""


def _described(t: Tensor) -> str:
    kind = "" if t.is_floating_point() else f"{str(t.dtype).removeprefix('torch.')} "
    return f"{kind}{list(t.shape)}"


def require_tensor(value: object, what: str, to_do: str = "give torch.as_tensor(...)") -> None:
    """Raise UserError unless a value is a tensor; `what` it is, in the plural."""
    if not isinstance(value, torch.Tensor):
        raise UserError(f"{what} are a {type(value).__name__}, no tensor; {to_do}")
