"""Measured on whole processes (for speed.py): start-up, memory, and what keeping freed memory gains."""

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from timing import in_turns, write

from crossclass import models
from crossclass.attacks import PGD
from crossclass.core.device import keep_freed_memory
from crossclass.models import PreActResNet, ViT, WideResNet
from crossclass.paper.runs.mini import THIN

NETS = {
    "thin net": (THIN, 64),
    "PreActResNet-18": (PreActResNet(), 32),
    "WideResNet-28-10": (WideResNet(depth=28, widen=10), 4),
    "DeiT-Ti": (ViT(), 16),
}
"""Each with the size of a batch."""
STARTS = {
    "python -c pass": ["-c", "pass"],
    "crossclass --help": ["-m", "crossclass", "--help"],
    "import torch": ["-c", "import torch"],
    "import crossclass": ["-c", "import crossclass"],
    "import crossclass, and use all of it": ["-c", "import crossclass; crossclass.PGD, crossclass.train"],
}


def network(name: str) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A random network in eval mode, and a batch that it classifies rightly; contiguous, float32."""
    settings, n = NETS[name]
    g = torch.Generator().manual_seed(0)
    model = models.build(settings, torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 10, 0).eval()
    x = torch.rand(n, 3, 32, 32, generator=g)
    with torch.no_grad():
        return model, x, model(x).argmax(dim=1)  # APGD leaves alone what is wrong already


def start(rounds: int) -> dict[str, float]:
    """Median seconds of whole processes."""

    def run(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    jobs = {name: partial(run, arguments) for name, arguments in STARTS.items()}
    return {name: median(times) for name, times in in_turns(jobs, rounds).items()}


def sizes(net: str = "PreActResNet-18") -> dict[str, float]:
    """MiB of processes that attack one batch by PGD-3, by ours in fp32 and bf16 and by the standard loop."""
    return {
        job: _alone("--size", net, job) for job in ("nothing", "ours, bf16", "ours, fp32", "standard loop")
    }


WAYS = ("ours, kept", "ours, given back", "standard loop, given back")
OTHERS = ("torchattacks", "foolbox", "ART")
"""Further ways, `NAME, given back`, of `python benchmarks/whole.py out=FILE.json [NET]`."""


def timed(net: str, ways: Sequence[str], rounds: int) -> dict[str, float]:
    """Median seconds of PGD-10 in processes of their own, in turns, by way."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, found in times.items():
            found.append(_alone("--time", net, way))
    return {way: median(t) for way, t in times.items()}


def as_they_come(net: str) -> dict[str, float]:
    """Median seconds of PGD-10 by ours and by others, each as it comes."""
    ways = ("ours, kept", "standard loop, given back", *(f"{name}, given back" for name in OTHERS))
    return {way.partition(",")[0]: seconds for way, seconds in timed(net, ways, 3).items()}


def allocator(rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of PGD-10: freed memory kept, as by our commands, or given back."""
    out: dict[str, dict[str, float]] = {}
    for net in ("thin net", "PreActResNet-18"):
        out[net] = timed(net, WAYS, rounds)
        first, *_, last = out[net].values()
        out[net]["standard loop as it comes, times ours"] = last / first
    return out


def _alone(*arguments: str) -> float:
    command = [sys.executable, __file__, *arguments, str(torch.get_num_threads())]
    return float(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)


def _size(net: str, job: str) -> float:
    """Attack a batch; the largest resident size of this process in MiB."""
    from peers import literal

    model, x, y = network(net)
    if "ours" in job:
        fast, images = (t.to(memory_format=torch.channels_last) for t in (model, x))
        PGD(steps=3, precision=job[-4:])(fast, images, y)
    elif job != "nothing":
        literal("linf", 8 / 255, 3)(model, x, y)
    status = Path("/proc/self/status").read_text("utf-8").splitlines()
    peak = next(w for w in status if w.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024  # getrusage would count the parent's memory before the exec


def _time(net: str, way: str) -> float:
    """Seconds of PGD-10 on a batch, the median of five calls after two."""
    from peers import peers

    if "kept" in way:
        keep_freed_memory()
    model, x, y = network(net)
    fast, images = (t.to(memory_format=torch.channels_last) for t in (network(net)[0], x))
    pgd, times = PGD(precision="bf16"), []
    other = None if "ours" in way else peers("linf", 8 / 255, 10)[way.partition(",")[0]]
    for _ in range(7):
        started = perf_counter()
        if other is None:
            pgd(fast, images, y)
        else:
            other(model, x, y)
        times.append(perf_counter() - started)
    return median(times[2:])


if __name__ == "__main__":
    if sys.argv[1].startswith("out="):
        net = sys.argv[2] if len(sys.argv) > 2 else "PreActResNet-18"
        write({"net": net, "threads": torch.get_num_threads(), "seconds": as_they_come(net)})
        sys.exit()
    what, *given, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print({"--size": _size, "--time": _time}[what](*given))
