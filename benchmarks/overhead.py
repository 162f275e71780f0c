"""What of an epoch is not mathematics: python benchmarks/overhead.py [out=FILE.json].

`cifar10-mini` for six epochs on 1,000 random images, checked in the first and the last. Of the wall clock of
`train` from its first row to its last, everything that is crafting, gradients, optimizer or a check is
taken off; what stays (order, augmentation, noise, labels, watching for NaN, logs, resume states, checkpoints)
is the overhead of the whole loop, here as a share of an epoch without its check.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from timing import write

from crossclass.core.files import json_text
from crossclass.core.runtime import Runtime
from crossclass.data import Npz
from crossclass.paper import runs
from crossclass.training import epoch, loop, validation

EPOCHS, IMAGES = 6, 1000
PARTS = {
    "crafting and gradients": (epoch, "_backward"),
    "optimizer": (torch.optim.SGD, "step"),
    "checks": (validation, "validate"),
    "final evaluation": (loop, "final_evaluation"),
}


def timed(spent: defaultdict[str, float], name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, its seconds added up."""

    def run(*args: Any, **kwargs: Any) -> Any:
        started = perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            spent[name] += perf_counter() - started

    return run


def main() -> None:
    """Train, print, write."""
    spent: defaultdict[str, float] = defaultdict(float)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        for split, n in (("train", IMAGES), ("test", 100)):
            images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
            np.savez(Path(place) / f"{split}.npz", images=images, labels=np.arange(n) % 10)
        run = runs.named("cifar10-mini").replace(data=Npz(path=Path(place)), epochs=EPOCHS, lr_milestones=())
        run = run.replace(validation=run.validation.replace(every=EPOCHS))
        for name, (owner, attribute) in PARTS.items():
            new = timed(spent, name, getattr(owner, attribute))
            stack.enter_context(patch.object(owner, attribute, new))
        stream = loop.iterate_epochs(run, Path(place) / "runs", "overhead", Runtime(device="cpu"))
        next(stream)  # the first epoch warms up, and builds what is built once
        spent.clear()
        started = perf_counter()
        for _ in stream:
            pass
        whole = perf_counter() - started
    rest = whole - sum(spent.values())
    work = spent["crafting and gradients"] + spent["optimizer"]
    found = {
        "epochs": EPOCHS - 1,
        "seconds": {**spent, "everything else": rest},
        "seconds of an epoch": (work + rest) / (EPOCHS - 1),
        "overhead": rest / (work + rest),
        "threads": torch.get_num_threads(),
    }
    print(json_text(found))
    write(found)


if __name__ == "__main__":
    main()
