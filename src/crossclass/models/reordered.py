"""A network that was trained on images arranged otherwise: other channels, turned, inverted, standardised."""

from dataclasses import dataclass, replace
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossclass.models.base import Classifier
from crossclass.models.wrapper import Wrapped

COLOURS = ("red", "green", "blue")
TURNS: dict[tuple[bool, bool, bool], str] = {
    (True, False, False): "transposed",
    (False, False, True): "mirrored",
    (False, True, False): "upside down",
    (False, True, True): "turned by 180 degrees",
    (True, False, True): "turned clockwise",
    (True, True, False): "turned counterclockwise",
    (True, True, True): "transposed along the other diagonal",
}
"""What `transposed`, `upside_down` and `mirrored` come to, in this order one after the other."""


@dataclass(frozen=True)
class Arrangement:
    """What becomes of images in [0, 1] before a network normalises them; by default nothing."""

    channels: tuple[int, ...] = ()
    """For each channel of the network that of the images; empty: the same."""
    transposed: bool = False
    """Height and width are exchanged, first."""
    upside_down: bool = False
    """Up and down are exchanged, then."""
    mirrored: bool = False
    """Left and right are exchanged, then."""
    inverted: bool = False
    """Dark and bright are exchanged: 1 - x."""
    each_by_itself: bool = False
    """Each image is standardised by its mean and deviation, last (`tf.image.per_image_standardization`)."""

    @property
    def name(self) -> str:
        """All that is done, such as `blue, green, red, inverted`; empty for nothing."""
        parts = [COLOURS[c] for c in self.channels]
        parts += (
            [TURNS[turn]] if (turn := (self.transposed, self.upside_down, self.mirrored)) in TURNS else []
        )
        parts += ["inverted"] * self.inverted + ["each image by itself"] * self.each_by_itself
        return ", ".join(parts)

    def __call__(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c u v"]:
        """The images as the network gets them."""
        x = x[:, list(self.channels)] if self.channels else x
        x = x.transpose(2, 3) if self.transposed else x
        flipped = [d for d, wanted in ((2, self.upside_down), (3, self.mirrored)) if wanted]
        x = x.flip(flipped) if flipped else x
        x = 1 - x if self.inverted else x
        if self.each_by_itself:
            values = x.flatten(1)
            # TensorFlow's smallest deviation, which is in 0..255
            smallest = 1 / (255 * sqrt(values.shape[1]))
            mean, std = values.mean(dim=1), values.std(dim=1, correction=0).clamp(min=smallest)
            x = (x - mean[:, None, None, None]) / std[:, None, None, None]
        return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()

    def back(self, x: Float[Tensor, "n d u v"]) -> Float[Tensor, "n d h w"]:
        """A map of what the network got, turned as the images are."""
        x = x.flip([d for d, wanted in ((2, self.upside_down), (3, self.mirrored)) if wanted])
        return x.transpose(2, 3) if self.transposed else x

    def turned(self, turn: tuple[bool, bool, bool]) -> "Arrangement":
        """The same in another orientation: a key of `TURNS`, or three times False."""
        transposed, upside_down, mirrored = turn
        return replace(self, transposed=transposed, upside_down=upside_down, mirrored=mirrored)


class Reordered(Classifier):
    """`inner` gets the images arranged otherwise.

    Orders, orientation and 1 - x leave distances and the box as they are, so an attack in l_inf or l_2 is the
    same attack; where each image is standardised the attack differentiates that too.
    """

    inner: Classifier

    def __init__(self, inner: Classifier, arrangement: Arrangement) -> None:
        nn.Module.__init__(self)  # mean and std are those of the inner network
        self.inner, self.arrangement = inner, arrangement

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

    def normalise(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c u v"]:
        """What the inner network computes with."""
        return self.inner.normalise(self.arrangement(x))

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """g(x), the input of the head."""
        return self.inner.features(self.arrangement(x))

    def outputs(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Features and logits of one forward pass."""
        return self.inner.outputs(self.arrangement(x))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits of the inner network."""
        logits: Tensor = self.inner(self.arrangement(x))
        return logits

    def saliency_layer(self) -> nn.Module:
        """That of the inner network."""
        return self.inner.saliency_layer()

    def as_map(self, activation: Tensor) -> Float[Tensor, "n d h w"]:
        """A map in the orientation of the images."""
        return self.arrangement.back(self.inner.as_map(activation))


def as_fed(model: Classifier, arrangement: Arrangement) -> Classifier:
    """The network for images that are arranged so for it, in the mode it is in."""
    if arrangement == Arrangement():
        return model
    out = Reordered(model, arrangement)
    out.training = model.training
    return out


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
