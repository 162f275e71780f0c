"""A network that was trained on another order of channels, or on transposed images."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossclass.models.base import Classifier
from crossclass.models.wrapper import Wrapped


class Reordered(Classifier):
    """`inner` gets the images with their channels reversed, or height and width exchanged, or both.

    Distances do not depend on the order of pixels, so an attack in l_inf or l_2 is the same attack.
    """

    inner: Classifier

    def __init__(
        self, inner: Classifier, *, reversed_channels: bool = False, transposed: bool = False
    ) -> None:
        nn.Module.__init__(self)  # mean and std are those of the inner network
        self.inner, self.reversed_channels, self.transposed = inner, reversed_channels, transposed

    @property
    def head_name(self) -> str:
        """The layer that the head is of."""
        return getattr(self.inner, "head_name", "head")

    @property
    def head_warnings(self) -> tuple[str, ...]:
        """What a reader of C and CAS must know of the head."""
        return getattr(self.inner, "head_warnings", ())

    @property
    def mean(self) -> Tensor:
        """Of the inner network."""
        return self.inner.mean

    @mean.setter
    def mean(self, value: Tensor) -> None:
        """Of the inner network."""
        self.inner.mean = value

    @property
    def std(self) -> Tensor:
        """Of the inner network."""
        return self.inner.std

    @std.setter
    def std(self, value: Tensor) -> None:
        """Of the inner network."""
        self.inner.std = value

    @property
    def head(self) -> nn.Linear:  # type: ignore[override]
        """The head of the inner network."""
        return self.inner.head

    def arranged(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c u v"]:
        """The images in the order that the inner network wants."""
        x = x.flip(1) if self.reversed_channels else x
        return x.transpose(2, 3).contiguous() if self.transposed else x

    def normalise(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c u v"]:
        """What the inner network computes with."""
        return self.inner.normalise(self.arranged(x))

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """g(x), the input of the head."""
        return self.inner.features(self.arranged(x))

    def outputs(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Features and logits of one forward pass."""
        return self.inner.outputs(self.arranged(x))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits of the inner network."""
        logits: Tensor = self.inner(self.arranged(x))
        return logits

    def saliency_layer(self) -> nn.Module:
        """That of the inner network."""
        return self.inner.saliency_layer()

    def as_map(self, activation: Tensor) -> Float[Tensor, "n d h w"]:
        """A map in the orientation of the images."""
        out = self.inner.as_map(activation)
        return out.transpose(2, 3) if self.transposed else out


@torch.no_grad()
def renumber_head(model: Classifier, class_of_output: tuple[int, ...]) -> None:
    """Put the rows of the head into the order of the classes, given the class that each output means."""
    while isinstance(model, Reordered):
        model = model.inner
    if isinstance(model, Wrapped):
        model.renumber(class_of_output)
        return
    head = model.head
    rows = [*class_of_output, *range(len(class_of_output), head.out_features)]
    order = torch.tensor(rows, device=head.weight.device).argsort()
    head.weight.copy_(head.weight[order].clone())
    if head.bias is not None:
        head.bias.copy_(head.bias[order].clone())
