"""The one training loop: `Run` determines what it computes, and the digest of `Run` names its folder.

`iterate_epochs(run)` yields one row per epoch; `train(run)` returns at once if the result exists. Every
random draw starts from (seed, epoch, step, purpose), so a run that was killed and resumed equals an
uninterrupted one bit for bit on a CPU, and validation never changes what is trained.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from crossclass import models
from crossclass.analysis.records import ResultFile, metrics_csv, write_results
from crossclass.checkpoints.card import load_checkpoint, save_checkpoint
from crossclass.checkpoints.load import describe
from crossclass.checkpoints.run_folder import Row, RunFolder
from crossclass.core.config import differences, flat, replace_everywhere
from crossclass.core.errors import UserError
from crossclass.core.files import lock
from crossclass.core.progress import Log, Progress, silent
from crossclass.core.runtime import Runtime
from crossclass.core.trust import names_of_code, require_consent, trusting
from crossclass.data import Splits
from crossclass.training import alarms, nonfinite, teachers, validation
from crossclass.training.epoch import clean_images, train_epoch
from crossclass.training.nonfinite import NotFiniteError
from crossclass.training.run import Run
from crossclass.training.state import TrainState


def with_checksums(run: Run, splits: Splits) -> Run:
    """The run with checksums in place of where its files lie."""
    run = run.replace(recipe=teachers.with_fingerprints(run.recipe))
    if hasattr(run.data, "checksum"):
        return run.replace(data=run.data.replace(checksum=splits.checksum))
    return run


def train(
    run: Run,
    out: Path | str = "runs",
    label: str = "run",
    runtime: Runtime | None = None,
    progress: Progress = silent,
    *,
    trust: bool = False,
) -> RunFolder:
    """The folder of the finished run, trained or resumed if need be.

    `trust` lets the run and its teachers' checkpoints name code that is imported and run.
    """
    with trusting(everything=trust):
        *_, (folder, _) = iterate_epochs(run, out, label, runtime, progress)
    return folder


def iterate_epochs(
    run: Run,
    out: Path | str = "runs",
    label: str = "run",
    runtime: Runtime | None = None,
    progress: Progress = silent,
    log: Log = lambda text: None,
) -> Iterator[tuple[RunFolder, Row]]:
    """Train or resume, yielding the folder and each epoch's row (also those that were there already).

    Raises UserError for a user's mistake, a full disk or a loss that is no number; what was finished
    before stays, and the same call goes on from there. Raises BusyError while another process trains the run.
    """
    runtime = runtime or Runtime()
    splits = run.data()
    splits.part("train")  # there may be none: a folder of test images is enough to measure
    run = with_checksums(run, splits)
    folder = runtime.on_main_process(lambda: RunFolder.of(Path(out), label, run))
    if runtime.on_main_process(lambda: folder.done):
        yield from ((folder, row) for row in folder.rows())
        return
    require_consent(names_of_code(run.to_dict()), "the run")

    def find(teacher: Run) -> RunFolder:
        *_, (found, _) = iterate_epochs(teacher, out, f"{label}-teacher", runtime, progress, log)
        return found

    with runtime.entered(lock(folder.path / ".lock", f"{folder.path} is being trained")):
        if not runtime.on_main_process(lambda: folder.done):  # another process may have finished it since
            about = _about(run, splits, runtime, label)
            for note in runtime.on_main_process(lambda: folder.begin(about)):
                log(note)
            yield from _train(run, folder, splits.to(runtime.torch_device), runtime, find, progress, log)
            return
    yield from ((folder, row) for row in folder.rows())


def _train(
    run: Run,
    folder: RunFolder,
    splits: Splits,
    runtime: Runtime,
    find: Callable[[Run], RunFolder],
    progress: Progress,
    log: Log,
) -> Iterator[tuple[RunFolder, Row]]:
    """Train what `train` has prepared, to the end; `find` trains a teacher.

    `run` is what is written down, `played` what is executed: teachers at hand, no bf16 where that is slow.
    """
    played = run.replace(recipe=teachers.load_teachers(run.recipe, run, splits, runtime, find, log))
    if not runtime.uses_bf16:
        played = replace_everywhere(played, precision="fp32")
    built = models.build(run.model, splits.train.images, len(splits.class_names), run.seed)
    state = TrainState(played, runtime, built, len(splits.train), len(splits.class_names))
    for note in _cautions(run, state, runtime):
        log(note)
    rows = _resume(folder, state, runtime, log)
    yield from ((folder, row) for row in rows)

    ended = bool(rows and rows[-1].get("ended_by"))
    with runtime.tracked("crossclass", folder.path, flat(run.to_dict())) as send:
        for epoch in range(len(rows) + 1, 1 if ended else run.epochs + 1):
            current = played.recipe_at(epoch)
            try:
                row = train_epoch(current, state, splits, epoch, progress, log)
            except NotFiniteError as e:
                alarm = nonfinite.write_failure(folder, e, runtime, splits.train.labels)
                raise UserError(
                    f"{alarm}; lower lr or set grad_clip_norm=1.0, and train again: earlier epochs are kept"
                ) from e
            checked = epoch % run.validation.every == 0 or epoch in (1, run.epochs)
            keeping = checked or (run.checkpoint_every and epoch % run.checkpoint_every == 0)
            images = clean_images(played, runtime, splits.train, epoch)
            model = state.eval_model(images) if keeping else state.model
            row |= validation.unchecked()
            if checked:
                row |= validation.check(played, runtime, model, splits, epoch, progress)
            rows.append(row)
            row |= _observed(run, rows, len(splits.class_names))
            row |= runtime.on_main_process(lambda: _recorded(run, folder, state, model, splits, rows))  # noqa: B023
            send(row, epoch)
            yield folder, row
            if row["ended_by"]:
                break

    found = validation.final(played, folder, runtime, splits, progress)
    runtime.on_main_process(lambda: _finished(folder, found))


def _finished(folder: RunFolder, found: ResultFile) -> None:
    """Write the full evaluation, and mark the run as finished."""
    write_results(folder.path / "measure.json", found)
    folder.end()


def _recorded(
    run: Run, folder: RunFolder, state: TrainState, model: nn.Module, splits: Splits, rows: list[Row]
) -> Row:
    """Write down the epoch just trained; its row as the log has it."""
    row = rows[-1]
    if run.restore_last_good and row["ended_by"]:
        row |= _rolled_back(folder, row)
    folder.log(row, metrics_csv(rows))
    _keep(run, folder, model, splits, rows)
    folder.save_state(row["epoch"], state.tensors(), {"digest": run.digest()})
    return row


def _cautions(run: Run, state: TrainState, runtime: Runtime) -> Iterator[str]:
    """What a person should know about how this run is executed."""
    if not runtime.uses_bf16 and replace_everywhere(run, precision="fp32") != run:
        yield "this CPU is slow at bf16: computing in float32 instead (runtime.emulate_bf16=true insists)"
    if runtime.oversubscribed:
        yield "this machine is busy with other things; runtime.threads=1 may be many times faster on it"
    if not state.batch_coupling:
        return
    alone, most = -(-run.batch // runtime.processes), runtime.micro_batch or run.batch
    synced = ["batch norm"] if runtime.sync_batch_norm else []
    who = " and ".join(c for c in state.batch_coupling if c not in synced)
    if runtime.processes > 1 and who:
        remedy = "; runtime.sync_batch_norm=true joins them" if who == "batch norm" else ""
        yield (
            f"{runtime.processes} processes: {who} sees {min(alone, most)} of {run.batch} images, so "
            f"the result is not that of one process{remedy}"
        )
    elif most < alone:
        who = " and ".join(state.batch_coupling)
        yield (
            f"runtime.micro_batch={most}: {who} sees {most} of {run.batch} images at a time, so the "
            "result is not that of whole batches"
        )


def _observed(run: Run, rows: list[Row], classes: int) -> Row:
    """What the row just added says beside the others, and the alarms that it raises."""
    found = alarms.raised(rows, classes) if rows[-1].get("watched") else []
    ending = [a for a in found if a.name in run.stop_on_alarms and a.level == "alarm"]  # a note ends nothing
    return {
        **alarms.trends(rows),
        "alarms": [asdict(a) for a in found],
        "warnings": [*rows[-1]["warnings"], *(str(a) for a in found if a.level == "alarm")],
        "ended_by": asdict(ending[0]) if ending else None,
    }


def _rolled_back(folder: RunFolder, row: Row) -> Row:
    """To which epoch `last` goes back, and why, in words."""
    good, found = row["ended_by"]["last_good"], _good(folder, row["ended_by"]["last_good"])
    if found is None:
        said = "nothing to roll back to: no checkpoint was kept before the trouble; `last` is this epoch's"
        return {"rolled_back_to": None, "warnings": [*row["warnings"], said]}
    name, epoch = found[0], found[1]["epoch"]
    why = "the last check" if epoch == good else f"the newest checkpoint kept ({name})"
    said = f"rolled back to epoch {epoch}, {why} before the trouble"
    return {"rolled_back_to": epoch, "warnings": [*row["warnings"], said]}


def _keep(run: Run, folder: RunFolder, model: nn.Module, splits: Splits, rows: list[Row]) -> None:
    """Write the checkpoints that this epoch earns."""
    row = rows[-1]
    names = [f"best.{s}" for s in ("val", "test") if validation.best(rows, s) is row]
    if run.checkpoint_every and row["epoch"] % run.checkpoint_every == 0:
        names.append(f"epoch_{row['epoch']:03d}")
    if row["epoch"] == run.epochs or row["ended_by"]:
        names.append("last")
    if run.restore_last_good and row.get("watched"):
        names.append("last_good")
    if row.get("rolled_back_to"):
        found = _good(folder, row["rolled_back_to"])
        assert found is not None
        tensors, card = load_checkpoint(folder.checkpoint(found[0]))
        save_checkpoint(folder.checkpoint("last"), tensors, {**card, "checkpoint": "last", "chosen_by": None})
        names = [n for n in names if not n.startswith("last")]
    for name in names:
        card = {
            "format": 1,
            "checkpoint": name,
            "epoch": row["epoch"],
            "chosen_by": name.partition(".")[2] or None,
            "digest": run.digest(),
            "model": run.model.to_dict(),
            "classes": len(splits.class_names),
            "channels": splits.train.images.shape[1],
            "size": splits.train.images.shape[-1],
            "class_names": list(splits.class_names),
            "recipe": run.recipe.to_dict(),
            "seed": run.seed,
            "check": f"{run.check_attack()}",
            "scores": {
                k: row.get(k) for k in ("val_clean", "val_robust", "test_clean", "test_robust", "cas")
            },
        }
        save_checkpoint(folder.checkpoint(name), model.state_dict(), card)


def _good(folder: RunFolder, epoch: int | None) -> tuple[str, dict[str, Any]] | None:
    """Name and card of the newest checkpoint that was kept up to an epoch, if any."""
    if epoch is None:
        return None
    kept = [(name, folder.checkpoint(name)) for name in ("last_good", "best.val", "best.test")]
    cards = [(name, load_checkpoint(path)[1]) for name, path in kept if path.exists()]
    return max((c for c in cards if c[1]["epoch"] <= epoch), key=lambda c: c[1]["epoch"], default=None)


def _resume(folder: RunFolder, state: TrainState, runtime: Runtime, log: Log) -> list[Row]:
    """Put the newest state back; the rows up to it."""
    saved = runtime.on_main_process(folder.load_state)
    if saved is None:
        return runtime.on_main_process(lambda: folder.rewind(0))
    tensors, card, notes = saved
    for note in notes:
        log(note)
    state.restore(tensors)
    rows = runtime.on_main_process(lambda: folder.rewind(card["epoch"]))
    if len(rows) != card["epoch"]:
        raise UserError(f"{folder.path / 'events.jsonl'} lacks epochs; delete {folder.path} to train again")
    log(f"resuming after epoch {card['epoch']}")
    return rows


def _about(run: Run, splits: Splits, runtime: Runtime, label: str) -> dict[str, Any]:
    path = getattr(run.data, "path", None)
    images = len(splits.test.first(run.validation.n))
    return {
        **runtime.about(),
        "global_batch": run.batch,
        "label": label,
        "seed": run.seed,
        "digest": run.digest(),
        "class_names": list(splits.class_names),
        "data": describe(run.data),
        "data_path": str(path.absolute()) if path else None,
        "data_checksum": splits.checksum,
        "sizes": {s: len(getattr(splits, s)) for s in ("train", "val", "test")},
        "check": f"{run.check_attack()}, judged in fp32 on {images} test images",
        "final": f"{run.final_attack()}, judged in fp32 on {len(splits.test)} test images",
        "sharing": None if splits.sharing is None else splits.sharing.tolist(),
        "settings_changed": differences(run, Run()),
    }
