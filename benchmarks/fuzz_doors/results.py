"""What a run and a measurement wrote."""

import json
from pathlib import Path
from typing import Any

from crossclass.analysis.records import CheckpointRef, DataRef, Measurement, ResultFile
from crossclass.analysis.result_files import load_results
from crossclass.analysis.run_record import load_run
from crossclass.paper import evidence as run_evidence

from .door import Door, of_bytes, written

ROW = {
    "epoch": 1,
    "lr": 0.1,
    "seconds": 1.0,
    "test_robust": 0.5,
    "cas": 1.5,
    "C": [[1, 0.2], [0.2, 1]],
    "warnings": [],
}


def measured() -> bytes:
    """What `measure` writes of two checkpoints, and what differs between them."""
    results = [
        Measurement(
            checkpoint=CheckpointRef(name=name, source=f"{name}.safetensors", epoch=epoch),
            data=DataRef(name="toy", n=9, split="test"),
            matrices={"C": [[1, 0.2], [0.2, 1]]},
            clean=0.5,
            robust=0.4,
            cas=1.0,
            intervals={"cas": (0.5, 1.5)},
        )
        for name, epoch in (("best.val", 1), ("last", 2))
    ]
    return as_json(ResultFile(results=results).to_dict())


def events(path: Path) -> object:
    """The log of a run, for the page."""
    (path.parent / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    return load_run(path.parent)


def proof(path: Path) -> object:
    """The evidence of a run."""
    for name, content in {
        "env.json": '{"seed": 0}',
        "matrices.json": "{}",
        "config.yaml": "lr_milestones: [1]",
    }.items():
        (path.parent / name).write_text(content, encoding="utf-8")
    (path.parent / "metrics.csv").write_text("epoch,lr\n1,0.1\n", encoding="utf-8")
    return run_evidence.read(path.parent)


def as_json(value: Any) -> bytes:
    """One line of JSON."""
    return json.dumps(value).encode()


def log() -> Door:
    """The rows of a run."""
    rows = as_json(ROW) + b"\n" + as_json({**ROW, "epoch": 2}) + b"\n"
    return of_bytes(lambda: [rows], written("events.jsonl", events), text=True)


def results() -> Door:
    """A measurement."""
    return of_bytes(lambda: [measured()], written("m.json", load_results), text=True)


def evidence() -> Door:
    """What a study keeps of a run."""
    return of_bytes(lambda: [measured()], written("measure.json", proof), text=True)


DOORS = {"log": log(), "results": results(), "evidence": evidence()}
