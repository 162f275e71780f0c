"""What a GPU makes of an epoch, variant by variant: python benchmarks/gpu.py [auto|cuda|cpu] [out=FILE.json].

PreActResNet-18, PGD-10 AT, batch 128, CIFAR-10's shapes. Crafting alone, then whole steps by our own epoch,
each over some batches (fewer on a CPU, where this only proves that it runs), scaled to the 391 of an epoch:

    eager, compiled      our PGD in fp32 and bf16, channels-last; `torch.compile` in its default mode and in
                         "reduce-overhead", which replays CUDA graphs
    one graph            all ten steps captured as one CUDA graph with fixed tensors: no launches, no host
    our epoch            `train_epoch` as a run has it: eager, and with runtime.compile=true
    optimizer            SGD as it is, and fused

Beside them: what a bf16 matrix product reaches here, and the ideal time of an epoch at that rate. The order
in which to go on is written in docs/speed.md.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossclass import models
from crossclass.attacks import PGD
from crossclass.core.progress import silent
from crossclass.core.runtime import Runtime
from crossclass.data import Npz, Split, Splits
from crossclass.models import PreActResNet
from crossclass.models.model_state import frozen
from crossclass.training.epoch import train_epoch
from crossclass.training.recipes import AT
from crossclass.training.run import Run
from crossclass.training.state import TrainState

BATCH, STEPS, EPS, PER_EPOCH = 128, 10, 8 / 255, 391
GFLOP = 25.55 * 50000
"""Of an ideal epoch: ten input gradients and one of the weights, 50,000 images."""


def ascend(net: nn.Module, x: Tensor, delta: Tensor, y: Tensor) -> Tensor:
    """PGD as in attacks/pgd.py (l_inf, CE, the start given), without a branch, so that it can be captured."""
    for _ in range(STEPS):
        x_adv = (x + delta).clamp(0, 1).detach().requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16):
            loss = F.cross_entropy(net(x_adv).float(), y, reduction="sum")
        (g,) = torch.autograd.grad(loss, x_adv)
        delta = (x_adv.detach() - x + 0.25 * EPS * g.sign()).clamp(-EPS, EPS)
    return (x + delta).clamp(0, 1)


def captured(net: nn.Module, x: Tensor, delta: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """A replay of `ascend` as one CUDA graph; inputs are copied into its fixed tensors before each replay."""
    fixed = x.clone(), delta.clone(), y.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            ascend(net, *fixed)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = ascend(net, *fixed)

    def replay() -> Tensor:
        for place, new in zip(fixed, (x, delta, y), strict=True):
            place.copy_(new)
        graph.replay()
        return out

    return replay


def seconds(job: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median of one call, after two that warm up."""
    times = []
    for _ in range(rounds + 2):
        started = perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(perf_counter() - started)
    return median(times[2:])


def crafting(device: torch.device, batch: int, rounds: int) -> dict[str, float]:
    """Seconds of crafting a batch."""
    net = models.build(PreActResNet(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 10, 0).eval()
    net = net.to(device).to(memory_format=torch.channels_last)
    x = torch.rand(batch, 3, 32, 32).to(device).contiguous(memory_format=torch.channels_last)
    y = torch.arange(batch, device=device) % 10
    delta = (2 * torch.rand_like(x) - 1) * EPS
    pgd = PGD(steps=STEPS)
    found = {
        "eager, fp32": seconds(lambda: pgd(net, x, y), device, rounds),
        "eager, bf16": seconds(lambda: pgd.replace(precision="bf16")(net, x, y), device, rounds),
    }
    with frozen(net):
        plain = ascend(net, x, delta, y)
        found["without branches, bf16"] = seconds(lambda: ascend(net, x, delta, y), device, rounds)
        if device.type == "cuda":
            replay = captured(net, x, delta, y)
            found["one graph, bf16"] = seconds(replay, device, rounds)
            found["one graph: share of pixels that differ"] = float((replay() != plain).float().mean())
    if device.type == "cuda":
        for mode in ("default", "reduce-overhead"):
            compiled = torch.compile(net, mode=mode)
            attack = pgd.replace(precision="bf16")
            found[f"compiled, {mode}, bf16"] = seconds(lambda: attack(compiled, x, y), device, rounds)  # noqa: B023
    return found


def epochs(device: torch.device, batch: int, batches: int) -> dict[str, float]:
    """Seconds of some batches of our own epoch, after one such epoch that warms up."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch * batches, 3, 32, 32), generator=g, dtype=torch.uint8)
    part = Split(images, torch.arange(len(images)) % 10).to(device)
    splits = Splits(part, part.first(10), part.first(10), tuple("0123456789"), "")
    found = {}
    for name, compile_ in (("eager", False), ("compiled", True)):
        if compile_ and device.type != "cuda":
            continue
        recipe = AT(attack=PGD(steps=STEPS, precision="bf16"))
        run = Run(data=Npz(), recipe=recipe, batch=batch, precision="bf16")
        kind: Any = device.type
        runtime = Runtime(device=kind, compile=compile_)
        net = models.build(run.model, images[:1], 10, 0)
        state = TrainState(run, runtime, net, len(part), 10)  # type: ignore[arg-type]

        def job(state: TrainState = state, recipe: AT = recipe) -> None:
            train_epoch(recipe, state, splits, 1, silent, lambda text: None)

        found[f"our epoch, {name}"] = seconds(job, device, 3) / batches
    return found


def optimizers(device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of a step of SGD."""
    found = {}
    for name, options in (("as it is", {}), ("fused", {"fused": True})):
        net = models.build(PreActResNet(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 10, 0).to(device)
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, **options)
        found[f"SGD, {name}"] = seconds(sgd.step, device, rounds)
    return found


def main() -> None:
    """All variants."""
    asked: Any = next((a for a in sys.argv[1:] if not a.startswith("out=")), "auto")
    device = Runtime(device=asked).torch_device
    fast = device.type == "cuda"
    batch, batches, rounds, side = (BATCH, 20, 10, 8192) if fast else (4, 2, 1, 1024)
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    rate = 2 * side**3 / 1e9 / seconds(lambda: a @ b, device, rounds)
    found = {
        **crafting(device, batch, rounds),
        **epochs(device, batch, batches),
        **optimizers(device, rounds),
    }
    scaled = {
        name: s if "share" in name else s * PER_EPOCH * (BATCH / batch if "SGD" not in name else 1)
        for name, s in found.items()
    }
    told = {
        "device": torch.cuda.get_device_name() if fast else device.type,
        "torch": torch.__version__,
        "bf16 matrix product, TFLOP/s": rate / 1000,
        "ideal epoch at that rate, seconds": GFLOP / rate,
        "seconds of an epoch (391 batches of 128)": scaled,
    }
    print(json.dumps(told, indent=1))
    out = next((a[4:] for a in sys.argv[1:] if a.startswith("out=")), "")
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
