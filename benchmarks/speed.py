"""How fast, beside every peer: python benchmarks/speed.py [quick|bench|full] [THREADS].

Writes benchmarks/results/speed-<size>.json and .svg, and prints the table.

One process measures all. The jobs of a block run in turns (a busy machine slows all alike) and the median of
the rounds is shown, with the ratio to ours, round by round. `share of bf16` is the job's ideal work
(operations of torch's own counter: a forward and an input gradient for each step) over its time, as a share
of what a bf16 matrix product reaches in the same block. Nets and images are random: times do not depend on
their values.

    attack     PGD on a batch: ours (bf16 and fp32, channels-last), the standard loop, every installed peer,
               and the fastest peer handed the same network in the same mode (bf16 autocast, channels-last)
    training   an epoch: AT, KD, TRADES, FGSM-RS, by our loop and by the standard loop written literally
    start      `crossclass --help`, and `import crossclass` beside `import torch`
    memory     the largest resident size of a process that attacks one batch
    allocator  our attack with freed memory kept by the process (core/device.py), as all of the above has it,
               the peers too, and given back to the system, as any process does that asks for nothing else

What C, CAS and I-CAS cost is measured by measurement.py.
"""

import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from epochs import epochs
from peers import SHARE, Attack, peers
from timing import in_turns
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from whole import NETS, allocator, network, sizes, start

from crossclass.attacks import PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.core.device import keep_freed_memory
from crossclass.core.files import json_text

Job = Callable[[], object]
Numbers = dict[str, Any]
EPS = {"linf": 8 / 255, "l2": 128 / 255}
SIZES: dict[str, dict[str, Any]] = {
    "quick": {"nets": ("thin net",), "norms": ("linf",), "steps": (10,), "rounds": 3, "training": ("AT",)},
    "bench": {
        "nets": ("thin net", "PreActResNet-18"),
        "norms": ("linf",),
        "steps": (10,),
        "rounds": 5,
        "training": ("AT", "KD", "TRADES", "FGSM-RS"),
    },
    "full": {
        "nets": tuple(NETS),
        "norms": ("linf", "l2"),
        "steps": (10, 20),
        "rounds": 3,
        "training": ("AT", "KD", "TRADES", "FGSM-RS"),
    },
}


def operations(model: nn.Module, x: Tensor) -> float:
    """Of one forward pass of the batch, in GFLOP."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() / 1e9


def matrix_product(dtype: torch.dtype, side: int = 2048) -> Job:
    """A matrix product of 17 GFLOP."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    return lambda: a @ b


def same_mode(attack: Attack) -> Attack:
    """A peer's attack on the same network in our mode: bf16 autocast, channels-last."""

    class Fast(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1).view(x.shape)  # its gradient is contiguous: some peers take .view() of it
            with torch.autocast("cpu", torch.bfloat16):
                return self.inner(x.contiguous(memory_format=torch.channels_last)).float()

    return lambda model, x, y: attack(Fast(model).eval(), x, y)


def attacks(net: str, norm: str, steps: int, rounds: int) -> Numbers:
    """One block: PGD on one batch."""
    model, x, y = network(net)
    fast = network(net)[0].to(memory_format=torch.channels_last)
    x_fast = x.contiguous(memory_format=torch.channels_last)
    threat = {"linf": Linf, "l2": L2}[norm](eps=EPS[norm])
    pgd = PGD(threat=threat, steps=steps, rel_step=SHARE[norm])
    jobs: dict[str, Job] = {
        "matrix product, bf16": matrix_product(torch.bfloat16),
        "matrix product, fp32": matrix_product(torch.float32),
    }
    jobs["ours, bf16"] = lambda: pgd.replace(precision="bf16")(fast, x_fast, y)
    jobs["ours, fp32"] = lambda: pgd(fast, x_fast, y)
    others = peers(norm, EPS[norm], steps)
    for name, attack in others.items():
        jobs[name] = lambda attack=attack: attack(model, x, y)
    if "torchattacks" in others:
        jobs["torchattacks, our mode"] = lambda: same_mode(others["torchattacks"])(fast, x, y)
    found = in_turns(jobs, rounds)
    ideal = 2 * steps * operations(model, x)
    return {
        "net": net,
        "norm": norm,
        "steps": steps,
        "batch": len(x),
        "GFLOP": ideal,
        "jobs": rated(found, "ours, bf16", dict.fromkeys(found, ideal), len(x)),
    }


