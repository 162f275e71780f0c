"""Which runs a study needs, how far each of them is, and what the rest will cost.

done              its numbers are there; no weights are needed
to be measured    the run folder is finished
to be continued   some epochs are finished
to be trained     nothing is there
"""

import math
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from crossclass import models
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.config import flat, read_flat
from crossclass.core.device import to_device
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.core.runtime import Runtime
from crossclass.data import Npz, Split, Splits, as_float
from crossclass.data.subset import Stored, Subset
from crossclass.paper import evidence
from crossclass.paper.entry import Entry, Size
from crossclass.paper.runs import named
from crossclass.paper.sizes import shrink, with_crafting_precision
from crossclass.training.recipes import distillations, without_teachers
from crossclass.training.run import Run
from crossclass.training.validation import CHECK_GRADIENTS, EVALUATED

State = Literal["done", "to be measured", "to be continued", "to be trained"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Job:
    """One run with one seed that entries need."""

    name: str
    """The named run."""
    label: str
    run: Run
    """The run in its size, with its seed."""
    extras: tuple[str, ...]
    """Further measurements that entries need of it."""


@dataclass(frozen=True)
class Planned:
    """A job, and how far it is."""

    job: Job
    state: State
    evidence_folder: Path | None
    """The folder of its evidence, if it is done."""
    done: int = 0
    """Finished epochs."""
    note: str = ""


def jobs(entries: Sequence[Entry], size: Size, seeds: int, crafting: str = "as set") -> list[Job]:
    """Every run that the entries need, each once per seed, teachers before their students."""

    def made(name: str) -> Run:
        run = shrink(named(name), size)
        return with_crafting_precision(run, "bf16") if crafting == "bf16" else run

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


def with_data_path(run: Run, root: Path | None) -> Run:
    """The run with the path of its images: `root` holds cifar10/, cifar100/, tiny_imagenet/.

    Instead of the original archive it may hold train.npz and test.npz. Raises UserError if it holds neither.
    """
    data = run.data
    if not isinstance(data, Stored) or data.path is not None:
        return run
    if root is None:
        raise UserError(
            f"{data.kind} is needed; give data_root=DIR, which holds {data.kind}/ with the "
            "original archive or with train.npz and test.npz, or try size=smoke, which needs no data"
        )
    folder = Path(os.path.expanduser(root)) / data.kind
    if (folder / "test.npz").is_file():
        same = {k: getattr(data, k) for k in Subset.model_fields if k != "kind"}
        return run.replace(data=Npz(path=folder, **same))
    if not folder.is_dir():
        raise UserError(f"there is no {folder}; put {data.kind} there (the original archive, or npz files)")
    return run.replace(data=data.replace(path=folder))


def plan(wanted: Sequence[Job], kept: Path, runs: Path) -> list[Planned]:
    """How far every job is; `kept` holds evidence, `runs` the run folders."""
    evidence_settings, run_settings = _settings_in(kept), _settings_in(runs)
    return [_planned(job, evidence_settings, run_settings) for job in wanted]


def _planned(job: Job, kept: "_Settings", runs: "_Settings") -> Planned:
    for folder in _folders_of(job.run, kept):
        if evidence.complete(folder, job.extras):
            return Planned(job, "done", folder)
    note = _other_settings(job, kept) or _other_settings(job, runs)
    for folder in _folders_of(job.run, runs):
        run_folder = RunFolder(folder)
        if run_folder.done:
            return Planned(job, "to be measured", None, job.run.epochs, note)
        if done := len(run_folder.rows()):
            return Planned(job, "to be continued", None, done, note)
    return Planned(job, "to be trained", None, note=note)


_Settings = dict[Path, dict[str, Any]]
"""The settings of every run in a folder of runs."""


def _settings_in(parent: Path) -> _Settings:
    out: _Settings = {}
    for config in sorted(parent.glob("*/config.yaml")):
        with suppress(UserError, OSError, UnicodeDecodeError):  # a damaged folder counts as none
            out[config.parent] = read_flat(config.read_text("utf-8"), str(config))
    return out


def _folders_of(run: Run, stored: _Settings) -> list[Path]:
    """The folders of this run, however its images are stored."""
    return [folder for folder, settings in stored.items() if not _differing(settings, run)]


def _differing(settings: dict[str, Any], run: Run) -> list[str]:
    """Settings in which a stored run differs, apart from how its images are stored."""
    now = flat(run.to_dict())
    aside = {"data.kind", "data.checksum", "data.class_order"} if isinstance(run.data, Stored) else set()
    return [k for k, v in settings.items() if k not in aside and (k not in now or now[k] != v)]


def _other_settings(job: Job, stored: _Settings) -> str:
    """A note on a folder of that name whose run has other settings, as after a new version."""
    for folder, settings in stored.items():
        same_label = folder.name.rpartition("-")[0] == job.label
        if same_label and (others := _differing(settings, job.run)):
            return f"{folder.name} has other settings ({others[0]} differs) and is not used"
    return ""


@dataclass(frozen=True)
class Cost:
    """What training a run and measuring it costs on this machine."""

    epoch: float
    """Seconds of an epoch, with its share of the checks."""
    final: float
    """Seconds of the full evaluation at the end."""
    bytes: int
    """Size of all checkpoints on the disk."""

    def seconds(self, epochs: int) -> float:
        """Seconds of so many more epochs and of the full evaluation."""
        return epochs * self.epoch + self.final


WEIGHT_COPIES = 3 + 2 * 3
"""Copies of the weights on the disk: best.val, best.test and last; and until a run is finished two states to
resume from, each with weights, momentum and maybe an average of the weights."""


def cost(run: Run, splits: Splits, runtime: Runtime) -> Cost:
    """The cost of a run, estimated from one step of training."""
    built = models.build(run.model, splits.train.images, len(splits.class_names), 0)
    model = to_device(built, runtime.torch_device, runtime.memory_format)
    part = splits.train.first(run.batch).to(runtime.torch_device)
    seconds = _seconds_of_step(run, model, part) / len(part)
    attack = run.recipe.crafting_attack
    gradient = seconds / (1 + (attack.gradients if attack else 0))  # 0 also where an attack does not say
    n = run.validation.n or len(splits.test)
    checked = min(n, len(splits.test)) + min(n, len(splits.val))
    checks = checked / run.validation.every * (run.validation_attack().gradients + CHECK_GRADIENTS)
    final = EVALUATED * len(splits.test) * (run.final_attack().gradients + 1)
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    copies = WEIGHT_COPIES + (run.epochs // run.checkpoint_every if run.checkpoint_every else 0)
    return Cost(len(splits.train) * seconds + gradient * checks, gradient * final, size * copies)


def _seconds_of_step(run: Run, model: torch.nn.Module, part: Split) -> float:
    """Seconds of one training step; a teacher is left out of it."""
    recipe = without_teachers(run.recipe)
    x, y = as_float(part.images), part.labels
    taken = []
    for i in range(2):  # the first one warms up
        started = time.perf_counter()
        if run.ensembling is not None:  # the prediction that is remembered
            with torch.no_grad():
                model(x)
        x_adv = recipe.craft(model, x, y, generator(0, 0, i, "attack"))
        loss, _ = recipe.loss(model, x, x_adv, y, generator(0, 0, i, "loss"))
        torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
        taken.append(time.perf_counter() - started)
    return taken[-1]


def check_disk_space(out: Path, needed: int) -> None:
    """Raise UserError before training if the disk is too small for the checkpoints."""
    folder = out
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise UserError(
            f"the checkpoints need about {_mib(needed)} MiB and {folder} has {_mib(free)} free; choose "
            "another disk with runs=DIR, fewer seeds=, or fewer entries"
        )


def _mib(count: int) -> str:
    return f"{math.ceil(count / 2**20):,}"
