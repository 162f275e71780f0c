"""What trying other ways to feed a network costs beside the attack that it precedes, on networks of others.

    python benchmarks/input_check.py FILE model=python:my_nets:factory data.path=DIR [n=10000,1000,500]
        [images=64] [steps=20] [threads=1] [out=FILE.json]

Both are timed in one process, in turns. The attack is timed on `images` images and scaled to n, the check as
it runs for n images. The file is measured as it is read, and with model.normalise=none.
"""

import sys
from statistics import median
from time import perf_counter
from typing import Any

import torch
from timing import write

from crossclass.analysis.evaluate import evaluate
from crossclass.analysis.settle_inputs import forward_passes, settle
from crossclass.attacks import PGD
from crossclass.checkpoints.load import LoadedCheckpoint, Source, load_checkpoints
from crossclass.core.runtime import Runtime
from crossclass.core.trust import trusting

DEFAULTS = {"n": "10000,1000,500", "images": "64", "steps": "20", "threads": "1", "out": ""}
ROUNDS = 3


def read(file: str, changes: dict[str, Any]) -> LoadedCheckpoint:
    """The checkpoint, as nobody says how it is normalised."""
    with trusting(everything=True):
        return next(load_checkpoints([file], Source(changes=changes), Runtime(device="cpu")))


def main() -> None:
    """Print one line for each n and way of feeding, and write the numbers."""
    file, *rest = sys.argv[1:]
    given = dict(text.split("=", 1) for text in rest)
    own = {key: given.pop(key, value) for key, value in DEFAULTS.items()}
    torch.set_num_threads(int(own["threads"]))
    attack, rows = PGD(steps=int(own["steps"])), []
    for fed in ("guess", "none"):
        more = {} if fed == "guess" else {"model.normalise": "none"}
        for n in map(int, own["n"].split(",")):
            checks, attacks, passes = [], [], 0
            for _ in range(ROUNDS):
                one = read(file, {**given, **more})
                part = one.splits.test.first(int(own["images"]))
                started = perf_counter()
                evaluate(one.model, part, attack)
                attacks.append((perf_counter() - started) / len(part) * n)
                started = perf_counter()
                out = settle(one, "test", [attack], n)
                checks.append(perf_counter() - started)
                passes = out.check.forward_passes if out.check else 0
            share = median(c / a for c, a in zip(checks, attacks, strict=True))
            row = {"fed": fed, "n": n, "check, s": median(checks), "attack, s": median(attacks)}
            row |= {"share": share, "forward passes": passes, "of": forward_passes([attack], n)}
            row |= {"warnings": list(out.warnings)}
            rows.append(row)
            times = f"check {median(checks):7.2f} s, attack {median(attacks):9.1f} s"
            print(f"{fed:6} n={n:6} {times}: {share:.2%}, {passes} forward passes", flush=True)
    write({"file": file.rsplit("/", 1)[-1], "settings": own, "rows": rows})


if __name__ == "__main__":
    main()
