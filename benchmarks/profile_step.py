"""Where a step of PGD spends its time: python benchmarks/profile_step.py [THREADS] [out=FILE.json].

For each network of the speed benchmark, bf16 crafting with channels-last: the share of convolutions and of
all else, operator by operator, and the rate of the whole and of the convolutions beside a bf16 matrix product
in the same process. The rate of the convolutions alone is the ceiling for whatever fuses or removes the rest.

Each operator is timed where it is dispatched (on a CPU it is finished when it returns), which costs two
microseconds; torch's own profiler stretched the small ones several times over.
"""

import sys
from collections import defaultdict
from statistics import median
from time import perf_counter
from typing import Any

import torch
from speed import matrix_product, operations
from timing import write
from torch.utils._python_dispatch import TorchDispatchMode
from whole import network

from crossclass.attacks import PGD
from crossclass.core.device import keep_freed_memory

STEPS, ROUNDS = 10, 7
GROUPS = {
    "convolutions": ("convolution",),
    "matrix products": ("mm", "linear", "attention"),
    "batch norm": ("batch_norm",),
    "layer norm, GELU, softmax": ("layer_norm", "gelu", "softmax"),
    "ReLU and its gradient": ("relu", "threshold"),
    "casts and copies": ("copy", "clone"),
    "sums of branches": ("add",),
}
CEILING = "only convolutions and products"


class Timed(TorchDispatchMode):
    """Seconds of each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: defaultdict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = perf_counter()
        out = func(*args, **(kwargs or {}))
        self.spent[str(func)] += perf_counter() - started
        return out


def group(name: str) -> str:
    """Of an operator."""
    return next((g for g, words in GROUPS.items() if any(w in name for w in words)), "everything else")


def profiled(name: str) -> dict[str, Any]:
    """One network."""
    model, x, y = network(name)
    model = model.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    pgd, matrix = PGD(steps=STEPS, precision="bf16"), matrix_product(torch.bfloat16)
    jobs = (matrix, lambda: pgd(model, x, y))
    times: tuple[list[float], list[float]] = ([], [])
    spent: defaultdict[str, list[float]] = defaultdict(list)
    for i in range(ROUNDS + 1):
        for job, found in zip(jobs, times, strict=True):
            started = perf_counter()
            job()
            found.append(perf_counter() - started)
        with Timed() as mode:
            pgd(model, x, y)
        for key in GROUPS | {"everything else": ()} if i else ():
            spent[key].append(sum(s for op, s in mode.spent.items() if group(op) == key))
    top, whole = 2 * 2048**3 / 1e9 / median(times[0][1:]), median(times[1][1:])
    seconds = {key: median(values) for key, values in spent.items()}
    seconds["between operators"] = max(0.0, whole - sum(seconds.values()))
    work = 2 * STEPS * operations(model, x)
    heavy = seconds["convolutions"] + seconds["matrix products"]
    return {
        "batch": len(x),
        "ms per step": 1000 * whole / STEPS,
        "of the bf16 matrix rate": {"the whole step": work / whole / top, CEILING: work / heavy / top},
        "share of time": {k: s / whole for k, s in sorted(seconds.items(), key=lambda p: -p[1])},
    }


def main() -> None:
    """All networks."""
    if numbers := [a for a in sys.argv[1:] if a.isdigit()]:
        torch.set_num_threads(int(numbers[0]))
    keep_freed_memory()  # as in every process that trains or measures
    found = {name: profiled(name) for name in ("thin net", "PreActResNet-18", "DeiT-Ti")}
    for name, told in found.items():
        print(f"{name}, batch {told['batch']}: {told['ms per step']:.1f} ms a step; bf16 matrix rate:")
        print(
            *(f"  {share:5.0%}  {what}" for what, share in told["of the bf16 matrix rate"].items()), sep="\n"
        )
        print("  time:")
        print(*(f"  {share:5.0%}  {what}" for what, share in told["share of time"].items()), sep="\n")
    write({"threads": torch.get_num_threads(), "nets": found})


if __name__ == "__main__":
    main()
