"""The paper's experiments in order of value, within a time limit.

    python benchmarks/paper_scale.py DATA OUT [seconds=540] [size=paper] [seeds=1] [device=auto]

DATA holds cifar10/ (cifar100/, tiny_imagenet/ for the last steps), as `reproduce` wants it. Everything goes
below OUT: OUT/runs has the weights, OUT/results the small files to bring home. Call it again and again: what
is finished is not done twice, and what was cut off goes on after its last epoch. Exit code 0 when the time is
up or all is done (the last line says which), else that of the step that failed.

At size paper everything is crafted in bf16, the per-epoch checks too; what is reported is judged in fp32, and
the full evaluation crafts in fp32.

Before the machine is gone, every finished run has: the metrics and C of every checked epoch, C, CAS and I-CAS
of best and last on all test images, what its figures need, and AutoAttack on the first 1,000 test images.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

STEPS = (
    ("fig2", "fig10", "fig11"),  # wei2025-at-linf-8
    ("fig3ab",),  # distillation
    ("fig8",),  # l_2
    ("fig7",),  # fast AT
    ("fig9",),  # standard training
    ("fig1", "fig4"),  # eps 2, 4, 6
    ("table1",),  # eps 12, 16
    ("soft",),
    ("fig5",),  # CIFAR-100, Tiny-ImageNet
    ("all",),
)
OWN = {"seconds": "540", "size": "paper", "seeds": "1", "device": "auto"}
GRACE = 30
"""Seconds that a step has to end by itself; it needs no more than to finish writing."""
ATTACKED = {"paper": 1000, "mini": 200, "smoke": 8}
"""Test images under AutoAttack, by size."""


class TimeUpError(Exception):
    """The limit is reached; the same command goes on."""


def step(arguments: list[str], end: float) -> None:
    """Run a command until it is done, or stop it as a person would. Raises TimeUpError, SystemExit."""
    if time.monotonic() > end:
        raise TimeUpError
    print(f"$ {' '.join(arguments)}", flush=True)
    process = subprocess.Popen([sys.executable, *arguments])
    try:
        code = process.wait(max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()  # which it survives as well
            process.wait()
        raise TimeUpError from None
    if code:
        raise SystemExit(code)


def autoattacks(out: Path, size: str) -> Iterator[list[str]]:
    """A command for every finished run that has not been attacked."""
    for done in sorted((out / "runs").glob("*/DONE")):
        run, place = done.parent, out / "results" / size / "runs" / done.parent.name
        if place.is_dir() and not (place / "autoattack.json").exists():
            settings = ["attack.kind=autoattack", f"n={ATTACKED[size]}", f"out={place / 'autoattack.json'}"]
            yield ["-m", "crossclass", "measure", str(run), *settings]


def main() -> None:
    """Every step, as far as the time goes."""
    words = sys.argv[1:]
    own = OWN | dict(w.split("=", 1) for w in words if "=" in w)
    places = [Path(w) for w in words if "=" not in w]
    if len(places) != 2 or set(own) != set(OWN) or own["size"] not in ATTACKED:
        raise SystemExit("usage: paper_scale.py DATA OUT [seconds=540] [size=paper|mini|smoke] [seeds=1] ...")
    data, out = places
    end, here = time.monotonic() + float(own["seconds"]) - GRACE, Path(__file__).parent
    study = [f"size={own['size']}", f"seeds={own['seeds']}", f"out={out / 'results'}", f"runs={out / 'runs'}"]
    study += [] if own["size"] == "smoke" else [f"data_root={data}"]
    study += ["crafting=bf16"] if own["size"] == "paper" else []  # a third of the time on tensor cores
    device = [f"runtime.device={own['device']}"]
    try:
        checked = out / "results" / "device.json"
        if not checked.exists():
            step([str(here / "device_check.py"), own["device"], str(checked)], end)
        ended = out / "results" / f"steps-{own['size']}.txt"
        for ids in STEPS:
            said = f"{' '.join(ids)} seeds={own['seeds']}\n"
            if ended.exists() and said in ended.read_text("utf-8"):
                continue
            step(["-m", "crossclass", "reproduce", *ids, *study, *device], end)
            for command in autoattacks(out, own["size"]):
                step([*command, *device], end)
            with ended.open("a", encoding="utf-8") as f:
                f.write(said)
    except TimeUpError:
        print("time is up; the same command goes on", flush=True)
        return
    print("all is done", flush=True)


if __name__ == "__main__":
    main()
