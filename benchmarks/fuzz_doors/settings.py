"""Run files, sweep files, and settings that are typed."""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from crossclass.cli.arguments import assign
from crossclass.cli.sweep import expand
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.paper.runs import NAMED, resolve
from crossclass.training.run import Run

from .door import Door, of_bytes, written

TYPED = """
    recipe.attack.threat.eps=4/255 model.width=64 lr_milestones=[45,68] recipe.kind=awp
    recipe.inner.kind=trades data.path=DIR model=python:my_nets:f seed=0,1,2 weight_averaging.kind=ema
    recipe={kind:kd} validation.attack=null model.normalise={mean:[0.5]} lr=1e-3 stop_on_alarms=[a]
    recipe.attack.steps=10
"""


def run_files() -> list[bytes]:
    """Named runs as YAML, and a bomb of aliases."""
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmn"))
    names = ("cifar10-mini", "wei2025-kd-linf-8", "awp", "mo2022-deit", "shapes-demo")
    return [
        *(NAMED[name].yaml().encode() for name in names),
        bomb.encode(),
        b"lr_milestones: &a [*a]\n",
        b"model: &m {x: *m}\n",
    ]


def assignments() -> list[bytes]:
    """What people type behind a run's name."""
    return [text.encode() for text in TYPED.split()]


def sweeps() -> list[bytes]:
    """Sweep files."""
    return [b"run: cifar10-mini\ngrid:\n  seed: [0, 1]\n  recipe.attack.threat.eps: [2/255, 8/255]\n"]


def typed(place: Path, data: bytes) -> object:
    """One text, by `assign` and by the command line's own way."""
    text = data.decode("utf-8", "replace")
    with suppress(UserError):
        assign(Run(), [text])
    return expand("cifar10-mini", [text])


def yaml_file(path: Path) -> object:
    """A run file, from the command line; what was valid must come back as it is."""
    _, run = resolve(str(path))
    again = load_yaml(Run, run.yaml(), "again")
    if again != run:
        raise AssertionError("a run does not survive its own YAML")
    return run


def swept(path: Path) -> object:
    """A sweep file; large grids are cut short by the alarm, so only small ones are let in."""
    if path.stat().st_size > 500:
        return None
    return expand(str(path))


def run_file() -> Door:
    """A run file."""
    return of_bytes(run_files, written("run.yaml", yaml_file), text=True)


def settings() -> Door:
    """Settings on the command line."""
    return of_bytes(assignments, typed, text=True)


def sweep_file() -> Door:
    """A sweep file."""
    return of_bytes(sweeps, written("sweep.yaml", swept), text=True)


DOORS = {"run file": run_file(), "settings": settings(), "sweep file": sweep_file()}