def rated(found: dict[str, list[float]], ours: str, ideal: dict[str, float], images: int) -> list[Numbers]:
    """Median, images a second, rate, share of the matrix rate, and the ratio to ours."""
    top = 2 * 2048**3 / 1e9 / median(found["matrix product, bf16"])
    rows = []
    for name, times in found.items():
        matrix = name.startswith("matrix")
        work = 2 * 2048**3 / 1e9 if matrix else ideal[name]
        ratio = median(t / o for t, o in zip(times, found[ours], strict=True))
        rows.append(
            {
                "job": name,
                "seconds": median(times),
                "rounds": times,
                "images a second": None if matrix else images / median(times),
                "GFLOP/s": work / median(times),
                "share of bf16": work / median(times) / top,
                "times ours": None if matrix else ratio,
            }
        )
    return rows


def training(net: str, kinds: Sequence[str], rounds: int) -> Numbers:
    """One block: an epoch of every kind, by us and literally."""
    images = {"thin net": 512, "PreActResNet-18": 64}[net]
    model, x, _ = network(net)
    forward = operations(model, x) / len(x) * images
    jobs, work = epochs(NETS[net][0], NETS[net][1], images, kinds)
    found = in_turns({"matrix product, bf16": matrix_product(torch.bfloat16), **jobs}, rounds)
    ideal = {name: work[name] * forward for name in jobs} | {"matrix product, bf16": 0.0}
    rows = rated(found, f"{kinds[0]}, ours", ideal, images)
    for row in rows:
        kind = row["job"].partition(",")[0]
        if f"{kind}, ours" in found:
            pairs = zip(found[row["job"]], found[f"{kind}, ours"], strict=True)
            row["times ours"] = median(t / o for t, o in pairs)
    return {"net": net, "images": images, "jobs": rows}


def line(row: Numbers) -> str:
    """One row of the printed table."""
    speed = "" if row["images a second"] is None else f"{row['images a second']:9.1f}"
    ratio = "" if row["times ours"] is None else f"{row['times ours']:6.2f}"
    return (
        f"  {row['job']:26} {row['seconds']:9.3f} s {speed:>9} img/s {row['GFLOP/s']:8.1f} GFLOP/s "
        f"{row['share of bf16']:6.0%} {ratio:>6}"
    )


def main() -> None:
    """All blocks of a size."""
    size = sys.argv[1] if len(sys.argv) > 1 else "bench"
    if len(sys.argv) > 2:
        torch.set_num_threads(int(sys.argv[2]))
    keep_freed_memory()  # as our processes do; so the peers gain by it too
    asked, found = SIZES[size], Numbers(attack=[], training=[])
    for net in asked["nets"]:
        for norm in asked["norms"]:
            for steps in asked["steps"]:
                block = attacks(net, norm, steps, asked["rounds"])
                found["attack"].append(block)
                said = f"{net}, {norm}, PGD-{steps}, batch {block['batch']}"
                print(said, *map(line, block["jobs"]), sep="\n", flush=True)
    for net in asked["nets"][:2]:
        block = training(net, asked["training"], 3)
        found["training"].append(block)
        print(f"{net}, an epoch of {block['images']} images", *map(line, block["jobs"]), sep="\n", flush=True)
    whole = {"start": start(asked["rounds"]), "memory": sizes(), "allocator": allocator(asked["rounds"] - 2)}
    print(json_text(whole))
    found |= whole
    found["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    out = Path(__file__).parent / "results" / f"speed-{size}.json"
    out.write_text(json_text(found) + "\n", encoding="utf-8")
    draw(found, out.with_suffix(".svg"))


def draw(found: Numbers, path: Path) -> None:
    """Bars of images a second, one panel a block."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    blocks = [*found["attack"], *found["training"]]
    figure, axes = plt.subplots(len(blocks), 1, figsize=(7, 2.6 * len(blocks)), squeeze=False)
    for ax, block in zip(axes[:, 0], blocks, strict=True):
        rows = [r for r in block["jobs"] if r["images a second"]]
        speeds = [r["images a second"] for r in rows]
        colours = ["#0072b2" if "ours" in r["job"] else "#999999" for r in rows]
        bars = ax.barh([r["job"] for r in rows], speeds, color=colours)
        ax.bar_label(bars, [f"{s:,.0f}" if s >= 100 else f"{s:.3g}" for s in speeds], padding=3, fontsize=8)
        ax.invert_yaxis()
        what = f"{block['norm']}, PGD-{block['steps']}" if "norm" in block else "training epochs"
        ax.set_title(f"{block['net']}: {what}, images a second", fontsize=9, loc="left")
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
