"""How often the intervals hold the truth, and how wide they are.

    python benchmarks/coverage.py [draws=400] [only=TEXT] [features=FILE] [images=50,100,200] [out=FILE]

Test sets are drawn again and again from populations whose truth is known; the intervals are those of
`METRICS`. A second checkpoint on the same images, with another head and a fifth of the noise drawn anew,
gives differences. The truth of CAS is that of the expected class means and that of accuracy its expectation;
I-CAS grows with the number of images, and its truth is the mean over all draws.

`features=` adds real features: an .npz with arrays `g` and `other_g` [n, d], the heads' weights `W` and
`other_W` [k, d] and the labels `y`. All its images are the population, `images` of each class a draw. Drawn
with replacement, they are a population without end, with two copies of some images in a draw; drawn without,
what is left out is 1 - n/N of the noise, so the intervals are narrowed by the root of that (the correction
for a finite population).
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from timing import write
from torch import Tensor

from crossclass.analysis.evaluate import EvaluationPass
from crossclass.analysis.intervals import Interval
from crossclass.analysis.metrics import METRICS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from populations import Population, scattered, seeded, specific, unrelated, weakly_shared

KEYS = ("cas", "icas", "robust")
DEFAULTS = {"draws": "400", "only": "", "features": "", "images": "50,100,200", "out": ""}
Pair = tuple[EvaluationPass, EvaluationPass]
Pick = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Cell:
    """Test sets of one kind and size."""

    name: str
    draw: Callable[[torch.Generator], Pair]
    cas: tuple[float, float]
    """The truth of both checkpoints."""
    robust: tuple[float, float]
    narrowed: float = 1.0
    """By how much the intervals are narrowed, for draws from a finite population."""


def judged(g: Tensor, W: Tensor, y: Tensor) -> EvaluationPass:
    """A pass in which the class of the largest W g is predicted."""
    predicted = (g @ W.T).argmax(dim=1)
    return EvaluationPass(labels=y, clean=predicted, robust=predicted, features=g, W=W)


class Drawn:
    """Two checkpoints on the same images: the other has another head, and a fifth of its noise anew."""

    def __init__(self, population: Population) -> None:
        self.population, W = population, population.W
        self.other_W = W + 0.05 * torch.randn(W.shape, generator=seeded(8))
        self.cas = population.cas, population.cas_with(self.other_W)
        many = [self.draw(2000, seeded(100 + part)) for part in range(max(1, 100 // len(W)))]
        a, b = (sum(p[i].accuracy("robust") for p in many) / len(many) for i in (0, 1))
        self.robust = a, b

    def draw(self, n: int, generator: torch.Generator) -> Pair:
        """Both checkpoints on n images of each class."""
        of = self.population
        y = torch.arange(len(of.W)).repeat_interleave(n)
        a = of.features(y, generator)
        b = 0.8 * a + 0.2 * of.features(y, generator)
        scale = (of.scale * torch.randn(len(y), 1, generator=generator) - of.scale**2 / 2).exp()
        return judged(a * scale, of.W, y), judged(b * scale, self.other_W, y)


def simulated() -> Iterator[Cell]:
    """Populations with a formula."""
    kinds: dict[str, Callable[[int, int], Population]] = {
        "like a trained network": specific,
        "images that differ in scale": lambda k, d: specific(k, d, 1.0),
        "unrelated classes": unrelated,
        "most of C within its noise": scattered,
        "classes that all share a little": weakly_shared,
    }
    for k, d, sizes in ((10, 64, (10, 25, 100)), (100, 128, (5, 10))):
        for kind, make in kinds.items():
            population = Drawn(make(k, d))
            for n in sizes:
                name = f"{kind}, {k} classes x {n}"
                yield Cell(
                    name,
                    lambda generator, n=n, p=population: p.draw(n, generator),
                    population.cas,
                    population.robust,
                )


def real(path: str, sizes: list[int]) -> Iterator[Cell]:
    """Test sets drawn from the images of a file."""
    file = {key: torch.from_numpy(array) for key, array in np.load(path).items()}
    y, heads = file["y"].long(), (file["W"], file["other_W"])
    features = file["g"].float(), file["other_g"].float()
    whole = [judged(g, W, y) for g, W in zip(features, heads, strict=True)]
    members = [torch.nonzero(y == i).flatten() for i in range(len(heads[0]))]
    least = min(len(m) for m in members)

    def draw(pick: Pick, generator: torch.Generator) -> Pair:
        i = torch.cat([m[pick(len(m), generator)] for m in members])
        a, b = (judged(g[i], W, y[i]) for g, W in zip(features, heads, strict=True))
        return a, b

    for n in sizes:
        picks: dict[str, Pick] = {
            "with": lambda many, generator, n=n: torch.randint(many, (n,), generator=generator),
            "without": lambda many, generator, n=n: torch.randperm(many, generator=generator)[:n],
        }
        for how, pick in picks.items():
            if how == "without" and n >= least:
                continue
            yield Cell(
                f"real features, {len(members)} classes x {n}, {how} replacement",
                lambda generator, pick=pick: draw(pick, generator),
                (whole[0].cas, whole[1].cas),
                (whole[0].accuracy("robust"), whole[1].accuracy("robust")),
                1.0 if how == "with" else sqrt(1 - n / least),
            )


def summary(found: list[Interval], truth: float, narrowed: float) -> dict[str, float]:
    """Coverage, mean width, 3.92 deviations of the estimates, and how often the estimate lies outside."""
    held, width = 0, 0.0
    for i in found:
        centre, half = (i.low + i.high) / 2, narrowed * (i.high - i.low) / 2
        held += centre - half <= truth <= centre + half
        width += 2 * half / len(found)
    spread = 3.92 * float(torch.tensor([i.estimate - i.bias for i in found], dtype=torch.float64).std())
    outside = sum(not i.low <= i.estimate <= i.high for i in found)
    share = sum(abs(i.bias) for i in found) / max(1e-12, sum(abs(i.estimate) for i in found))
    return {
        "coverage": held / len(found),
        "width": width,
        "spread": spread,
        "truth": truth,
        "estimate_outside": outside / len(found),
        "correction": share,
        "noise": sum(i.noise for i in found) / len(found),
    }


def measured(cell: Cell, draws: int) -> dict[str, dict[str, float]]:
    """Every metric of a cell, and its difference (`d_`)."""
    metrics = [m for m in METRICS if m.key in KEYS]
    found: dict[str, list[Interval]] = {key: [] for m in metrics for key in (m.key, f"d_{m.key}")}
    generator = seeded(0)
    for _ in range(draws):
        a, b = cell.draw(generator)
        for m in metrics:
            assert m.interval is not None
            assert m.difference is not None
            found[m.key].append(m.interval(a))
            found[f"d_{m.key}"].append(m.difference(a, b))
    truths = {key: sum(i.estimate for i in of) / draws for key, of in found.items()}
    for key, (a_truth, b_truth) in (("cas", cell.cas), ("robust", cell.robust)):
        truths |= {key: a_truth, f"d_{key}": a_truth - b_truth}
    return {key: summary(of, truths[key], cell.narrowed) for key, of in found.items()}


def main(given: list[str]) -> None:
    """Measure all cells, print and write each as it is done."""
    changes = dict(text.partition("=")[::2] for text in given)
    if unknown := set(changes) - set(DEFAULTS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(DEFAULTS)}")
    told = DEFAULTS | changes
    torch.set_num_threads(1)
    sizes = [int(n) for n in told["images"].split(",")]
    cells = [*(real(told["features"], sizes) if told["features"] else ()), *simulated()]
    found = {}
    for cell in cells:
        if told["only"] in cell.name:
            found[cell.name] = measured(cell, int(told["draws"]))
            line = "  ".join(
                f"{k} {s['coverage']:.3f} ({s['width']:.3g})" for k, s in found[cell.name].items()
            )
            print(f"{cell.name:60s} {line}", flush=True)
            write({"draws": int(told["draws"]), "cells": found})


if __name__ == "__main__":
    main(sys.argv[1:])
