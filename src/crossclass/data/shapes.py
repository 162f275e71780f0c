"""The generated data set: pictures whose cross-class features are known, because they were planted."""

from typing import Literal

from pydantic import Field, model_validator

from crossclass.core.config import Settings
from crossclass.core.rng import generator
from crossclass.data import readers
from crossclass.data import shape_drawing as shapes
from crossclass.data.base import Split, Splits


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
        if (stamp := shapes.stamp_size(self.classes, self.graph, self.size)) < 2:
            raise ValueError(f"size={self.size} leaves {stamp} pixels for a part; take larger pictures")
        return self

    @property
    def graph(self) -> shapes.Edges:
        """The planted sharing graph."""
        return shapes.default_edges(self.classes) if self.edges is None else self.edges

    def __call__(self) -> Splits:
        """Draw the three parts; each has a stream of its own."""
        drawn = [self.drawn(split) for split in ("train", "val", "test")]
        parts = [Split(d.images, d.labels) for d in drawn]
        checksum = readers.checksum(*(a.numpy() for s in parts for a in (s.images, s.labels)))
        sharing = shapes.sharing_matrix(self.classes, self.graph)
        return Splits(parts[0], parts[1], parts[2], self._names(), checksum, sharing)

    def drawn(self, split: Literal["train", "val", "test"]) -> shapes.Drawn:
        """One part with all that is known of it: strengths and places of the parts besides the images."""
        stream = ("train", "val", "test").index(split)
        n = (self.n_train, self.n_val, self.n_test)[stream]
        appearance = (self.size, self.mu, self.sigma, self.noise)
        g = generator(self.seed, stream, 0, "shapes")
        return shapes.draw(n, self.classes, self.graph, *appearance, g)

    def _names(self) -> tuple[str, ...]:
        known = shapes.SILHOUETTES
        return tuple(
            known[i % len(known)] + ("" if i < len(known) else f" {i // len(known) + 1}")
            for i in range(self.classes)
        )
