"""The one training loop: `Run` determines what it computes, and the digest of `Run` names its folder.

`iterate_epochs(run)` yields one row per epoch; `train(run)` returns at once if the result exists. Every
random draw starts from (seed, epoch, step, purpose), so a run that was killed and resumed equals an
uninterrupted one bit for bit on a CPU, and validation never changes what is trained.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from crossclass import models
from crossclass.analysis.feature_pictures import write_feature_pictures
from crossclass.analysis.measure import Measure
from crossclass.analysis.pictures import write_pictures
from crossclass.analysis.records import EpochRow, metrics_csv
from crossclass.analysis.result_files import write_results
from crossclass.analysis.run_record import read_epochs
from crossclass.checkpoints.load import describe_data
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.config import differences, flat, replace_everywhere
from crossclass.core.errors import UserError
from crossclass.core.files import lock
from crossclass.core.progress import Log, Progress, shown, silent
from crossclass.core.runtime import Runtime
from crossclass.core.torch_state import usual_torch_state
from crossclass.core.trackers import tracking
from crossclass.core.trust import names_of_code, require_consent, trusting
from crossclass.data import Splits
from crossclass.data.channels import with_channels_of
from crossclass.data.label_noise import with_label_noise
from crossclass.models import Classifier
from crossclass.training import alarms, checkpointing, forks, nonfinite, teachers, validation
from crossclass.training.epoch import clean_images, train_epoch
from crossclass.training.nonfinite import NotFiniteError
from crossclass.training.rehearsal import rehearse
from crossclass.training.run import Run
from crossclass.training.run_warnings import run_warnings
from crossclass.training.state import TrainState
from crossclass.training.validation import final_evaluation

BF16 = {True: "computed", False: "float32 in its place"}
"""How env.json says whether bf16 was computed where the run asks for it."""


def with_checksums(run: Run, splits: Splits) -> Run:
    """The run with checksums in place of where its files lie: images, teachers, the state that it forks."""
    run = run.replace(recipe=teachers.with_fingerprints(run.recipe))
    if hasattr(run.data, "checksum"):
        run = run.replace(data=run.data.replace(checksum=splits.checksum))
    return forks.with_parent(run)


@usual_torch_state()
def train(
    run: Run,
    out: Path | str = "runs",
    label: str = "run",
    runtime: Runtime | None = None,
    progress: Progress | bool | None = None,
    *,
    trust: bool = False,
    keep_state: Sequence[forks.KeptEpoch] = (),
) -> RunFolder:
    """The folder of the finished run, trained or resumed if need be; `load_run(folder.path)` reads it.

    Args:
        run: What is trained, such as `named("shapes-demo")`.
        out: The folder that holds the runs.
        label: The first part of the name of the run's folder.
        runtime: Device, threads and processes.
        progress: A function of what is done, how far and out of how many; or whether to show a bar. Unset
            shows one in a notebook and on a terminal.
        trust: Let the run and its teachers' checkpoints name code that is imported and run.
        keep_state: Epochs after which the whole state is kept, so that `Run(parent=Parent(...))` can go on
            from there; "best" keeps that of the best.

    Raises:
        UserError: A setting or a file is not as it must be, or the loss is no number.
    """
    after = ""

    def step(what: str, done: int, total: int) -> None:
        move(what + after, done, total)

    with trusting(everything=trust), shown(progress) as move:
        tell = progress if callable(progress) else step
        rows = iterate_epochs(run, out, label, runtime, tell, keep_state=keep_state)
        for folder, row in rows:  # noqa: B007 - the last is returned
            after = f", after epoch {row.epoch} of {run.epochs}"
    return folder


def iterate_epochs(
    run: Run,
    out: Path | str = "runs",
    label: str = "run",
    runtime: Runtime | None = None,
    progress: Progress = silent,
    log: Log = lambda text: None,
    begun: RunFolder | None = None,
    *,
    images: int = Measure().images,
    keep_state: Sequence[forks.KeptEpoch] = (),
) -> Iterator[tuple[RunFolder, EpochRow]]:
    """Train or resume, yielding the folder and each epoch's row (also of epochs that are finished already).

    `begun` is the folder to go on in, whatever its name; unset is that of the run's digest in `out`. `images`
    of the final evaluation are kept for the page, as by `Measure.images`. The whole state is kept after the
    epochs of `keep_state`, where forks can begin.

    Raises UserError for a user's mistake, a full disk or a loss that is no number; what was finished
    before stays, and the same call goes on from there. Raises BusyError while another process trains the run.
    """
    runtime = runtime or Runtime()
    splits = run.data()
    splits.part("train")  # raises where there are only test images, which is enough to measure
    run = with_checksums(run, splits)
    splits = with_label_noise(splits, run.data)
    require_consent(names_of_code(run.to_dict()), "the run")  # before its folder is made
    warnings = run_warnings(run, splits)
    main = runtime.group.on_main_process
    folder = main(lambda: begun.of_same(run) if begun else RunFolder.of(Path(out), label, run))

    def finished(teacher: Run) -> RunFolder:
        *_, (done, _) = iterate_epochs(teacher, out, f"{label}-teacher", runtime, progress, log)
        return done

    if not main(lambda: folder.done):
        held = lock(folder.path / ".lock", f"{folder.path} is being trained")
        with ExitStack() as stack:
            main(lambda: stack.enter_context(held))
            if not main(lambda: folder.done):  # another may have finished it since
                before = main(lambda: _begun_with(folder))
                stack.enter_context(runtime.training_threads(before.get("threads"), log))
                uses_bf16 = runtime.uses_bf16(before["bf16"] == BF16[True] if "bf16" in before else None)
                keep_state = list(dict.fromkeys([*before.get("keep_state", ()), *keep_state]))
                env = _environment(run, splits, runtime, label) | {
                    "bf16": BF16[uses_bf16],
                    "keep_state": keep_state,
                    "warnings": warnings,
                }
                for warning in warnings:
                    log(f"warning: {warning}")
                for note in main(lambda: folder.begin(run, env)):
                    log(note)
                log(f"{folder.path}: {_about(run, splits)}")
                for _, note in splits.left_out:
                    log(note)
                splits = splits.to(runtime.torch_device)
                main(lambda: forks.begin(run, folder, splits.checksum))
                yield from _train(
                    run, folder, splits, runtime, uses_bf16, finished, progress, log, images, keep_state
                )
                return
    main(lambda: forks.require_kept(folder, keep_state))
    yield from ((folder, row) for row in read_epochs(folder.path / "events.jsonl", done=True))


def _train(
    run: Run,
    folder: RunFolder,
    splits: Splits,
    runtime: Runtime,
    uses_bf16: bool,
    finished: Callable[[Run], RunFolder],
    progress: Progress,
    log: Log,
    images: int,
    keep_state: Sequence[forks.KeptEpoch],
) -> Iterator[tuple[RunFolder, EpochRow]]:
    """Train to the end what `iterate_epochs` has prepared; `finished` trains a teacher.

    `run` is what is written down, `executed` what is computed: teachers loaded, no bf16 where that is slow.
    """
    main = runtime.group.on_main_process
    executed = run.replace(recipe=teachers.load_teachers(run, splits, runtime, finished, log))
    if not uses_bf16:
        executed = replace_everywhere(executed, precision="fp32")
    built, splits, note = with_channels_of(
        lambda s: models.build(run.model, s.train.images, len(s.class_names), run.seed), splits
    )
    if note:
        log(note)
    models.look_for_head(built, splits.train.images)
    _ = built.head  # a network without one is refused before the first step
    state = TrainState(executed, runtime, built, splits)
    for note in _execution_notes(run, state, runtime, uses_bf16):
        log(note)
    rows = _resume(run, folder, state, runtime, log)
    if not rows:
        main(lambda: rehearse(run, folder, state, splits))
    yield from ((folder, row) for row in rows)

    last: tuple[int, Classifier] | None = None
    stopped = bool(rows and rows[-1].stopped_by)
    with tracking(runtime.group.engine, "crossclass", folder.path, flat(run.to_dict())) as send:
        for epoch in range(len(rows) + 1, 1 if stopped else run.epochs + 1):
            try:
                row = train_epoch(executed.recipe_at(epoch), state, splits, epoch, progress, log)
            except NotFiniteError as e:
                alarm = nonfinite.write_failure(folder, e, runtime, splits.train.labels)
                raise UserError(
                    f"{alarm}; lower lr or set grad_clip_norm=1.0, and train again: earlier epochs are kept"
                ) from e
            validated = validation.is_validated(run, epoch)
            saved = validated or (run.checkpoint_every and epoch % run.checkpoint_every == 0)
            clean = clean_images(executed, runtime, splits.train, epoch)
            model = state.eval_model(epoch, clean) if saved else state.model
            if validated:
                row = validation.validate(row, executed, runtime, model, splits, progress)
            rows.append(_with_alarms(run, [*rows, row], len(splits.class_names)))
            rows[-1] = main(lambda: _write(run, folder, state, model, splits, rows, keep_state))  # noqa: B023
            last = epoch, model
            send(rows[-1].to_dict(), epoch)
            yield folder, rows[-1]
            if rows[-1].stopped_by:
                break

    results = final_evaluation(executed, folder, runtime, splits, progress, last, images)
    main(lambda: write_results(folder.path / "measure.json", results))
    main(lambda: write_pictures(folder.path / "measure.json", [r.pictures for r in results.results]))
    drawn = [c.feature_pictures for c in results.comparisons]
    main(lambda: write_feature_pictures(folder.path / "measure.json", drawn))
    main(folder.end)


def _about(run: Run, splits: Splits) -> str:
    """What a person would check before waiting for it: recipe, attack, network, images, epochs."""
    attack = run.recipe.crafting_attack
    trained = f"{run.recipe.kind} with {attack}" if attack else run.recipe.kind
    images = f"{len(splits.train):,} training images of {len(splits.class_names)} classes"
    return f"{trained}; {run.model}; {images}; {run.epochs} epochs"


def _begun_with(folder: RunFolder) -> dict[str, Any]:
    """How the epochs of a run that is resumed were computed (its env.json); empty for one that begins."""
    return (folder.read("env.json") or {}) if folder.rows() else {}


def _write(
    run: Run,
    folder: RunFolder,
    state: TrainState,
    model: Classifier,
    splits: Splits,
    rows: list[EpochRow],
    keep_state: Sequence[forks.KeptEpoch],
) -> EpochRow:
    """Write the epoch just trained, the last of the rows, to the disk; its row as it is logged."""
    row, good = rows[-1], None
    if run.restore_last_good and row.stopped_by:
        good = checkpointing.last_good(folder, row.stopped_by.last_good)
        row = checkpointing.restored(row, good and good[1])
    written = [*rows[:-1], row]
    folder.log(row.to_dict(), metrics_csv(written))
    checkpointing.save_epoch(run, folder, model, splits, written, good)
    forks.keep(run, folder, state, written, keep_state)
    folder.save_state(row.epoch, state.tensors(), {"digest": run.digest()})
    return row


def _with_alarms(run: Run, rows: Sequence[EpochRow], classes: int) -> EpochRow:
    """The last of the rows with what it says beside the others, and the alarms that it raises."""
    row = rows[-1]
    raised = alarms.raised(rows, classes) if row.watched else []
    stopping = [a for a in raised if a.name in run.stop_on_alarms and a.level == "alarm"]
    told = [str(a) for a in raised if a.level == "alarm" or a.name == "predictor-collapsed"]
    warnings = [*row.warnings, *told]
    update = {"alarms": raised, "warnings": warnings, "stopped_by": stopping[0] if stopping else None}
    return row.model_copy(update={**alarms.trends(rows), **update})


def _execution_notes(run: Run, state: TrainState, runtime: Runtime, uses_bf16: bool) -> Iterator[str]:
    """What a person should know about how this run is executed."""
    if not uses_bf16 and replace_everywhere(run, precision="fp32") != run:
        yield "this CPU is slow at bf16: computing in float32 instead (runtime.emulate_bf16=true insists)"
    if not state.batch_coupling:
        return
    alone, most = -(-run.batch // runtime.group.size), runtime.micro_batch or run.batch
    synced = ["batch norm"] if runtime.sync_batch_norm else []
    who = " and ".join(c for c in state.batch_coupling if c not in synced)
    if runtime.group.size > 1 and who:
        remedy = "; runtime.sync_batch_norm=true joins them" if who == "batch norm" else ""
        yield (
            f"{runtime.group.size} processes: {who} sees {min(alone, most)} of {run.batch} images, so "
            f"the result is not that of one process{remedy}"
        )
    elif most < alone:
        who = " and ".join(state.batch_coupling)
        yield (
            f"runtime.micro_batch={most}: {who} sees {most} of {run.batch} images at a time, so the "
            "result is not that of whole batches"
        )


def _resume(run: Run, folder: RunFolder, state: TrainState, runtime: Runtime, log: Log) -> list[EpochRow]:
    """Put the newest state back; the rows up to it."""
    main = runtime.group.on_main_process
    saved = main(folder.load_state)
    if saved is None:
        main(lambda: folder.rewind(0))
        return []
    tensors, card, notes = saved
    for note in notes:
        log(note)
    forked = run.parent is not None and card["digest"] != run.digest()
    state.restore(tensors, of_parent=forked)
    main(lambda: folder.rewind(card["epoch"]))
    events = folder.path / "events.jsonl"
    rows = main(lambda: read_epochs(events, done=True))
    if len(rows) != card["epoch"]:
        raise UserError(f"{events} lacks epochs; delete {folder.path} to train again")
    log(f"{'going on from the parent' if forked else 'resuming'} after epoch {card['epoch']}")
    return rows


def _environment(run: Run, splits: Splits, runtime: Runtime, label: str) -> dict[str, Any]:
    """What env.json says about where and on which data a run is trained."""
    path = getattr(run.data, "path", None)
    images = min(run.validation.n or len(splits.test), len(splits.test))
    drawn = ", class-balanced" if images < len(splits.test) and run.validation.balanced else ""
    return {
        **runtime.describe(),
        "global_batch": run.batch,
        "label": label,
        "seed": run.seed,
        "digest": run.digest(),
        "class_names": list(splits.class_names),
        "data": describe_data(run.data),
        "data_path": str(path.absolute()) if path else None,
        "data_checksum": splits.checksum,
        "sizes": {s: len(getattr(splits, s)) for s in ("train", "val", "test")},
        "check": f"{run.validation_attack()}, judged in fp32 on {images:,} test images{drawn}",
        "final": f"{run.final_attack()}, judged in fp32 on {len(splits.test):,} test images",
        "sharing": None if splits.sharing is None else splits.sharing.tolist(),
        "settings_changed": differences(run, Run()),
    }
