"""The same weights in other networks, which differ in settings that no name or shape of a weight shows."""

from dataclasses import dataclass

import torch

from crossclass.models.base import Classifier, Model, Size, sides
from crossclass.models.reordered import Reordered


@dataclass(frozen=True)
class Variant:
    """A network that takes the weights of another one and computes something else."""

    settings: Model
    changed: str
    """The setting in which it differs, such as `shortcut_input`."""

    @property
    def name(self) -> str:
        """The setting and its value, such as `shortcut_input=raw`."""
        return f"{self.changed}={getattr(self.settings, self.changed)}"


def variants_of(settings: Model | None) -> tuple[Variant, ...]:
    """The networks that a file for these settings may be meant for as well, one setting changed in each."""
    if settings is None:
        return ()
    return tuple(
        Variant(settings.replace(**{name: value}), name)
        for name, values in settings.not_in_shapes().items()
        for value in values
        if value != getattr(settings, name)
    )


def with_weights_of(model: Classifier, settings: Model, channels: int, size: Size) -> Classifier:
    """The network of other settings with the weights of a model: the same tensors, in the same modes.

    Args:
        model: A built-in network, or one behind other orders of channels or sides.
        settings: Those of a variant of it.
        channels: Of the images.
        size: Height and width of the images.
    """
    if isinstance(model, Reordered):
        inner_size = sides(size)[::-1] if model.arrangement.transposed else size
        inner = with_weights_of(model.inner, settings, channels, inner_size)
        out: Classifier = Reordered(inner, model.arrangement)
        out.training = model.training
        return out
    with torch.device("meta"):
        out = settings(model.head.out_features, channels, (0.0,), (1.0,), size)
    # load_state_dict(assign=True) would set requires_grad of the shared parameters
    for (_, module), (_, theirs) in zip(out.named_modules(), model.named_modules(), strict=True):
        module._parameters.update(theirs._parameters)
        module._buffers.update(theirs._buffers)
        module.training = theirs.training
    return out
