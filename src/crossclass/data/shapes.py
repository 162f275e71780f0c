"""The paper's data model (eq. 8) drawn as pictures, with cross-class features that are known.

Class i shows its exclusive part x_{E,i}, and for every edge (i, j) of a planted graph the part x_{C,ij}
that only i and j show; each with strength ~ N(mu, sigma^2), on textured noise. It is the only data set
whose shared features are known, so C can be held against the truth.

The parts are mutually dissimilar by construction: no two agree in both the stripes they are filled with
(orientation and frequency) and the colour axis they vary along. Gratings of different orientation or
frequency are almost orthogonal under any shift, and the three colour axes (light, red-green,
blue-yellow) are exactly orthogonal.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from crossclass.core.rng import generator
from crossclass.data.base import Data, Planted, Split, Splits, checksum

SILHOUETTES = ("disk", "square", "triangle", "ring", "cross", "diamond")
_AXES = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
_AXES = _AXES / _AXES.norm(dim=1, keepdim=True) * math.sqrt(3)
_ANGLES = (0, 45, 90, 135)
_CYCLES = (2.0, 4.0)  # periods across a part
MAX_PARTS = len(_AXES) * len(_ANGLES) * len(_CYCLES)


def silhouette(name: str, size: int) -> Float[Tensor, "s s"]:
    """A filled outline of `size` pixels, 1 inside and 0 outside."""
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    v, u = torch.meshgrid(line, line, indexing="ij")
    r = (u**2 + v**2).sqrt()
    inside = {
        "disk": r <= 0.95,
        "square": (u.abs() <= 0.82) & (v.abs() <= 0.82),
        "triangle": (v <= 0.85) & (u.abs() <= (v + 0.95) * 0.6),
        "ring": (r <= 1.0) & (r >= 0.5),
        "cross": (u.abs() <= 0.36) | (v.abs() <= 0.36),
        "diamond": u.abs() + v.abs() <= 1.0,
    }[name]
    return inside.float()


def part(index: int, size: int) -> Float[Tensor, "3 s s"]:
    """Part number `index` (< MAX_PARTS): a striped silhouette along one colour axis, values about +-1.

    Neighbouring indices differ in colour axis and orientation at once. All parts have the same energy
    (root mean square 0.5 over the stamp), so strength means the same for each.
    """
    axis = _AXES[index % 3]
    angle = math.radians(_ANGLES[(index + index // 12) % 4])
    cycles = _CYCLES[(index // 12) % 2]
    line = (torch.arange(size) + 0.5) / size - 0.5
    v, u = torch.meshgrid(line, line, indexing="ij")
    stripes = torch.sin(2 * math.pi * cycles * (u * math.cos(angle) + v * math.sin(angle)))
    mask = silhouette(SILHOUETTES[index % len(SILHOUETTES)], size)
    stripes = (stripes - (stripes * mask).sum() / mask.sum()) * mask  # no mean: colour alone tells nothing
    pattern = axis[:, None, None] * stripes
    return 0.5 * pattern / pattern.square().mean().sqrt()


class Drawn(NamedTuple):
    """Pictures with all that is known of them."""

    images: UInt8[Tensor, "n 3 s s"]
    labels: Int[Tensor, " n"]
    """0, 1, ..., k-1, 0, 1, ..."""
    strengths: Float[Tensor, "n p"]
    """How strongly each image shows each part: eq. (8) itself; 0 if it does not. First the classes' own."""
    exclusive: Bool[Tensor, "n s s"]
    """Where the class's own part lies: its whole window."""
    shared: Bool[Tensor, "n s s"]
    """Where cross-class parts lie; nowhere for a class that shares none."""


