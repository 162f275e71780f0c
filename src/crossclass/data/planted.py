"""The generated data set: pictures whose cross-class features are known, because they were planted."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from crossclass import readers, shapes
from crossclass.data.splits import Split, Splits
from crossclass.settings import Settings
from crossclass.streams import generator


class Shapes(Settings):
    """The paper's data model (eq. 8) as pictures, generated: the cross-class features are known."""

    kind: Literal["shapes"] = "shapes"
    n_train: int = Field(300, ge=1)
    n_val: int = Field(300, ge=0)
    n_test: int = Field(600, ge=1)
    classes: int = Field(6, ge=2)
    edges: tuple[tuple[int, int], ...] | None = None
    """Pairs of classes that share a part; unset is 0-1, 2-3, 4-5, ... and 1-2."""
    size: int = Field(32, ge=8)
    mu: float = Field(0.35, gt=0)
    """Mean strength of a part (contrast, [0, 1] units)."""
    sigma: float = Field(0.35, ge=0)
    noise: float = Field(0.3, ge=0)
    """Standard deviation of the background's texture."""
    seed: int = Field(0, ge=0)

    channels: ClassVar[int] = 3

    @model_validator(mode="after")
    def _drawable(self) -> "Shapes":
        for i, j in self.graph:
            if not (0 <= i < self.classes and 0 <= j < self.classes and i != j):
                raise ValueError(f"edge ({i}, {j}) does not join two of the {self.classes} classes")
        if len({frozenset(e) for e in self.graph}) < len(self.graph):
            raise ValueError("an edge of the sharing graph is given twice")
        parts = self.classes + len(self.graph)
        if parts > shapes.MAX_PARTS:
            raise ValueError(
                f"{parts} dissimilar parts are needed, and there are {shapes.MAX_PARTS}; take fewer "
                "classes or edges"
            )
        return self

    @property
    def graph(self) -> shapes.Edges:
        """The planted sharing graph."""
        return shapes.default_edges(self.classes) if self.edges is None else self.edges

    def __call__(self) -> Splits:
        """Draw the three parts; each has a stream of its own."""
        parts = [self._draw(n, i) for i, n in enumerate((self.n_train, self.n_val, self.n_test))]
        checksum = readers.checksum(*(a.numpy() for s in parts for a in (s.images, s.labels)))
        sharing = shapes.sharing_matrix(self.classes, self.graph)
        return Splits(parts[0], parts[1], parts[2], self._names(), checksum, sharing)

    def planted(self) -> tuple[Bool[Tensor, "n s s"], Bool[Tensor, "n s s"]]:
        """Where the exclusive and the cross-class parts of the test images lie."""
        return shapes.planted(*self._appearance(self.n_test, 2))

    def strengths(self, split: Literal["train", "val", "test"]) -> Float[Tensor, "n p"]:
        """How strongly each image shows each part: eq. (8) itself, [n, classes + edges], 0 if not shown.

        Parts are the classes' own, then those of the edges. They are drawn again as `shapes.draw` draws them,
        behind the texture's normals.
        """
        stream = ("train", "val", "test").index(split)
        n, coarse = (self.n_train, self.n_val, self.n_test)[stream], max(1, self.size // 4)
        g = generator(self.seed, stream, 0, "shapes")
        for side in (coarse, self.size):
            torch.randn(n, 3, side, side, generator=g)
        edges = list(enumerate(self.graph, self.classes))
        shown = [[i] + [p for p, pair in edges if i in pair] for i in range(self.classes)]
        drawn = self.mu + self.sigma * torch.randn(n, max(map(len, shown)), generator=g)
        out = torch.zeros(n, self.classes + len(edges))
        for i, parts in enumerate(shown):
            rows = torch.arange(i, n, self.classes)
            out[rows[:, None], torch.tensor(parts)] = drawn[rows, : len(parts)]
        return out

    def _draw(self, n: int, stream: int) -> Split:
        return Split(*shapes.draw(*self._appearance(n, stream)))

    def _appearance(
        self, n: int, stream: int
    ) -> tuple[int, int, shapes.Edges, int, float, float, float, torch.Generator]:
        appearance = (self.size, self.mu, self.sigma, self.noise)
        return n, self.classes, self.graph, *appearance, generator(self.seed, stream, 0, "shapes")

    def _names(self) -> tuple[str, ...]:
        known = shapes.SILHOUETTES
        return tuple(
            known[i % len(known)] + ("" if i < len(known) else f" {i // len(known) + 1}")
            for i in range(self.classes)
        )
