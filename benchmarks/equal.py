"""Crafting in bf16 beside crafting in fp32, on the same images from the same noise:

    python benchmarks/equal.py RUN[@CHECKPOINT] DATA [n=10000] [steps=20] [threads=2]

DATA holds train.npz and test.npz. Both kinds of images are judged in fp32; the attack is PGD in the run's
ball. Writes benchmarks/results/equal.json: robust accuracies with their paired difference (95 %), how many
images are right under one and wrong under the other, the largest difference in C, and both CAS.
"""

import json
import sys
from pathlib import Path
from typing import Any

from crossclass.analysis import attribution, evaluate, intervals
from crossclass.attacks import PGD
from crossclass.checkpoints.load import Source, load_checkpoints
from crossclass.core.runtime import Runtime


def compared(target: str, data: str, n: int, steps: int, runtime: Runtime) -> list[dict[str, Any]]:
    """One object for each checkpoint that the target stands for."""
    out = []
    source = Source(changes={"data.path": data, "data.n_test": n, "data.checksum": None})
    for subject in load_checkpoints([target], source, runtime):
        threat = subject.threats[0]
        attacks = [PGD(threat=threat, steps=steps, precision=p) for p in ("fp32", "bf16")]
        high, low = (
            evaluate.evaluate(subject.model, subject.splits.test, a, memory_format=runtime.memory_format)
            for a in attacks
        )
        right = [e.robust == e.labels for e in (high, low)]
        difference = intervals.accuracy_difference(right[1], right[0])
        out.append(
            {
                "checkpoint": subject.about.checkpoint,
                "run": subject.about.run,
                "attack": str(attacks[0]),
                "n": len(high.labels),
                "robust, fp32": float(right[0].double().mean()),
                "robust, bf16": float(right[1].double().mean()),
                "bf16 minus fp32": difference._asdict(),
                "right under fp32 only": int((right[0] & ~right[1]).sum()),
                "right under bf16 only": int((right[1] & ~right[0]).sum()),
                "C, largest difference": float((high.C - low.C).abs().max()),
                "CAS": [attribution.cas(high.C), attribution.cas(low.C)],
            }
        )
    return out


def main() -> None:
    """Compare, print, write."""
    words = [w for w in sys.argv[1:] if "=" not in w]
    own = {"n": "10000", "steps": "20", "threads": "2"} | dict(
        w.split("=", 1) for w in sys.argv[1:] if "=" in w
    )
    runtime = Runtime(device="cpu", threads=int(own["threads"]))
    found = compared(words[0], words[1], int(own["n"]), int(own["steps"]), runtime)
    for one in found:
        print(json.dumps(one, indent=1))
    (Path(__file__).parent / "results" / "equal.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
