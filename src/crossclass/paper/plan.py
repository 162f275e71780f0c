"""What a study needs trained, what of it is there already, and what the rest will cost.

measured   its numbers are kept; no weights are needed
trained    the run folder is finished, and only has to be measured
begun      so many epochs of it are done
missing    it has yet to begin
"""

import math
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from crossclass import models
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.config import flat, read_flat
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.core.runtime import Runtime
from crossclass.data import Npz, Split, Splits, as_float
from crossclass.data.subset import Stored, Subset
from crossclass.paper import evidence
from crossclass.paper.entry import Experiment, Size
from crossclass.paper.runs import named
from crossclass.paper.sizes import crafted, shrink
from crossclass.training.recipes import distillations, without_teachers
from crossclass.training.run import Run

State = Literal["measured", "trained", "begun", "missing"]


@dataclass(frozen=True)
class Job:
    """One run and seed that experiments need."""

    name: str
    """The named run."""
    label: str
    run: Run
    """In its size and with its seed."""
    extras: tuple[str, ...]


@dataclass(frozen=True)
class Planned:
    """A job with where it stands."""

    job: Job
    state: State
    place: Path | None
    """Of its evidence, if there is any."""
    done: int = 0
    """Epochs."""
    note: str = ""


def jobs(entries: Sequence[Experiment], size: Size, seeds: int, crafting: str = "as set") -> list[Job]:
    """Every run that the entries need, each once per seed, teachers before their pupils."""

    def made(name: str) -> Run:
        run = shrink(named(name), size)
        return crafted(run, "bf16") if crafting == "bf16" else run

    wanted: dict[str, set[str]] = {}
    for entry in entries:
        for name, of in entry.runs.items():
            wanted.setdefault(of, set()).update(entry.extras.get(name, ()))
    order = sorted(wanted, key=lambda name: any(distillations(named(name).recipe)))
    return [
        Job(
            name,
            f"{name}-{size}-seed{seed}",
            _seeded(made(name), seed),
            tuple(sorted(wanted[name])),
        )
        for seed in range(seeds)
        for name in order
    ]


def _seeded(run: Run, seed: int) -> Run:
    return run.replace(seed=seed, data=run.data.for_seed(seed))


def located(run: Run, root: Path | None) -> Run:
    """The run with the place of its images: `root` holds cifar10/, cifar100/, tiny_imagenet/.

    A folder with train.npz and test.npz does as well as the original archive. Raises UserError if there
    is nothing.
    """
    data = run.data
    if not isinstance(data, Stored) or data.path is not None:
        return run
    if root is None:
        raise UserError(
            f"{data.kind} is needed; say where it lies with data_root=DIR, which holds {data.kind}/ with the "
            "original archive or with train.npz and test.npz, or try size=smoke, which needs no data"
        )
    place = root.expanduser() / data.kind
    if (place / "test.npz").is_file():
        same = {k: getattr(data, k) for k in Subset.model_fields if k != "kind"}
        return run.replace(data=Npz(path=place, **same))
    if not place.is_dir():
        raise UserError(f"there is no {place}; put {data.kind} there (the original archive, or npz files)")
    return run.replace(data=data.replace(path=place))


def plan(wanted: Sequence[Job], kept: Path, runs: Path) -> list[Planned]:
    """Where every job stands; `kept` holds evidence, `runs` the folders of training."""
    proofs, folders = _stored(kept), _stored(runs)
    return [_planned(job, proofs, folders) for job in wanted]


def _planned(job: Job, proofs: "_Stored", folders: "_Stored") -> Planned:
    for place in _alike(proofs, job.run):
        if evidence.complete(place, job.extras):
            return Planned(job, "measured", place)
    note = _other(job, proofs) or _other(job, folders)
    for path in _alike(folders, job.run):
        found = RunFolder(path)
        if found.done:
            return Planned(job, "trained", None, job.run.epochs, note)
        if done := len(found.rows()):
            return Planned(job, "begun", None, done, note)
    return Planned(job, "missing", None, note=note)


_Stored = dict[Path, dict[str, Any]]
"""The settings of every run in a folder of runs."""


