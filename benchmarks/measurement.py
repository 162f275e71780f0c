"""What C, CAS, I-CAS and their intervals cost, beside literal loops and the PGD-20 pass that feeds them.

    python benchmarks/measurement.py [n=10000] [d=512] [rounds=5] [threads=1] [images=128] [out=FILE.json]

All jobs are timed in turns within one process, so that a busy machine slows all alike; medians are shown.
The attack is timed on `images` images (an eighth of them for PreActResNet-18) and the literal I-CAS on 200
samples; both are scaled to n (linearly and quadratically), which the table marks. Nets and features are
random: times do not depend on their values.
"""

import platform
import sys
from collections.abc import Callable
from statistics import median

import torch
from timing import in_turns, write
from torch import Tensor
from torch.nn.functional import cosine_similarity

from crossclass.analysis import attribution, instances, intervals
from crossclass.attacks import PGD
from crossclass.models import PreActResNet

DEFAULTS = {"n": "10000", "d": "512", "rounds": "5", "threads": "1", "images": "128", "out": ""}
PAIRED = 200
NETS = {
    "thin net of cifar10-mini": (PreActResNet(width=32, stem_stride=2), 1),
    "PreActResNet-18": (PreActResNet(), 8),
}
"""Each net, and which fraction of the images it is timed on."""
Job = tuple[Callable[[], object], float]
"""What to run, and by how much its time is scaled."""


def class_scores(g: Tensor, W: Tensor, y: Tensor) -> float:
    """C and CAS."""
    return attribution.cas(attribution.correlation(attribution.class_means(g, W, y)))


def instance_scores(g: Tensor, W: Tensor, y: Tensor) -> float:
    """The instance-wise matrix and I-CAS."""
    return attribution.cas(instances.instance_correlation(instances.nearest(g, W, y), y))


def literal_class_scores(g: Tensor, W: Tensor, y: Tensor) -> float:
    """Algorithm 1 word for word: a vector for each image, a mean for each class, a cosine for each pair."""
    A = []
    for i in range(len(W)):
        total = torch.zeros(g.shape[1])
        members = (y == i).nonzero().flatten()
        for x in members:
            total += g[x] * W[i]
        A.append(total / len(members))
    pairs = [(i, j) for i in range(len(A)) for j in range(len(A)) if i != j]
    return sum(max(float(cosine_similarity(A[i], A[j], dim=0)), 0.0) for i, j in pairs)


def literal_instance_scores(g: Tensor, W: Tensor, y: Tensor) -> float:
    """Section 5.3 word for word: for each image its most similar one of each other class."""
    a = [g[x] * W[y[x]] for x in range(len(y))]
    members = [(y == i).nonzero().flatten().tolist() for i in range(len(W))]
    score = 0.0
    for of_i in members:
        for of_j in members:
            if of_j is not of_i and of_i and of_j:
                best = [max(float(cosine_similarity(a[x], a[z], dim=0)) for z in of_j) for x in of_i]
                score += max(sum(best) / len(best), 0.0)
    return score


def jobs(k: int, n: int, d: int) -> dict[str, Job]:
    """The measures of n samples of k classes."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(n, d, generator=generator).clamp(min=0)
    W = torch.randn(k, d, generator=generator)
    y = torch.arange(n) % k
    near, few = instances.nearest(g, W, y), min(PAIRED, n)
    return {
        "C and CAS": (lambda: class_scores(g, W, y), 1),
        "I-CAS": (lambda: instance_scores(g, W, y), 1),
        "all pairs": (lambda: instances.all_pairs(g, W, y), 1),
        "interval of CAS": (lambda: intervals.cas(g, W, y), 1),
        "interval of I-CAS": (lambda: intervals.icas(near, y), 1),
        "paired interval of CAS": (lambda: intervals.cas_difference((g, W), (g, W), y), 1),
        "C and CAS, literal": (lambda: literal_class_scores(g, W, y), 1),
        "I-CAS, literal": (lambda: literal_instance_scores(g[:few], W, y[:few]), (n / few) ** 2),
    }


def attack_jobs(images: int, n: int) -> dict[str, Job]:
    """PGD-20 on each net, scaled to n images."""
    generator, attack = torch.Generator().manual_seed(0), PGD(steps=20)
    out: dict[str, Job] = {}
    for name, (settings, fraction) in NETS.items():
        batch = max(1, images // fraction)
        x = torch.rand(batch, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
        model = settings(10, 3, (0.5,) * 3, (0.25,) * 3).eval().to(memory_format=torch.channels_last)

        def run(model: torch.nn.Module = model, x: Tensor = x) -> Tensor:
            return attack(model, x, torch.arange(len(x)) % 10, torch.Generator().manual_seed(0))

        out[name] = (run, n / batch)
    return out


def timed(table: dict[str, Job], rounds: int) -> dict[str, float]:
    """Median seconds of each job, scaled."""
    times = in_turns({name: job for name, (job, _) in table.items()}, rounds)
    return {name: median(times[name]) * factor for name, (_, factor) in table.items()}


def main(given: list[str]) -> None:
    """Time everything, print the table, write the numbers."""
    changes = dict(text.partition("=")[::2] for text in given)
    if unknown := set(changes) - set(DEFAULTS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(DEFAULTS)}")
    told = DEFAULTS | changes
    n, d, rounds, images = (int(told[key]) for key in ("n", "d", "rounds", "images"))
    torch.set_num_threads(int(told["threads"]))
    classes = (10, 200)
    table = {f"{name}, K={k}": job for k in classes for name, job in jobs(k, n, d).items()}
    attacks = {f"PGD-20, {name}": job for name, job in attack_jobs(images, n).items()}
    found = timed(table | attacks, rounds)
    print(f"{n} samples x {d} features, {told['threads']} thread(s), medians of {rounds} turns")
    for name, seconds in found.items():
        scaled = "  (scaled)" if (table | attacks)[name][1] != 1 else ""
        print(f"{name:42s} {seconds:12.3f} s{scaled}")
    shares = {}
    for k in classes:
        cost = found[f"C and CAS, K={k}"] + found[f"I-CAS, K={k}"]
        for name in attacks:
            shares[f"K={k} beside {name}"] = cost / found[name]
            print(f"C, CAS and I-CAS, K={k}, beside {name}: {cost / found[name]:.2%}")
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    write({**machine, **told, "seconds": found, "share_of_attack": shares})


if __name__ == "__main__":
    main(sys.argv[1:])
