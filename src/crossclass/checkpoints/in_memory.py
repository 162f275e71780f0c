"""A network and images in memory as a `LoadedCheckpoint`, which is measured as one of a file is."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossclass import models
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.load import Identity, LoadedCheckpoint, constants
from crossclass.core.classes import whole_labels
from crossclass.core.errors import UserError, first_line
from crossclass.data import Split, Splits, as_float
from crossclass.data.base import checksum
from crossclass.models.model_state import evaluating

CHANNELS = (1, 3)
"""What images of other libraries have; of an array [n, h, w, c] the last side is one of these."""


def from_memory(
    model: nn.Module,
    images: Any,
    labels: Any,
    class_names: Sequence[str] | None = None,
    normalise: models.Constants | None = None,
    head: str | None = None,
    name: str = "",
) -> LoadedCheckpoint:
    """The network with its images, on the device of the network, whose modes and weights stay as they are.

    Args:
        model: A `Classifier`, or any module that takes images [n, c, h, w] and ends in a linear layer.
        images: See `bytes_of`.
        labels: Whole numbers [n] in 0, ..., K-1.
        class_names: One for each class; unset: the numbers.
        normalise: What is done to images in [0, 1] before the module gets them: a name such as `cifar10`, or
            mean and standard deviation per channel. Unset: nothing.
        head: The name of the linear layer in the module; unset: the one that gives its logits.
        name: What the network is called; unset: its class.

    Raises:
        UserError: The images, the labels or the network are not as they must be.
    """
    pixels, note = bytes_of(images)
    classes = torch.as_tensor(labels)
    if len(pixels) == 0 or classes.shape[:1] != pixels.shape[:1]:
        raise UserError(
            f"there are {len(pixels)} images and labels of shape {list(classes.shape)}; give one each"
        )
    part = Split(pixels, whole_labels(classes, len(pixels)).long())  # bytes cannot index
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    part, title = part.to(device), name or type(model).__name__
    classifier = _classifier(model, part, normalise, head, title)
    known = [str(c) for c in class_names or range(len(classifier.head.weight))]
    if len(known) != len(classifier.head.weight):
        raise UserError(
            f"there are {len(known)} class_names, and {title} has {len(classifier.head.weight)} outputs"
        )
    nothing = Split(part.images[:0], part.labels[:0])
    digest = checksum(part.images.cpu().numpy(), part.labels.cpu().numpy())
    about = Identity(
        checkpoint=title,
        data="in memory",
        model=f"{type(model).__name__}, {len(known)} classes",
        normalise=constants(classifier),
        source=None,
        sha256=None,
        loaded=[*note, *getattr(classifier, "notes", ())],
    )
    return LoadedCheckpoint(
        classifier,
        Splits(nothing, nothing, part, tuple(known), digest),
        about,
        (Linf(),),
        normalised_by="user",
        other_data=True,
        obeyed=True,
    )


def in_python(text: str) -> str:
    """A sentence that names settings as they are typed on the command line, with the arguments of a call."""
    text = re.sub(r"normalise=\{mean: (\[.*?\]), std: (\[.*?\])\}", r"normalise=(\1, \2)", text)
    text = re.sub(r"normalise=([a-z]\w*)", r'normalise="\1"', text)
    return text.replace("model.normalise=", "normalise=").replace("model.head=", "head=")


def bytes_of(images: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Images as bytes [n, c, h, w], and a note if that rounds them.

    Args:
        images: A tensor or array: uint8 in 0..255 or float in [0, 1]; [n, c, h, w], or [n, h, w, c] with one
            or three channels.

    Raises:
        UserError: They have another shape, type or range.
    """
    x = torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images)
    if x.ndim != 4:
        raise UserError(f"images have shape {list(x.shape)}; give [n, c, h, w] or [n, h, w, c]")
    if x.shape[1] not in CHANNELS and x.shape[3] in CHANNELS:
        x = x.permute(0, 3, 1, 2)
    if x.dtype == torch.uint8:
        return x.contiguous(), ()
    if not x.is_floating_point():
        kind = str(x.dtype).removeprefix("torch.")
        raise UserError(f"images have type {kind}; give uint8 in 0..255 or float in [0, 1]")
    x = x.detach().float()
    low, high = (float(v) for v in x.aminmax()) if x.numel() else (0.0, 1.0)
    if not (low >= 0 and high <= 1):
        todo = "divide them by 255" if low >= 0 else "give them without normalisation, and normalise=..."
        raise UserError(f"images reach from {low:.3g} to {high:.3g}, and [0, 1] is needed: {todo}")
    whole = (255 * x).round()
    off = float((255 * x - whole).abs().max()) if x.numel() else 0.0
    told = f"images are measured with 8 bits, which changes these by up to {off / 255:.1g} of their range"
    return whole.byte().contiguous(), (told,) if off > 0.01 else ()


def _classifier(
    model: nn.Module,
    part: Split,
    normalise: models.Constants | None,
    head: str | None,
    title: str,
) -> models.Classifier:
    if isinstance(model, models.Classifier):
        if normalise is not None or head is not None:
            raise UserError(f"{title} normalises images itself and has a head; leave out normalise and head")
        return model
    mean, std = models.normalisation(normalise or "none", part.images)
    channels, size = part.images.shape[1], models.size_of(part.images)
    wrapped = models.Wrapped(
        model, _outputs(model, part, title), channels, mean, std, size, name=title, head=head
    )
    wrapped.to(part.images.device)
    models.look_for_head(wrapped, part.images)
    return wrapped


def _outputs(model: nn.Module, part: Split, title: str) -> int:
    """How many classes a network tells apart."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(model):
            out = model(as_float(part.images[:2]))
    except Exception as e:
        shape = list(part.images.shape[1:])
        raise UserError(f"{title} fails on images of shape {shape} ({first_line(e)})") from e
    for one in out if isinstance(out, tuple | list) else [getattr(out, "logits", out)]:
        if isinstance(one, Tensor) and one.ndim == 2:
            return one.shape[1]
    raise UserError(f"{title} does not return logits [n, classes]; give a network that does")
