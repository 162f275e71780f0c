"""How costs grow: python benchmarks/growth.py [out=FILE.json]; draws beside it, as .svg.

    C and CAS, I-CAS, interval of CAS    against images n, features d, classes K; I-CAS also its memory
    PGD on the thin net, bf16            against steps, side of the image, width, images in a batch

One quantity moves, the others stay at their standard (n 5,000, d 512, K 10; 10 steps, side 32, width 32,
batch 64). Medians of three rounds, all points of a curve in turns; the exponent is the slope of log seconds
over log quantity by least squares, over the larger half of the points. Memory is by how much the size of a
process exceeds, during the call, what it was before.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import torch
from timing import in_turns, write

from crossclass import models
from crossclass.analysis import attribution, instances, intervals
from crossclass.attacks import PGD
from crossclass.core.device import keep_freed_memory
from crossclass.models import PreActResNet

N, D, K, STEPS, SIDE, WIDTH, BATCH = 5000, 512, 10, 10, 32, 32, 64
OF_MEASURES: dict[str, tuple[int, ...]] = {
    "n": (1000, 2500, 5000, 10000, 20000),
    "d": (128, 256, 512, 1024, 2048),
    "K": (5, 10, 50, 200, 1000),
}
OF_ATTACKS: dict[str, tuple[int, ...]] = {
    "steps": (1, 2, 5, 10, 20, 50),
    "side": (16, 32, 64, 128),
    "width": (16, 32, 64, 128),
    "batch": (8, 16, 32, 64, 128, 256),
}
ROUNDS = 3
LOOKS = (("o", "#0072b2"), ("s", "#d55e00"), ("^", "#009e73"))
"""Mark and colour of a curve; the colours are Okabe and Ito's, for every kind of sight."""
Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def sample(n: int, d: int, k: int) -> Sample:
    """Features, weights and labels."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=g).clamp(min=0), torch.randn(k, d, generator=g), torch.arange(n) % k


def icas(g: torch.Tensor, W: torch.Tensor, y: torch.Tensor) -> float:
    """The instance-wise score."""
    return attribution.cas(instances.instance_correlation(instances.nearest(g, W, y), y))


def cas(g: torch.Tensor, W: torch.Tensor, y: torch.Tensor) -> float:
    """The class-wise score."""
    return attribution.cas(attribution.correlation(attribution.class_means(g, W, y)))


MEASURES: dict[str, Callable[..., object]] = {
    "C and CAS": cas,
    "I-CAS": icas,
    "interval of CAS": intervals.cas,
}


def measures() -> dict[str, dict[str, dict[int, float]]]:
    """Seconds of every measure along every quantity."""
    found: dict[str, dict[str, dict[int, float]]] = {name: {} for name in MEASURES}
    for quantity, values in OF_MEASURES.items():
        standard = {"n": N, "d": D, "K": K}
        inputs = {v: sample(*(standard | {quantity: v}).values()) for v in values}
        for name, measure in MEASURES.items():
            jobs = {v: (lambda given=given, measure=measure: measure(*given)) for v, given in inputs.items()}
            found[name][quantity] = medians(jobs)
    return found


def attack() -> dict[str, dict[int, float]]:
    """Seconds of PGD along every quantity."""
    found = {}
    for quantity, values in OF_ATTACKS.items():
        jobs = {}
        for v in values:
            steps, side, width, batch = (
                {"steps": STEPS, "side": SIDE, "width": WIDTH, "batch": BATCH} | {quantity: v}
            ).values()
            settings = PreActResNet(width=width, stem=4, stem_stride=2, blocks=(1, 1, 1))
            like = torch.zeros(1, 3, side, side, dtype=torch.uint8)
            net = models.build(settings, like, 10, 0).eval().to(memory_format=torch.channels_last)
            x = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
            pgd, y = PGD(steps=steps, precision="bf16"), torch.arange(batch) % 10
            jobs[v] = lambda pgd=pgd, net=net, x=x, y=y: pgd(net, x, y)
        found[quantity] = medians(jobs)
    return found


def medians(jobs: dict[int, Callable[[], object]]) -> dict[int, float]:
    """Median seconds."""
    return {v: median(times) for v, times in in_turns(jobs, ROUNDS).items()}


def exponent(curve: dict[int, float]) -> float:
    """Slope over the larger half of the points."""
    points = sorted(curve.items())[len(curve) // 2 :]
    return linear_regression(*zip(*((math.log(v), math.log(s)) for v, s in points), strict=True)).slope


def grown(n: int, d: int, k: int) -> float:
    """MiB by which I-CAS raises the largest size of this process."""
    given = sample(n, d, k)
    icas(*sample(4 * k, d, k))  # what is loaded once
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the largest size starts anew (proc(5))
    before = resident("VmRSS")
    icas(*given)
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """MiB of this process, from /proc."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def memories() -> dict[int, dict[str, float]]:
    """`grown` at several n, in processes of their own, and without the two copies of the features."""
    found = {}
    for n in (5000, 10000, 20000, 40000):
        command = [sys.executable, __file__, "--memory", str(n), str(D), str(K)]
        done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
        whole = float(done.stdout)
        found[n] = {"all": whole, "beyond two copies of the features": whole - 2 * n * D * 4 / 2**20}
    return found


def draw(found: dict[str, Any], path: Path) -> None:
    """A panel per quantity, log-log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [*OF_MEASURES, *OF_ATTACKS]
    named = {"n": "images n", "d": "features d", "K": "classes K", "side": "side of the image, pixels"}
    figure, axes = plt.subplots(2, 4, figsize=(13, 6.4))
    for ax, quantity in zip(axes.flat, panels, strict=False):
        curves = {name: c[quantity] for name, c in found["seconds"].items() if quantity in c}
        for (name, curve), (mark, colour) in zip(curves.items(), LOOKS, strict=False):
            points = {int(v): s for v, s in curve.items()}
            label = f"{name}: {quantity}^{exponent(points):.2f}"
            ax.loglog(list(points), list(points.values()), marker=mark, color=colour, ms=4, label=label)
        ax.set_xticks(list(points), [f"{v:,}" for v in points], fontsize=8)
        ax.minorticks_off()
        ax.set_xlabel(named.get(quantity, quantity), fontsize=9)
        ax.set_ylabel("seconds", fontsize=9)
        ax.legend(fontsize=7.5, frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """All curves."""
    if sys.argv[1:2] == ["--memory"]:
        return print(grown(*map(int, sys.argv[2:5])))
    keep_freed_memory()
    seconds: dict[str, Any] = {**measures(), "PGD": attack()}
    slopes = {f"{name} in {q}": exponent(c) for name, curves in seconds.items() for q, c in curves.items()}
    found = {"seconds": seconds, "exponents": slopes, "I-CAS memory, MiB": memories()}
    found["threads"] = torch.get_num_threads()
    for name, curves in seconds.items():
        for quantity, curve in curves.items():
            told = "  ".join(f"{v}: {s:.4g}" for v, s in curve.items())
            print(f"{name} in {quantity}, exponent {exponent(curve):.2f}: {told}")
    print("I-CAS memory, MiB:", json.dumps(found["I-CAS memory, MiB"]))
    if out := write(found):
        draw(found, out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