def _stored(parent: Path) -> _Stored:
    out: _Stored = {}
    for config in sorted(parent.glob("*/config.yaml")):
        with suppress(UserError, OSError, UnicodeDecodeError):  # a damaged one is no run that is there
            out[config.parent] = read_flat(config.read_text(), str(config))
    return out


def _alike(stored: _Stored, run: Run) -> list[Path]:
    """The folders of this run, however its images are stored."""
    return [place for place, says in stored.items() if not _differing(says, run)]


def _differing(says: dict[str, Any], run: Run) -> list[str]:
    """Settings in which a stored run is another, other than how its images are stored."""
    now = flat(run.to_dict())
    aside = {"data.kind", "data.checksum", "data.class_order"} if isinstance(run.data, Stored) else set()
    return [k for k, v in says.items() if k not in aside and (k not in now or now[k] != v)]


def _other(job: Job, stored: _Stored) -> str:
    """A note on a folder of that name whose run is another, as after a new version."""
    for place, says in stored.items():
        if place.name.rpartition("-")[0] == job.label and (others := _differing(says, job.run)):
            return f"{place.name} is of other settings ({others[0]} differs) and is not used"
    return ""


@dataclass(frozen=True)
class Cost:
    """Of training a run and measuring it, on this machine."""

    epoch: float
    """Seconds of an epoch, with its share of the checks."""
    final: float
    """Seconds of the full evaluation at the end."""
    bytes: int
    """Of all checkpoints."""

    def seconds(self, epochs: int) -> float:
        """Of so many more epochs, and the full evaluation."""
        return epochs * self.epoch + self.final


LOOKS = 3
"""What a check costs beside its attack, in gradients per image: the clean and the attacked images are
classified, and some of them take two gradients more (`watch.probed`)."""
ENDS = 2
"""Checkpoints in the full evaluation: best and last (best.val and best.test are often one epoch)."""
KEPT = 3 + 2 * 3
"""Copies of the weights on the disk: best.val, best.test and last; and until a run is finished two states to
resume from, each with weights, momentum and maybe an average of the weights."""


def cost(run: Run, splits: Splits, runtime: Runtime) -> Cost:
    """Estimated from one step of training."""
    model = runtime.to_device(models.build(run.model, splits.train.images, len(splits.class_names), 0))
    part = splits.train.first(run.batch).to(runtime.torch_device)
    seconds = _step(run, model, part) / len(part)
    attack = run.recipe.crafting_attack
    gradient = seconds / (1 + (attack.gradients if attack else 0))  # 0 also where an attack does not say
    n = run.validation.n or len(splits.test)
    checked = min(n, len(splits.test)) + min(n, len(splits.val))
    checks = checked / run.validation.every * (run.check_attack().gradients + LOOKS)
    final = ENDS * len(splits.test) * (run.final_attack().gradients + 1)
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    kept = KEPT + (run.epochs // run.checkpoint_every if run.checkpoint_every else 0)
    return Cost(len(splits.train) * seconds + gradient * checks, gradient * final, size * kept)


def _step(run: Run, model: torch.nn.Module, part: Split) -> float:
    """Seconds of one training step; a teacher is left out of it."""
    recipe = without_teachers(run.recipe)
    x, y = as_float(part.images), part.labels
    taken = []
    for i in range(2):  # the first one warms up
        started = time.perf_counter()
        x_adv = recipe.craft(model, x, y, generator(0, 0, i, "attack"))
        loss, _ = recipe.loss(model, x, x_adv, y, generator(0, 0, i, "loss"))
        torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
        taken.append(time.perf_counter() - started)
    return taken[-1]


def room(out: Path, needed: int) -> None:
    """Raise UserError before training if the disk is too small for the checkpoints."""
    there = out
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > 0.95 * free:
        raise UserError(
            f"the checkpoints need about {_mib(needed)} MiB and {there} has {_mib(free)} free; choose "
            "another disk with runs=DIR, fewer seeds=, or fewer experiments"
        )


def _mib(count: int) -> str:
    return f"{math.ceil(count / 2**20):,}"
