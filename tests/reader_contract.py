"""Five made images, and what every reader promises: sound arrays, or a refusal in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossclass.core.errors import UserError
from crossclass.data.base import ArraySplit

RGB = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


LABELS = np.array([2, 0, 1, 1, 0])


def refused(call: Callable[..., ArraySplit], *arguments: Any, says: tuple[str, ...]) -> str:
    """The message of the UserError that `call` must raise: one line that says all of `says`."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.isprintable()
    assert "\n" not in message
    assert len(message) < 1000
    for part in says:
        assert part in message, f"{part!r} is not in {message!r}"
    return message


def sound(raw: ArraySplit) -> ArraySplit:
    """What every reader promises about what it returns."""
    assert raw.images.dtype == np.uint8
    assert raw.images.ndim == 4
    assert raw.images.shape[3] in (1, 3)
    assert raw.images.flags.c_contiguous
    assert raw.labels.dtype == np.int64
    assert raw.labels.shape == raw.images.shape[:1]
    assert raw.labels.min() >= 0
    assert raw.labels.max() < len(raw.class_names)
    assert all(type(name) is str for name in raw.class_names)
    return raw


def npz(folder: Path, split: str = "train", **arrays: Any) -> Path:
    np.savez(folder / f"{split}.npz", **{"images": RGB, "labels": LABELS, **arrays})
    return folder / f"{split}.npz"
