"""Calibrate `crossclass ablate` on pictures of known parts: benchmarks/ablation_calibration.py OUT.json."""

import json
import sys
from pathlib import Path

from crossclass.paper.ablation_calibration import Effort, judge_calibration, measure_calibration


def main(out: Path) -> None:
    """Write the numbers as they come, and the verdicts at the end."""
    effort = Effort()
    rows: dict = {"eps": effort.eps}
    numbers = measure_calibration(
        effort,
        lambda text: print(text, flush=True),
        lambda r: out.write_text(json.dumps(rows | {"rows": r}), encoding="utf-8"),
    )
    verdicts = [
        {"claim": v.claim, "verdict": v.verdict, "reason": v.reason} for v in judge_calibration(numbers)
    ]
    out.write_text(json.dumps(numbers | {"verdicts": verdicts}, indent=1) + "\n", encoding="utf-8")
    for v in verdicts:
        print(v)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
