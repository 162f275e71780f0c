"""Where a step of PGD spends its time: python benchmarks/profile_step.py [THREADS] [out=FILE.json].

For each network of the speed benchmark, bf16 crafting with channels-last: the share of convolutions and of all
else, operator by operator; the rate of the convolutions beside a matrix product in the same process; and the
share of that rate which the whole step would reach if everything but the convolutions were free. That is the
ceiling for anything that fuses or removes the rest.
"""

import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from speed import network, operations, product
from torch.profiler import ProfilerActivity, profile

from crossclass.attacks import PGD

STEPS, ROUNDS = 10, 5
GROUPS = {
    "convolutions": ("convolution", "conv2d"),
    "matrix products": ("mm", "linear", "scaled_dot_product", "flash_attention"),
    "batch norm": ("batch_norm",),
    "ReLU and its gradient": ("relu", "threshold"),
    "casts and copies": ("copy_", "to_copy", "clone", "contiguous"),
    "sums of branches": ("add",),
}


def group(name: str) -> str:
    """Of an operator."""
    return next((g for g, words in GROUPS.items() if any(w in name for w in words)), "everything else")


def profiled(name: str) -> dict[str, Any]:
    """One network."""
    model, x, y = network(name)
    model = model.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    pgd = PGD(steps=STEPS, precision="bf16")
    matrix, seconds = product(torch.bfloat16), []
    for job in (matrix, lambda: pgd(model, x, y)):
        job()
        times = []
        for _ in range(ROUNDS):
            started = perf_counter()
            job()
            times.append(perf_counter() - started)
        seconds.append(median(times))
    top, whole = 2 * 2048**3 / 1e9 / seconds[0], seconds[1]
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(ROUNDS):
            pgd(model, x, y)
    spent: dict[str, float] = {}
    for event in seen.key_averages():
        if event.key.startswith("aten::"):
            spent[group(event.key)] = spent.get(group(event.key), 0) + event.self_cpu_time_total / 1e6
    total = sum(spent.values())
    shares = {g: t / total for g, t in sorted(spent.items(), key=lambda pair: -pair[1])}
    work = 2 * STEPS * operations(model, x)
    heavy = shares.get("convolutions", 0) + shares.get("matrix products", 0)
    return {
        "ms per step": 1000 * whole / STEPS,
        "batch": len(x),
        "share of the bf16 matrix rate": work / whole / top,
        "the same if only convolutions and products took time": work / (whole * heavy) / top,
        "shares": shares,
    }


def main() -> None:
    """All networks."""
    out = next((a[4:] for a in sys.argv[1:] if a.startswith("out=")), "")
    if numbers := [a for a in sys.argv[1:] if a.isdigit()]:
        torch.set_num_threads(int(numbers[0]))
    found = {name: profiled(name) for name in ("thin net", "PreActResNet-18", "DeiT-Ti")}
    for name, told in found.items():
        print(f"{name}, batch {told['batch']}: {told['ms per step']:.1f} ms a step")
        print(f"  {told['share of the bf16 matrix rate']:5.0%}  of the bf16 matrix rate")
        print(
            f"  {told['the same if only convolutions and products took time']:5.0%}  if only they took time"
        )
        print(*(f"  {share:5.0%}  {group}" for group, share in told["shares"].items()), sep="\n")
    if out:
        Path(out).write_text(json.dumps({"threads": torch.get_num_threads(), "nets": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
