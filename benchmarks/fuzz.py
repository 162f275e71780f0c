"""Bad input, by the tens of thousands: python benchmarks/fuzz.py [COUNT] [SEED] [door=NAME] [out=FILE.json].

The doors are in `fuzz_doors`. Good files and good settings are damaged at random (bits, cuts, splices,
numbers that overflow, tokens of YAML) and handed to every door through which a stranger's input comes in;
other doors draw their input themselves. Each input must be read, or refused by one sentence; never another
exception, never more than ten seconds, never a file, a process or a connection that nobody asked for. The
memory is limited, so that a header that promises a terabyte has to be refused.
"""

import math
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from fuzz_doors import DOORS
from timing import write

from crossclass.core.errors import UserError
from crossclass.data import cifar, download as archive, tiny_imagenet

SECONDS, MEMORY = 10, 6 * 2**30  # of processor time: a busy machine is no fault


class HangError(BaseException):
    """It took too long; no `except Exception` may swallow it."""


@contextmanager
def guarded(outside: Path) -> Iterator[list[str]]:
    """Nobody may start a process, open a connection, or leave something in a folder beside."""
    asked: list[str] = []

    def refused(what: str) -> Callable[..., NoReturn]:
        def refuse(*args: Any, **kwargs: Any) -> NoReturn:
            asked.append(f"{what} {args[:2]}")
            raise PermissionError(what)

        return refuse

    def late(*_: Any) -> NoReturn:
        raise HangError

    places = [(os, "system"), (subprocess, "Popen"), (socket.socket, "connect")]
    kept = [(owner, name, getattr(owner, name)) for owner, name in places]
    before, handler = set(outside.iterdir()), signal.signal(signal.SIGPROF, late)
    believed = archive.verified, cifar.verified, tiny_imagenet.verified
    limits = resource.getrlimit(resource.RLIMIT_AS)
    try:
        for owner, name, _ in kept:
            setattr(owner, name, refused(name))
        for module in (archive, cifar, tiny_imagenet):
            module.verified = lambda path, md5, copy: path.read_bytes()  # type: ignore[attr-defined]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, limits[1]))
        yield asked
        asked += [f"left {path}" for path in set(outside.iterdir()) - before]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for owner, name, value in kept:
            setattr(owner, name, value)
        archive.verified, cifar.verified, tiny_imagenet.verified = believed  # type: ignore[attr-defined]
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def fuzz(name: str, count: int, seed: int, home: Path) -> dict[str, Any]:
    """So many bad inputs through one door; how many were read and refused, and what went wrong."""
    door = DOORS[name]
    inputs = door.inputs(random.Random(f"{name} {seed}"))
    counts, faults, slowest = {"read": 0, "refused": 0}, list[str](), 0.0
    outside, inside = home / "outside", home / "outside" / "inside"
    inside.mkdir(parents=True)
    here = Path.cwd()
    os.chdir(inside)
    try:
        with guarded(outside) as asked, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about the damage
            for i, given in enumerate(islice(inputs, count)):
                place = inside / "in"
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                started = time.process_time()
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    door.enter(place, given)
                    counts["read"] += 1
                except UserError as e:
                    counts["refused"] += 1
                    if not str(e).isprintable() or len(str(e)) > 3000:
                        faults.append(f"input {i}: a sentence of {len(str(e))} characters: {str(e)[:200]!r}")
                except HangError:
                    faults.append(f"input {i}: more than {SECONDS} s")
                except BaseException:
                    faults.append(f"input {i}: {traceback.format_exc(limit=-3)}")
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
                slowest = max(slowest, time.process_time() - started)
                left = [p.name for p in inside.iterdir() if p.name != "in"]
                if left:
                    faults.append(f"input {i} left {left}")
                    shutil.rmtree(inside, ignore_errors=True)
                    inside.mkdir()
        faults += asked
        if not counts["read"]:
            faults.append("no input was read, not even the good ones that come first")
    finally:
        os.chdir(here)
    return {"inputs": count, **counts, "slowest seconds": round(slowest, 2), "faults": faults}


def main() -> None:
    """Every door in turn, or one."""
    words = [a for a in sys.argv[1:] if "=" not in a]
    count, seed = (int(a) for a in (words + ["24000", "0"][len(words) :]))
    names = [a.removeprefix("door=") for a in sys.argv[1:] if a.startswith("door=")] or list(DOORS)
    whole, found = sum(DOORS[name].share for name in names), {}
    for name in names:
        with tempfile.TemporaryDirectory() as home:
            found[name] = fuzz(name, math.ceil(count * DOORS[name].share / whole), seed, Path(home))
        numbers = {k: v for k, v in found[name].items() if k != "faults"}
        print(f"{name:12} {numbers}, faults {len(found[name]['faults'])}", flush=True)
        for fault in found[name]["faults"][:3]:
            print(f"    {fault}", flush=True)
    write({"seed": seed, "inputs": sum(f["inputs"] for f in found.values()), "doors": found})
    if any(f["faults"] for f in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
