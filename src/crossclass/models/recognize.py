"""Which built-in network do these names and shapes describe?

Depth, width, blocks, stem, pooling, patch and grid can be read off the shapes; each family proposes one
candidate, which is built without memory (on torch's meta device) and compared tensor by tensor.
"""

import re
from collections.abc import Iterator, Mapping
from math import isqrt
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from crossclass.core.errors import UserError
from crossclass.models.base import Classifier, Size
from crossclass.models.preactresnet import BLOCKS, PreActResNet, Residual
from crossclass.models.resnet import ResNet
from crossclass.models.vit import ViT
from crossclass.models.wideresnet import WideResNet

BuiltIn = PreActResNet | ResNet | WideResNet | ViT
Shapes = Mapping[str, tuple[int, ...]]
_HEADS = ("head.weight", "linear.weight", "fc.weight")
_NO_WEIGHTS = re.compile(
    r"(^|\.)(num_batches_tracked|total_ops|total_params|mean|std|mu|sigma)$|^normali[sz]e"
)
"""Counters and normalisation, which say nothing about the network."""


class Recognized(NamedTuple):
    """The closest built-in network. `settings` say its shapes; normalisation is not in them."""

    settings: BuiltIn
    classes: int
    share: float
    """Tensors with equal names and shapes, of all in the network or the file; 1.0 is exact."""


def recognize(tensors: Mapping[str, Tensor]) -> Recognized | None:
    """The built-in network that a state dict without prefixes comes closest to, if it resembles any.

    What shapes cannot show is guessed: the stride of the stem (2 for an even kernel), a ViT's heads (64
    channels each), what shortcuts take (without last batch norm the raw input, as in RobustBench's and
    tml-epfl's); `Model.not_in_shapes` has what else it may be. A 7x7 stem with torchvision's names is
    followed by max pooling, which ours lack, so ImageNet nets are never exact.
    """
    shapes: Shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    candidates = [*_residuals(shapes), *_wideresnets(shapes), *_vits(shapes)]
    return max(candidates, key=lambda candidate: candidate.share, default=None)


def _residuals(shapes: Shapes) -> Iterator[Recognized]:
    """A PreActResNet and a ResNet with the blocks that names such as `layer1.0.conv1` show."""
    counts: dict[int, int] = {}
    for name in shapes:
        if match := re.match(r"layer(\d+)\.(\d+)\.conv1\.weight$", name):
            stage, block = int(match[1]), int(match[2])
            counts[stage] = max(counts.get(stage, 0), block + 1)
    stem, head = shapes.get("conv1.weight", ()), _head(shapes)
    stages = len(counts)
    if sorted(counts) != list(range(1, stages + 1)) or not 1 <= stages <= 6 or len(stem) != 4 or head is None:
        return
    blocks = tuple(counts[stage] for stage in sorted(counts))
    depth: Literal[18, 34, 50] = 18
    if "layer1.0.conv3.weight" in shapes:
        depth = 50
    elif blocks == BLOCKS[34]:
        depth = 34
    width, channels, _, kernel = stem
    if kernel == 7 and any(".downsample." in name for name in shapes):
        kernel = 3
    pre = PreActResNet(
        depth=depth,
        blocks=None if blocks == BLOCKS[depth] else blocks,
        width=width,
        stem=kernel,
        stem_stride=2 - kernel % 2,
    )
    post = ResNet(**pre.model_dump(include=set(Residual.model_fields)) | {"kind": "resnet"})
    if "bn.weight" not in shapes and "bn1.weight" not in shapes:
        pre = pre.replace(last_norm=False, shortcut_input="activated" if depth == 50 else "raw")
    classes, features = head
    yield from _candidate(pre, shapes, classes, channels, 32)
    windows, rest = divmod(features, width * 2 ** (stages - 1) * (4 if depth == 50 else 1))
    if rest == 0 and windows > 1:
        one = 4 * post.stem_stride * 2 ** (stages - 1)
        u, v = _factors(windows)
        size = one * u, one * v
        yield from _candidate(post.replace(pool=4), shapes, classes, channels, size)
    else:
        yield from _candidate(post, shapes, classes, channels, 32)


def _wideresnets(shapes: Shapes) -> Iterator[Recognized]:
    numbers = [int(m[1]) for n in shapes if (m := re.match(r"block1\.layer\.(\d+)\.conv1\.weight$", n))]
    stem, head = shapes.get("conv1.weight", ()), _head(shapes)
    first = shapes.get("block1.layer.0.conv1.weight", ())
    if numbers and len(stem) == 4 and len(first) == 4 and head is not None:
        settings = WideResNet(depth=6 * (max(numbers) + 1) + 4, widen=max(1, first[0] // 16))
        yield from _candidate(settings, shapes, head[0], stem[1], 32)


def _vits(shapes: Shapes) -> Iterator[Recognized]:
    numbers = [int(m[1]) for n in shapes if (m := re.match(r"blocks\.(\d+)\.attn\.qkv\.weight$", n))]
    proj, positions = shapes.get("patch_embed.proj.weight", ()), shapes.get("pos_embed", ())
    head = _head(shapes)
    if not numbers or len(proj) != 4 or len(positions) != 3 or head is None:
        return
    width, channels, _, patch = proj
    hidden = shapes.get("blocks.0.mlp.fc1.weight", (4 * width,))
    heads = width // 64 if width % 64 == 0 else 3 if width % 3 == 0 else 1
    grid = _factors(positions[1] - 1)
    settings = ViT(patch=patch, width=width, depth=max(numbers) + 1, heads=heads, mlp_ratio=hidden[0] / width)
    yield from _candidate(settings, shapes, head[0], channels, (grid[0] * patch, grid[1] * patch))


def _factors(n: int) -> tuple[int, int]:
    """The two factors of n that are nearest to each other: the shapes of weights show no more of a grid."""
    u = next(u for u in range(max(1, isqrt(max(n, 1))), 0, -1) if n % u == 0)
    return u, n // u


def _head(shapes: Shapes) -> tuple[int, int] | None:
    """Classes and inputs of the head."""
    found = [shapes[name] for name in _HEADS if len(shapes.get(name, ())) == 2]
    return (found[0][0], found[0][1]) if found else None


def _candidate(
    settings: BuiltIn, shapes: Shapes, classes: int, channels: int, size: Size
) -> Iterator[Recognized]:
    try:
        with torch.device("meta"):
            model = settings(classes, channels, (0.0,), (1.0,), size)
    except UserError:
        return
    own = {n: tuple(t.shape) for n, t in model.state_dict().items() if not _NO_WEIGHTS.search(n)}
    theirs = {_renamed(n, model): s for n, s in shapes.items() if not _is_unused(n, model)}
    same = sum(theirs.get(name) == shape for name, shape in own.items())
    yield Recognized(settings, classes, same / len(own.keys() | theirs.keys()))


def _renamed(name: str, model: Classifier) -> str:
    for pattern, replacement in model.renames:
        name = re.sub(pattern, replacement, name)
    return name


def _is_unused(name: str, model: Classifier) -> bool:
    return bool(_NO_WEIGHTS.search(name)) or any(re.search(p, name) for p in model.unused)
