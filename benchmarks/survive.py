"""Kill it, again and again: python benchmarks/survive.py [KILLS] [SEED] [out=FILE.json].

Each campaign starts a command, kills its whole process group with SIGKILL at a random moment, looks at every
file that is left, and starts it again, until so many kills have been made and the command has finished.

    train      a run with a teacher, an average and remembered predictions
    writing    the same, killed just when a file is half written
    together   the same by two processes
    measure    a finished run
    sweep      eight small runs, two at a time
    reproduce  a figure with two runs at size smoke
    report     the page of a finished run

No file may be readable and wrong: a checkpoint loads or is refused, JSON parses, no half-written file has its
final name. At the end the weights and the numbers are those of a command that was never killed, bit for bit.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import write

from crossclass.checkpoints.card import load_checkpoint
from crossclass.core.errors import UserError

RUN = """\
data: {kind: shapes, n_train: 96, n_val: 24, n_test: 24, classes: 3, size: 16}
model: {kind: preactresnet, width: 4, stem_stride: 2, blocks: [1], normalise: data}
recipe: {kind: kd, inner: {kind: at, attack: {kind: pgd, steps: 2}}}
ensembling: {start: 2, ramp: 1}
weight_averaging: {kind: ema}
augment: null
epochs: 12
lr_milestones: [6]
batch: 8
checkpoint_every: 3
validation: {every: 2, attack: {kind: pgd, steps: 1}, final: {kind: pgd, steps: 2}}
"""
TRAIN = ["train", "run.yaml", "out=runs"]
TWO = """
import os, socket, subprocess, sys
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
ranks = [os.environ | world | {"RANK": r, "LOCAL_RANK": r} for r in "01"]
sys.exit(max(p.wait() for p in [subprocess.Popen(sys.argv[1:], env=e) for e in ranks]))
"""
"""Two processes of one command, in one process group (torchrun gives each its own)."""
CAMPAIGNS: dict[str, list[str]] = {
    "train": TRAIN,
    "writing": TRAIN,
    "together": TRAIN,
    "measure": ["measure", "runs", "attack.steps=30", "batch=6", "out=measure.json"],  # `runs`: see report
    "sweep": [
        "sweep",
        "run.yaml",
        "recipe.kind=at",
        "epochs=4",
        "lr_milestones=[2]",
        "seed=0,1,2,3",
        "label_smoothing=0,0.1",
        "jobs=2",
        "out=sweep",
    ],
    "reproduce": ["reproduce", "fig6", "size=smoke", "seeds=1", "out=results", "runs=study"],
    "report": ["report", "runs", "out=page.html"],  # `runs` becomes the finished run's folder
}


def campaign(name: str, arguments: list[str], kills: int, here: Path, luck: random.Random) -> dict[str, Any]:
    """Kill the command so often, then let it finish; what was seen."""
    usual, made, faults = whole_time(name, arguments, here.parent / f"{name}-whole"), 0, []
    started = time.monotonic()
    while made < kills:
        # most moments are in the work, not in the imports before it
        moment = luck.uniform(0.2, 1.05) * usual
        process = start(name, arguments, here)
        code = waited(process, moment, here if name == "writing" else None, luck)
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            made += 1
        else:
            if code:
                faults.append(f"exit code {code}")
                break
            forget(name, here)  # it finished before it could be killed: once more from the start
        faults += [f"after kill {made}: {text}" for text in broken(here)]
    code = start(name, arguments, here).wait()
    faults += [f"exit code {code} at the end"] if code else []
    same = contents(here) == contents(here.parent / f"{name}-whole")
    seconds = round(time.monotonic() - started)
    return {"kills": made, "seconds": seconds, "faults": faults, "as if never killed": same}


def waited(
    process: subprocess.Popen[bytes], moment: float, writes: Path | None, luck: random.Random
) -> int | None:
    """The exit code, or None when it is time to kill: after a moment, or (`writes`) within a file."""
    end = time.monotonic() + (60 if writes else moment)
    skip = luck.randrange(12)  # so many half-written files are let pass
    old = set(writes.rglob("*.tmp")) if writes else set()
    seen: set[Path] = set()
    while time.monotonic() < end:
        if process.poll() is not None:
            return process.returncode
        if writes:
            seen |= set(writes.rglob("*.tmp"))
            if len(seen - old) > skip:
                return None
        time.sleep(0.0005 if writes else 0.01)
    return None


def whole_time(name: str, arguments: list[str], there: Path) -> float:
    """Seconds of the command when it is left alone."""
    begun = time.monotonic()
    if start(name, arguments, there).wait():
        raise SystemExit(f"crossclass {' '.join(arguments)} fails by itself")
    return time.monotonic() - begun


def start(name: str, arguments: list[str], here: Path) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    command = [sys.executable, "-m", "crossclass", *arguments]
    if name == "together":
        command = [sys.executable, "-c", TWO, *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, cwd=here, stdout=quiet, stderr=quiet, start_new_session=True, env=environment
    )


def forget(name: str, here: Path) -> None:
    """Take the results away, so that there is something to kill again."""
    made = {"sweep": ["sweep"], "reproduce": ["results", "study"]}
    for part in made.get(name, ["runs"] if CAMPAIGNS[name] is TRAIN else []):
        shutil.rmtree(here / part, ignore_errors=True)


def broken(here: Path) -> list[str]:
    """Files that have their final name and cannot be read."""
    out = []
    for path in here.rglob("*"):
        if path.name.endswith(".tmp") or not path.is_file():  # a kill may leave those behind
            continue
        try:
            if path.suffix == ".safetensors":
                load_checkpoint(path)
            elif path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
        except (UserError, ValueError, OSError) as e:
            out.append(f"{path.relative_to(here)}: {e}")
    return out


def contents(here: Path) -> dict[str, Any]:
    """What must not depend on kills: weights, rows without their times, results, pages."""
    out: dict[str, Any] = {}
    for path in sorted(here.rglob("*")):
        name = str(path.relative_to(here))
        if path.suffix == ".safetensors" and "resume" not in path.parts:
            tensors, card = load_checkpoint(path)
            out[name] = ({k: v.numpy().tobytes() for k, v in tensors.items()}, card)
        elif path.name == "events.jsonl":
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            out[name] = [{k: v for k, v in r.items() if not k.endswith("seconds")} for r in rows]
        elif path.suffix in (".json", ".svg", ".yaml", ".html") and path.name != "env.json":
            out[name] = path.read_bytes()
    return out


def main() -> None:
    """All campaigns, each in folders of its own."""
    words = [a for a in sys.argv[1:] if "=" not in a]
    kills, seed = (int(a) for a in (words + ["60", "0"][len(words) :]))
    luck, found = random.Random(seed), {}
    shares = {
        "train": 0.25,
        "writing": 0.2,
        "together": 0.1,
        "measure": 0.1,
        "sweep": 0.15,
        "reproduce": 0.15,
    }
    shares["report"] = 1 - sum(shares.values())
    with tempfile.TemporaryDirectory() as parent:
        for name, arguments in CAMPAIGNS.items():
            places = [Path(parent) / name, Path(parent) / f"{name}-whole"]
            for place in places:
                place.mkdir()
                (place / "run.yaml").write_text(RUN, encoding="utf-8")
            if name in ("report", "measure"):
                runs = (Path(parent) / "train-whole" / "runs").iterdir()
                (run,) = (r for r in runs if "teacher" not in r.name)
                arguments = [str(run) if a == "runs" else a for a in arguments]
            found[name] = campaign(name, arguments, max(1, round(shares[name] * kills)), places[0], luck)
            print(f"{name:10} {found[name]}", flush=True)
    write({"seed": seed, "kills": sum(f["kills"] for f in found.values()), "campaigns": found})
    if any(f["faults"] or not f["as if never killed"] for f in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