class Shapes(Data):
    """The paper's data model (eq. 8) as pictures, generated: the cross-class features are known."""

    kind: Literal["shapes"] = "shapes"
    n_train: int = Field(default=300, ge=1)
    """Training images."""
    n_val: int = Field(default=300, ge=0)
    """Validation images."""
    n_test: int = Field(default=600, ge=1)
    """Test images."""
    classes: int = Field(default=6, ge=2)
    """Number of classes."""
    edges: tuple[tuple[int, int], ...] | None = None
    """Pairs of classes that share a part; unset is 0-1, 2-3, 4-5, ... and 1-2."""
    size: int = Field(default=32, ge=8)
    """Height and width of an image in pixels."""
    mu: float = Field(default=0.35, gt=0)
    """Mean strength of a part (contrast, [0, 1] units)."""
    sigma: float = Field(default=0.35, ge=0)
    """Standard deviation of the strength of a part, N(mu, sigma^2)."""
    noise: float = Field(default=0.3, ge=0)
    """Standard deviation of the background's texture."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the pictures."""

    @model_validator(mode="after")
    def _drawable(self) -> "Shapes":
        for i, j in self.graph:
            if not (0 <= i < self.classes and 0 <= j < self.classes and i != j):
                raise ValueError(f"edge ({i}, {j}) does not join two of the {self.classes} classes")
        if len({frozenset(e) for e in self.graph}) < len(self.graph):
            raise ValueError("an edge of the sharing graph is given twice")
        parts = self.classes + len(self.graph)
        if parts > MAX_PARTS:
            raise ValueError(
                f"{parts} dissimilar parts are needed, and there are {MAX_PARTS}; take fewer classes or edges"
            )
        if (side := self.part_size) < 2:
            raise ValueError(f"size={self.size} leaves {side} pixels for a part; take larger pictures")
        return self

    @property
    def graph(self) -> tuple[tuple[int, int], ...]:
        """The planted sharing graph: pairs, and one chain of four, if `edges` says nothing else."""
        if self.edges is not None:
            return self.edges
        pairs = [(i, i + 1) for i in range(0, self.classes - 1, 2)]
        return (*pairs, (1, 2)) if self.classes >= 3 else tuple(pairs)

    @property
    def parts_of(self) -> list[list[int]]:
        """The parts that each class shows: its own, then those of its edges."""
        k = self.classes
        return [[i] + [k + e for e, pair in enumerate(self.graph) if i in pair] for i in range(k)]

    @property
    def cells(self) -> int:
        """Cells along a side of a picture, so that every part of a class has one."""
        return math.ceil(math.sqrt(max(map(len, self.parts_of))))

    @property
    def part_size(self) -> int:
        """Pixels along a side of a part."""
        return int(self.size // self.cells * 0.75)

    def __call__(self) -> Splits:
        """Draw the three parts; each has a stream of its own."""
        drawn = {split: self.drawn(split) for split in ("train", "val", "test")}
        parts = [Split(d.images, d.labels) for d in drawn.values()]
        found = checksum(*(a.numpy() for s in parts for a in (s.images, s.labels)))
        sharing = torch.eye(self.classes, dtype=torch.int64)
        for i, j in self.graph:
            sharing[i, j] = sharing[j, i] = 1
        planted = self._planted({split: d.strengths for split, d in drawn.items()})
        return Splits(*(parts[0], parts[1], parts[2]), self._names(), found, sharing, planted=planted)

    @property
    def draw_seed(self) -> int:
        """The seed of the pictures."""
        return self.seed

    def for_seed(self, seed: int) -> "Shapes":
        """Pictures drawn from this seed."""
        return self.replace(seed=seed)

    def drawn(self, split: Literal["train", "val", "test"]) -> Drawn:
        """The images of one split, with the strengths and positions of their parts.

        Each part lies in a cell of its own, so that parts never overlap, at a random position, tinted.
        """
        stream = ("train", "val", "test").index(split)
        n, size = (self.n_train, self.n_val, self.n_test)[stream], self.size
        g = generator(self.seed, stream, 0, "shapes")
        shown, cells, side = self.parts_of, self.cells, self.part_size
        cell = size // cells
        parts = self.classes + len(self.graph)
        stamps = torch.stack([part(p, side) for p in range(parts)])
        labels = torch.arange(n) % self.classes

        coarse = torch.randn(n, 3, max(1, size // 4), max(1, size // 4), generator=g)
        texture = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
        fine = torch.randn(n, 3, size, size, generator=g)
        images = 0.5 + self.noise * (0.8 * texture + 0.6 * fine)

        # all draws at once, so that image m does not depend on how many parts image m - 1 shows
        most = max(map(len, shown))
        strength = self.mu + self.sigma * torch.randn(n, most, generator=g)
        tint = 1 + 0.15 * torch.randn(n, most, 3, generator=g)
        where = torch.rand(n, cells * cells, generator=g).argsort(dim=1)
        offset = (torch.rand(n, most, 2, generator=g) * (cell - side + 1)).long()
        exclusive, shared = torch.zeros(2, n, size, size, dtype=torch.bool)
        strengths = torch.zeros(n, parts)
        for m in range(n):
            for q, p in enumerate(shown[int(labels[m])]):
                top = int(where[m, q]) // cells * cell + int(offset[m, q, 0])
                left = int(where[m, q]) % cells * cell + int(offset[m, q, 1])
                window = images[m, :, top : top + side, left : left + side]
                window += strength[m, q] * tint[m, q][:, None, None] * stamps[p]
                strengths[m, p] = strength[m, q]
                mask = exclusive if p < self.classes else shared
                mask[m, top : top + side, left : left + side] = True
        pictures = (images.clamp(0, 1) * 255).round().to(torch.uint8)
        return Drawn(pictures, labels, strengths, exclusive, shared)

    def _planted(self, strengths: dict[str, Tensor]) -> Planted:
        """The parts at twice their mean strength, so that they are seen."""
        stamps = [part(p, self.part_size) for p in range(self.classes + len(self.graph))]
        pictures = (0.5 + 2 * self.mu * torch.stack(stamps)).clamp(0, 1)
        return Planted((255 * pictures).round().byte(), tuple(map(tuple, self.parts_of)), strengths)

    def _names(self) -> tuple[str, ...]:
        known = SILHOUETTES
        return tuple(
            known[i % len(known)] + ("" if i < len(known) else f" {i // len(known) + 1}")
            for i in range(self.classes)
        )
