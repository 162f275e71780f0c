"""Crop and flip, drawn per sample from a generator of their own, on the batch as it lies on the device.

(torchvision's batch crop gives every sample the same shift.)
"""

from typing import Literal

import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from crossclass.core.config import Settings
from crossclass.core.errors import UserError


class Augment(Settings):
    """Random crop and horizontal flip, drawn per sample."""

    crop: int = Field(default=4, ge=0)
    """Pixels of padding on each side before the crop."""
    padding: Literal["reflect", "zero"] = "reflect"
    """The paper's code pads by reflection, many others with zeros."""
    flip: bool = True
    """Whether half of the images are mirrored."""

    def __call__(self, images: UInt8[Tensor, "n c h w"], g: torch.Generator) -> UInt8[Tensor, "n c h w"]:
        """Augmented copies; the draws are made for every sample whatever is switched on."""
        n, _, h, w = images.shape
        shift = torch.randint(0, 2 * self.crop + 1, (2, n), generator=g).to(images.device, non_blocking=True)
        flip = torch.rand(n, generator=g).to(images.device, non_blocking=True) < 0.5
        if self.crop:
            if self.padding == "reflect" and self.crop >= min(h, w):
                raise UserError(
                    f"augment.crop={self.crop} cannot be padded by reflection on {h}x{w} images; use "
                    "augment.padding=zero or a smaller crop"
                )
            images = _crop(images, self.crop, self.padding, shift)
        return torch.where((flip & self.flip)[:, None, None, None], images.flip(3), images)


def _crop(images: Tensor, pad: int, padding: str, shift: Tensor) -> Tensor:
    n, _, h, w = images.shape
    rows = shift[0][:, None] + torch.arange(h, device=images.device) - pad  # [n, h], may lie outside
    columns = shift[1][:, None] + torch.arange(w, device=images.device) - pad
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    rows, columns = _reflected(rows, h), _reflected(columns, w)
    index = torch.arange(n, device=images.device)[:, None, None]
    cropped = images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    if padding == "zero":
        cropped = cropped * inside[..., None]
    return cropped.permute(0, 3, 1, 2)


def _reflected(index: Tensor, length: int) -> Tensor:
    index = index.abs()  # -1 is 1: the border itself is not repeated, as in torch and numpy
    return torch.where(index >= length, 2 * (length - 1) - index, index).clamp(0, length - 1)
