"""Forks: a run that goes on from the state of another, its parent, with other settings from there on.

A fork's folder begins as the parent's was after that epoch: its rows, its best checkpoints so far, its state.
Everything that is drawn starts from (seed, epoch, step, purpose), so the batches and the noise of all arms of
a parent are the same, and a fork that changes nothing ends in the parent's bits.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from crossclass.analysis.records import EpochRow
from crossclass.checkpoints.card import fingerprint, load_checkpoint, load_tensors, save_checkpoint
from crossclass.checkpoints.run_folder import RunFolder, split_target
from crossclass.core.config import differences, load_yaml
from crossclass.core.errors import UserError
from crossclass.core.files import json_text, write_atomic
from crossclass.training.checkpointing import best
from crossclass.training.run import Parent, Run
from crossclass.training.state import TrainState

KEPT = ("data", "model", "seed")
"""Settings in which a fork is as its parent."""


def with_parent(run: Run) -> Run:
    """The run with its parent's digest and the fingerprint of the state, where its folder is given.

    Raises UserError if the folder is not the parent, if the state was not kept, or if there is neither a
    folder nor a digest.
    """
    parent = run.parent
    if parent is None:
        return run
    if parent.run is None:
        if parent.run_digest is None or parent.fingerprint is None:
            raise UserError("a fork needs the folder of its parent; give parent.run=RUN")
        return run
    folder, own = parent_of(parent)
    tensors, _ = load_tensors(folder.kept_state(parent.epoch) / "state.safetensors")
    read = {"run_digest": own.digest(), "fingerprint": fingerprint(tensors)[:16]}
    for name, value in read.items():
        if getattr(parent, name) not in (None, value):
            raise UserError(f"{folder.path} is not the parent of this run: its {name} is {value}")
    for path, (before, now) in differences(own, run).items():
        if path.split(".")[0] in KEPT and path != "data.checksum":
            raise UserError(
                f"a fork keeps the data, the network and the seed of its parent: {folder.path} has "
                f"{path}={before}, not {now}"
            )
    return run.replace(parent=parent.replace(**read))


def parent_of(parent: Parent) -> tuple[RunFolder, Run]:
    """The parent's folder and its run; raises UserError if there is none, or no state of that epoch."""
    assert parent.run is not None
    folder = RunFolder.at(split_target(parent.run)[0])
    run = load_yaml(Run, folder.config(), str(folder.path / "config.yaml"))
    if parent.epoch not in (kept := folder.kept_states()):
        there = f"those kept: {', '.join(map(str, kept))}" if kept else "it kept none"
        raise UserError(
            f"{folder.path} kept no state of epoch {parent.epoch} ({there}); train it with "
            f"keep_state=[{parent.epoch}] in another out=DIR, which gives the same run"
        )
    return folder, run


def begin(run: Run, folder: RunFolder, checksum: str) -> None:
    """Put the parent's rows, best checkpoints and state into a fork's folder, unless it has gone on already.

    The state is last, so that a fork that was killed before begins anew. `checksum` is that of the images.
    Raises UserError if the parent is not there any more, or had other images.
    """
    parent = run.parent
    if parent is None or folder.load_state() is not None:
        return
    if parent.run is None:
        raise UserError(f"{folder.path} has not begun; give the folder of its parent with parent.run=RUN")
    source, own = parent_of(parent)
    seen = (source.read("env.json") or {}).get("data_checksum")
    if seen != checksum:
        raise UserError(
            f"{source.path} was trained on other images: their checksum is {seen}, here {checksum}; give its "
            "data with data.path=DIR"
        )
    kept = source.kept_state(parent.epoch)
    for path in kept.glob("best.*.safetensors"):
        tensors, card = load_checkpoint(path)
        save_checkpoint(folder.path / path.name, tensors, card.model_copy(update={"digest": run.digest()}))
    rows = source.rows(parent.epoch)
    write_atomic(folder.path / "events.jsonl", "".join(json_text(row, None) + "\n" for row in rows))
    tensors, _ = load_tensors(kept / "state.safetensors")
    folder.save_state(parent.epoch, tensors, {"digest": own.digest()})


KeptEpoch = Annotated[int, Field(ge=1)] | Literal["best"]
"""An epoch, or the best by robust accuracy on the validation images (test images where there are none)."""


def keep(
    run: Run, folder: RunFolder, state: TrainState, rows: Sequence[EpochRow], wanted: Sequence[KeptEpoch]
) -> None:
    """Keep the state after the last of the rows, if it is wanted; of the best, the last one alone is kept."""
    row = rows[-1]
    is_best = "best" in wanted and (best(rows, "val") or best(rows, "test")) is row
    if row.epoch in wanted or is_best:
        folder.keep_state(row.epoch, state.tensors(), {"digest": run.digest()})
    if is_best:
        for earlier in folder.kept_states():
            if earlier not in wanted and earlier < row.epoch:
                folder.forget_state(earlier)


def require_kept(folder: RunFolder, wanted: Sequence[KeptEpoch]) -> None:
    """Raise UserError if a finished run lacks a state that is wanted now."""
    epochs: dict[KeptEpoch, int] = {e: e for e in wanted if e != "best"}
    if "best" in wanted:
        names = [name for name in ("best.val", "best.test") if folder.checkpoint(name).exists()]
        epochs |= {"best": load_checkpoint(folder.checkpoint(names[0]))[1].epoch} if names else {}
    lacking = [name for name, epoch in epochs.items() if epoch not in folder.kept_states()]
    if lacking:
        which = lacking[0]
        raise UserError(
            f"{folder.path} is finished and kept no state of epoch {which}; train it again with another "
            "out=DIR, which gives the same run"
        )
