"""How often `robust-overfitting` is raised on whole runs: falsely where nothing falls, rightly where it does.

    python benchmarks/alarm_power.py > table.csv

Outcomes of n images at m checks are drawn: each image has a difficulty that drifts, each check its own noise
per image, and each network an accuracy that moves for all images at once. Sizes are those of the mini runs
(results/mini/runs/*/metrics.csv): a network moves by 3.5 points (standard deviation, from the covariance of
the second differences of validation and test accuracy) at the first learning rate, 0.57 after the first drop
and 0.1 after the second; neighbouring checks differ on 20, 4.5 and 1.2 % of the images (seen in a short run).

    flat      robust accuracy is 25 % throughout, also at the first learning rate: the hardest null, since the
              highest of its checks lie well above what comes later
    dropped   25 %, but 21 % at the first learning rate, as in real runs; with a fall, it begins at the drop
              and takes half of the run
    steady    one learning rate, that after the first drop
"""

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np
from scipy.special import ndtri

from crossclass.training.alarms.checks import Check
from crossclass.training.alarms.robust_overfitting import robust_overfitting

PHASES = {0.2: (0.035, 0.30, 0.02), 0.02: (0.0057, 0.015, 0.004), 0.002: (0.001, 0.001, 0.0005)}
"""Of a learning rate: movement of the network, share of noise in an image, of its drift between checks."""
LEVEL, RISE = 0.25, 0.04


def rates(kind: str, m: int) -> list[float]:
    """The learning rate of each check: dropped after a quarter and after three quarters of the run."""
    if kind == "steady":
        return [0.02] * m
    return [0.2] * (m // 4) + [0.02] * (m // 2) + [0.002] * (m - m // 4 - m // 2)


def run(kind: str, n: int, m: int, fall: float, draw: np.random.Generator) -> Iterator[Check]:
    """The checks of one run; `fall` is a share of the images."""
    hard = draw.standard_normal(n)
    for t, lr in enumerate(rates(kind, m)):
        network, noise, drift = PHASES[lr]
        hard = math.sqrt(1 - drift) * hard + math.sqrt(drift) * draw.standard_normal(n)
        level = LEVEL - RISE * (kind == "dropped" and lr == 0.2)
        level -= fall * min(1, max(0, (t - m // 4 - 1) / (m / 2 - 1)))
        z = math.sqrt(1 - noise) * hard + math.sqrt(noise) * draw.standard_normal(n)
        right = z < ndtri(min(0.99, max(0.002, level + network * draw.standard_normal())))
        yield Check(
            epoch=t + 1,
            part="val",
            n=n,
            robust=float(right.mean()),
            attack="PGD-10",
            train=0.3 + 0.002 * t,
            fgsm=None,
            fgsm_gap=None,
            fgsm_n=n,
            cosine=None,
            cas=None,
            predicted_classes=None,
            largest_share=None,
            lr=lr,
            correct=np.packbits(right).tobytes(),
        )


def raised(checks: list[Check]) -> bool:
    """Whether the alarm is raised at any check of a run of ten classes."""
    return any(robust_overfitting(checks[: i + 1], 10, set()) for i in range(len(checks)))


def main() -> None:
    """Print one line per cell: kind, checks, images, fall in points, runs, share of them with an alarm."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kinds", nargs="*", default=["flat", "dropped", "steady"])
    parser.add_argument("--checks", nargs="*", type=int, default=[10, 20, 80, 200])
    parser.add_argument("--images", nargs="*", type=int, default=[300, 500, 1000, 10_000])
    parser.add_argument("--falls", nargs="*", type=float, default=[0, 1, 2, 3, 5, 7, 10])
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()
    print("kind,checks,images,fall,runs,raised", flush=True)
    for m in arguments.checks:
        for n in arguments.images:
            for fall in arguments.falls:
                for kind in arguments.kinds:
                    draw = np.random.default_rng([m, n, round(100 * fall)])
                    count = sum(
                        raised(list(run(kind, n, m, fall / 100, draw))) for _ in range(arguments.runs)
                    )
                    share = count / arguments.runs
                    print(f"{kind},{m},{n},{fall:g},{arguments.runs},{share:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
