"""A vision transformer (Dosovitskiy et al. 2021) for small images, with the parameter names of timm.

The default is DeiT-Ti (Touvron et al. 2021) with patches of 4 x 4 pixels. Patches become tokens, a class
token leads them, positions are added, and every block does x + attention(norm1(x)), then x + mlp(norm2(x)).
g(x) is the class token after the last norm, [n, width]. `pretrained` starts from ImageNet weights with the
patch kernel summed and the positions resized (Mo et al. 2022).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from crossclass.core.errors import UserError
from crossclass.data.base import PerChannel
from crossclass.models.base import Classifier, Model, Size, load_pretrained, sides
from crossclass.models.hub import weights_of


class ViT(Model):
    """Vision transformer with a class token (Dosovitskiy et al. 2021)."""

    kind: Literal["vit"] = "vit"
    patch: PositiveInt = 4
    """Side of a patch in pixels; it divides height and width of the images."""
    width: PositiveInt = 192
    """Dimension of a token."""
    depth: PositiveInt = 12
    """Number of blocks."""
    heads: PositiveInt = 3
    """Attention heads of a block; they divide the width."""
    mlp_ratio: float = Field(default=4.0, gt=0)
    """Hidden units of a block's two-layer perceptron, per channel."""
    pretrained: str | None = None
    """Where training starts: a repository of the Hugging Face Hub with timm's names, such as
    timm/deit_tiny_patch16_224.fb_in1k. Unset starts from scratch."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "ViT":
        if self.width % self.heads:
            raise ValueError(f"width={self.width} cannot be shared by heads={self.heads}")
        return self

    def not_in_shapes(self) -> Mapping[str, tuple[Any, ...]]:
        """Heads of 32, 64 or 96 channels (timm's first ViT-S has 96, its others 64)."""
        return {"heads": tuple(self.width // n for n in (64, 32, 96) if self.width % n == 0)}

    def __str__(self) -> str:
        tiny = (self.width, self.depth, self.heads) == (192, 12, 3)
        name = "DeiT-Ti" if tiny else "ViT"
        return f"{name}, width {self.width}, depth {self.depth}, patch {self.patch}"

    def __call__(
        self, classes: int, channels: int, mean: PerChannel, std: PerChannel, size: Size = 32
    ) -> Classifier:
        """The network, freshly initialised from torch's global stream, for images of that size only."""
        return ViTModule(self, classes, channels, mean, std, size)

    def load_pretrained(self, model: Classifier) -> None:
        """Put the pretrained weights in, if any; the head only if it has as many classes.

        Raises UserError if they cannot be had or do not fit.
        """
        if self.pretrained is None:
            return
        assert isinstance(model, ViTModule)
        tensors = adapted(weights_of(self.pretrained), self.patch, model.grid)
        fresh = ("mean", "std", "head.weight", "head.bias")
        load_pretrained(model, tensors, fresh, f"model.pretrained={self.pretrained} does not fit the model")


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        out = _attend(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(n, t, d))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v over the last two axes."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # torch 2.13's fused attention goes backwards four times slower in bf16 than in float32 there
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return weights.to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViTModule(Classifier):
    """The network of `ViT`."""

    def __init__(
        self, settings: ViT, classes: int, channels: int, mean: PerChannel, std: PerChannel, size: Size
    ) -> None:
        super().__init__(mean, std)
        width, patch = settings.width, settings.patch
        h, w = sides(size)
        if h % patch or w % patch:
            raise UserError(f"model.patch={patch} does not divide the images, which are {h}x{w}")
        self.grid = (h // patch, w // patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], width))
        self.patch_embed = _PatchEmbed(channels, width, patch)
        hidden = int(width * settings.mlp_ratio + 1e-6)  # a whole number over the width stays whole
        self.blocks = nn.Sequential(*(_Block(width, settings.heads, hidden) for _ in range(settings.depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():  # the patch kernel keeps torch's own start, as in timm
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The class token after the last layer norm, [n, width]; of either sign."""
        patch = self.patch_embed.proj.kernel_size[0]
        h, w = (patch * n for n in self.grid)
        if x.shape[-2:] != (h, w):
            raise UserError(f"this ViT was made for images of {h}x{w}, not {x.shape[-2]}x{x.shape[-1]}")
        tokens = self.patch_embed(self.normalise(x))
        tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), tokens), dim=1) + self.pos_embed
        g: Tensor = self.norm(self.blocks(tokens))[:, 0]
        return g

    def saliency_layer(self) -> nn.Module:
        """norm1 of the last block: behind it only the class token reaches the head."""
        layer = self.blocks[-1].norm1
        assert isinstance(layer, nn.Module)
        return layer

    def as_map(self, activation: Tensor) -> Float[Tensor, "n d h w"]:
        """Tokens [n, 1 + hw, d] as a map, the class token dropped."""
        return activation[:, 1:].transpose(1, 2).unflatten(2, self.grid)


def adapted(tensors: Mapping[str, Tensor], patch: int, grid: tuple[int, int]) -> dict[str, Tensor]:
    """A ViT's tensors for patches of `patch` pixels and a `grid` of positions (Mo et al. 2022).

    The kernel sums its cells, so that it answers to an image as it did to the same image enlarged by
    repeating pixels; positions are resized bilinearly, that of the class token is kept. Raises UserError.
    """
    out = dict(tensors)
    try:
        kernel, positions = out["patch_embed.proj.weight"], out["pos_embed"]
    except KeyError as e:
        raise UserError(f"the pretrained weights lack {e}; name a ViT with timm's parameter names") from e
    old, tokens = kernel.shape[-1], positions.shape[1] - 1
    if old % patch:
        raise UserError(f"a pretrained patch of {old} pixels is no multiple of model.patch={patch}")
    side = round(tokens**0.5)
    if side * side != tokens:
        raise UserError(
            "the pretrained positions are no square grid behind one class token; name another ViT"
        )
    out["patch_embed.proj.weight"] = (
        kernel.unflatten(3, (patch, old // patch)).unflatten(2, (patch, old // patch)).sum(dim=(3, 5))
    )
    if (side, side) != grid:
        field = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        field = F.interpolate(field, size=grid, mode="bilinear", align_corners=False)
        out["pos_embed"] = torch.cat((positions[:, :1], field.flatten(2).transpose(1, 2)), dim=1)
    return out
