"""Work an evaluation can leave out, and the gain: python benchmarks/avoided.py DATA FILE... [out=FILE.json]

DATA holds test.npz; each FILE is a checkpoint of ours, all of one architecture. Timed in turns, medians of
five rounds, robust accuracies beside the times:

    first        return_iterate=first attacks only images that are still classified rightly, beside =best,
                 which attacks every image to the end; the robust accuracy is the same
    stacked      all checkpoints in one call of torch.func.vmap, beside one after the other
    batch        the same images in batches of 64, 250 and 1,000
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from crossclass.attacks import PGD
from crossclass.checkpoints.load import load_model
from crossclass.data import Npz

ROUNDS, IMAGES = 5, 500


def in_turns(jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for i in range(ROUNDS + 1):
        for name, job in jobs.items():
            started = perf_counter()
            job()
            if i:
                times[name].append(perf_counter() - started)
    return {name: median(t) for name, t in times.items()}


def main(data: str, files: list[str], out: str) -> None:
    """Time, print, write."""
    test = Npz(path=Path(data))().test.first(IMAGES)
    x = (test.images.float() / 255).contiguous(memory_format=torch.channels_last)
    y = test.labels
    nets = [load_model(Path(f))[0].eval().to(memory_format=torch.channels_last) for f in files]
    net, found = nets[0], {}
    right: dict[str, float] = {}

    def attack(pgd: PGD, name: str, batch: int = 250) -> None:
        g = torch.Generator().manual_seed(0)
        parts = [pgd(net, a, b, g) for a, b in zip(x.split(batch), y.split(batch), strict=True)]
        with torch.no_grad():
            right[name] = float((net(torch.cat(parts)).argmax(1) == y).float().mean())

    jobs: dict[str, Callable[[], object]] = {}
    for restarts in (1, 5):
        for keep in ("best", "first"):
            name = f"PGD-20, {restarts} start{'s' * (restarts > 1)}, keep={keep}"
            pgd = PGD(steps=20, restarts=restarts, keep=keep)
            jobs[name] = lambda pgd=pgd, name=name: attack(pgd, name)
    for batch in (64, 1000):
        name = f"PGD-20, keep=last, batches of {batch}"
        jobs[name] = lambda batch=batch, name=name: attack(PGD(steps=20), name, batch)
    jobs["PGD-20, keep=last, batches of 250"] = lambda: attack(PGD(steps=20), "keep=last", 250)

    few, labels = x[:128], y[:128]
    parameters, buffers = stack_module_state(nets)

    def loss(p: dict[str, Tensor], b: dict[str, Tensor], z: Tensor) -> Tensor:
        logits = functional_call(net, (p, b), (z,))
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def stacked() -> None:
        z = few.expand(len(nets), *few.shape).contiguous().requires_grad_()
        torch.autograd.grad(vmap(loss)(parameters, buffers, z).sum(), z)

    def one_by_one() -> None:
        for each in nets:
            z = few.detach().requires_grad_()
            torch.autograd.grad(torch.nn.functional.cross_entropy(each(z), labels, reduction="sum"), z)

    jobs[f"a gradient of {len(nets)} nets, one after the other"] = one_by_one
    jobs[f"a gradient of {len(nets)} nets, stacked by vmap"] = stacked
    for each in nets:
        each.requires_grad_(False)
    found = in_turns(jobs)
    for name, seconds in found.items():
        print(f"{name:55} {seconds:8.3f} s  {f'{right[name]:.1%}' if name in right else ''}")
    if out:
        told = {"images": len(y), "seconds": found, "robust": right, "threads": torch.get_num_threads()}
        Path(out).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    given = [a for a in sys.argv[1:] if not a.startswith("out=")]
    if len(given) < 2:
        sys.exit(__doc__)
    main(given[0], given[1:], next((a[4:] for a in sys.argv if a.startswith("out=")), ""))
