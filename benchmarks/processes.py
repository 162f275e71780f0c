"""Two processes with one thread each, beside one with two: python benchmarks/processes.py DIR [ROUNDS].

DIR holds train.npz and test.npz of CIFAR-10. Writes benchmarks/results/processes.json.

Both train the first epochs of cifar10-mini from the command line, in turns; the times are those of the log
(training alone, the first epoch left out). Batch norm sees 32 images a process there and 64 here, so the two
are different runs; that weights agree where it does not matter is shown by tests/training/test_processes.py.
"""

import csv
import os
import platform
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch

from crossclass.core.files import json_text

EPOCHS = 4
COMMON = [
    "train",
    "cifar10-mini",
    f"epochs={EPOCHS}",
    "lr_milestones=[2]",
    "validation.every=9",
    "validation.n=100",
]
WAYS = {"1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}


def train(where: Path, data: str, processes: int, threads: int, out: Path) -> float:
    """Median seconds of an epoch."""
    command = [sys.executable, "-m", "crossclass", *COMMON, f"data.path={data}", f"out={out}"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": str(threads)}
    world |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)} if processes > 1 else {}
    started = [
        subprocess.Popen(
            command,
            cwd=where,
            env=os.environ | world | ({"RANK": str(r), "LOCAL_RANK": str(r)} if processes > 1 else {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for r in range(processes)
    ]
    if any(p.wait() for p in started):
        raise SystemExit(f"crossclass {' '.join(COMMON)} fails")
    (table,) = out.glob("*/metrics.csv")
    with table.open(encoding="utf-8") as f:
        return median(float(row["seconds"]) for row in list(csv.DictReader(f))[1:])


def main() -> None:
    """In turns, and the ratio."""
    data, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as place:
        for i in range(rounds):
            for way, (processes, threads) in WAYS.items():
                out = Path(place) / f"{processes}-{i}"
                times[way].append(train(Path(place), str(Path(data).absolute()), processes, threads, out))
                print(f"{way:28} {times[way][-1]:.2f} s an epoch", flush=True)
    one, two = (median(times[way]) for way in WAYS)
    found = {
        "what": f"PGD-7 AT of cifar10-mini, 1,000 images, batch 64, epochs 2 to {EPOCHS}",
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "seconds an epoch": times,
        "efficiency (time of one process over time of two)": round(one / two, 3),
    }
    print(f"efficiency {one / two:.2f}")
    out = Path(__file__).parent / "results" / "processes.json"
    out.write_text(json_text(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
