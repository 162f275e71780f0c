"""What the theory costs: all closed forms on a million settings, the truth table, the independent ways.

    python benchmarks/theory.py [n=1000000] [rounds=5] [out=FILE.json]

The settings are random admissible (mu, sigma, eps, beta). The closed forms are those of the smoothed loss:
optimum, eps0, eps1, the loss at the optimum, P_pair and P_all. Medians of `rounds` are shown, in seconds of
the clock and of the processor, which differ on a busy machine; the truth table is timed once.

Expected: under a second for a million settings, half of it Owen's T function; a few seconds for the truth
table, most of it descents on samples.
"""

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import scipy

from crossclass.paper.theory import closed, descent, montecarlo, samples
from crossclass.paper.theory.setting import PAPER, admissible
from crossclass.paper.theory.truth_table import truth_table

DEFAULTS = {"n": "1000000", "rounds": "5", "out": ""}
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def settings(n: int) -> Arrays:
    """n random admissible settings (mu, sigma, eps, beta)."""
    rng = np.random.default_rng(0)
    mu = rng.uniform(0.5, 2, n)
    shares = rng.uniform(0.001, 0.999, (3, n))
    drawn = mu, shares[0] * np.sqrt(np.pi) * mu, shares[1] * mu / 2, shares[2] / 3
    assert admissible(*drawn).all()
    return drawn


def closed_forms(mu: np.ndarray, sigma: np.ndarray, eps: np.ndarray, beta: np.ndarray) -> list[np.ndarray]:
    """Everything that a figure of the theory could ask for."""
    w = closed.optimum(mu, sigma, eps, 1.0, beta)
    out = [
        *w,
        closed.eps0(mu, sigma),
        closed.eps1(mu, sigma, beta),
        closed.loss(*w, mu, sigma, eps, 1.0, beta),
    ]
    out += [closed.p_pair(*w, mu, sigma, eps), closed.p_all(*w, mu, sigma, eps)]
    return [np.asarray(a) for a in out]


def jobs(n: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    at = settings(n)
    w = closed.optimum(*at[:3])
    x, y = samples.draw(4000, 1.0, 0.9, PAPER, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    return {
        f"all closed forms, {n:,} settings": lambda: closed_forms(*at),
        f"P_all alone, {n:,} settings": lambda: closed.p_all(*w, *at[:3]),
        f"ratio_best, {n // 10:,} settings": lambda: closed.ratio_best(
            ((at[0] - 2 * at[2]) / at[1])[: n // 10]
        ),
        "Monte Carlo loss, 60,000 samples, by signs": lambda: montecarlo.loss(
            0.7, 0.3, 1.0, 0.9, 0.15, 60_000, rng
        ),
        "worst of all 64 corners, 4,000 samples": lambda: samples.worst_of_corners(
            x, y, 0.7, 0.3, 0.15, 0.25
        ),
        "descent, 4,000 samples": lambda: descent.descend(x, y, 0.15),
    }


def main(arguments: list[str]) -> int:
    """Time each job in turns, print a table, write `out`."""
    given = {**DEFAULTS, **dict(a.split("=", 1) for a in arguments)}
    work, seconds = jobs(int(given["n"])), {}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    table = {}

    def timed(job: Callable[[], object]) -> tuple[float, float]:
        began = time.perf_counter(), time.process_time()
        job()
        return time.perf_counter() - began[0], time.process_time() - began[1]

    for _ in range(int(given["rounds"])):
        for name, job in work.items():
            taken[name].append(timed(job))
    taken["truth table"] = [timed(lambda: table.update(truth_table()))]
    for name, pairs in taken.items():
        clock, processor = (median(t) for t in zip(*pairs, strict=True))
        seconds[name] = {"clock": clock, "processor": processor}
        print(f"{name:45} {clock:7.3f} s, processor {processor:7.3f} s")
    words = [row.verdict for rows in table.values() for row in rows]
    counts = {word: words.count(word) for word in ("holds", "does not hold", "undecided")}
    print("truth table: " + ", ".join(f"{n} {word}" for word, n in counts.items()))
    if given["out"]:
        record = {
            "processor": platform.processor() or platform.machine(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "n": given["n"],
            "rounds": given["rounds"],
            "seconds": seconds,
            "words": counts,
        }
        Path(given["out"]).write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
