"""The one training loop. A run is said by one object; its folder is that object's digest.

`train(run)` yields one row per epoch; `trained(run)` returns at once if the result exists. Every random
draw starts from (seed, epoch, step, purpose), so a run that was killed and resumed equals an
uninterrupted one bit for bit on a CPU, and checking never changes what is trained.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossclass import alarms, checkpoint, models, teachers, watch
from crossclass.data import Split, Splits, as_float, batches
from crossclass.errors import UserError
from crossclass.files import held
from crossclass.learner import Learner
from crossclass.losses import hard
from crossclass.measure import Progress, silent
from crossclass.recipes import AnyRecipe, Run, smoothed
from crossclass.runtime import Runtime, native_bf16
from crossclass.settings import differences
from crossclass.store import Row, RunFolder
from crossclass.streams import generator
from crossclass.subjects import describe


def sealed(run: Run, splits: Splits) -> Run:
    """The run with checksums in place of where its files lie."""
    run = run.but(recipe=teachers.sealed(run.recipe))
    if hasattr(run.data, "checksum"):
        return run.but(data=run.data.but(checksum=splits.checksum))
    return run


def trained(
    run: Run,
    out: Path | str = "runs",
    label: str = "run",
    runtime: Runtime | None = None,
    progress: Progress = silent,
) -> RunFolder:
    """The folder of the finished run, trained or resumed if need be."""
    *_, (folder, _) = train(run, out, label, runtime, progress)
    return folder


def train(
    run: Run,
    out: Path | str = "runs",
    label: str = "run",
    runtime: Runtime | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[RunFolder, Row]]:
    """Train or resume, yielding the folder and each epoch's row (also those that were there already).

    Raises UserError for a user's mistake, a full disk or a loss that is no number; what was finished
    before stays, and the same call goes on from there. Raises BusyError while another process trains the run.
    """
    runtime = runtime or Runtime()
    splits = run.data()
    splits.part("train")  # there may be none: a folder of test images is enough to measure
    run = sealed(run, splits)
    folder = RunFolder.of(Path(out), label, run)
    if folder.done:
        yield from ((folder, row) for row in folder.rows())
        return

    def find(teacher: Run) -> RunFolder:
        *_, (found, _) = train(teacher, out, f"{label}-teacher", runtime, progress, say)
        return found

    with held(folder.path / ".lock", f"{folder.path} is being trained"):
        if not folder.done:  # another process may have finished it since
            folder.write("env.json", _about(run, splits, runtime, label, folder))
            yield from _train(run, folder, splits.to(runtime.place), runtime, find, progress, say)
            return
    yield from ((folder, row) for row in folder.rows())


def _train(
    run: Run,
    folder: RunFolder,
    splits: Splits,
    runtime: Runtime,
    find: Callable[[Run], RunFolder],
    progress: Progress,
    say: Callable[[str], None],
) -> Iterator[tuple[RunFolder, Row]]:
    """Train what `train` has prepared, to the end; `find` trains a teacher."""
    if _uses_bf16(run) and runtime.place.type == "cpu" and not native_bf16():
        say("this CPU emulates bf16, slowly; precision=fp32 and recipe.attack.precision=fp32 are faster")
    recipe = teachers.present(run.recipe, run, splits, runtime, find, say)
    built = models.build(run.model, splits.train.images, len(splits.class_names), run.seed)
    learner = Learner(run, runtime, built, len(splits.train), len(splits.class_names))
    rows = _resume(folder, learner, say)
    yield from ((folder, row) for row in rows)

    ended = bool(rows and rows[-1].get("ended_by"))
    for epoch in range(len(rows) + 1, 1 if ended else run.epochs + 1):
        row = _epoch(run.but(recipe=recipe).recipe_at(epoch), learner, splits, epoch, progress)
        checked = epoch % run.check.every == 0 or epoch in (1, run.epochs)
        keeping = checked or (run.keep_every and epoch % run.keep_every == 0)
        model = learner.product(_clean(run, runtime, splits.train, epoch)) if keeping else learner.bare
        row |= watch.check(run, runtime, model, splits, epoch, progress) if checked else watch.unchecked()
        rows.append(row)
        row |= _observed(run, rows, len(splits.class_names))
        if run.roll_back and row["ended_by"]:
            row |= _rolled_back(folder, row)
        folder.log(row, rows)
        _keep(run, folder, model, splits, rows)
        folder.save_state(epoch, learner.tensors(), {"digest": run.digest()})
        yield folder, row
        if row["ended_by"]:
            break

    folder.write("measure.json", watch.final(run, folder, runtime, splits, progress))
    folder.finish()
    folder.drop_states()


def _epoch(recipe: AnyRecipe, learner: Learner, splits: Splits, epoch: int, progress: Progress) -> Row:
    run, runtime, model, optimizer = learner.run, learner.runtime, learner.model, learner.optimizer
    split, classes, started = splits.train, len(splits.class_names), time.perf_counter()
    model.train()
    right, total = torch.zeros((), device=runtime.place), torch.zeros((), device=runtime.place)
    indices = batches(len(split), run.batch, generator(run.seed, epoch, 0, "order"))
    for step, index in enumerate(indices):
        for group in optimizer.param_groups:  # all of them: Rice's code forgets the second
            group["lr"] = run.lr_at(epoch, (step + 1) / len(indices))
        index = index.to(runtime.place)
        x, y = _batch(run, runtime, split, index, epoch, step)
        if run.mix is not None:
            x, y = run.mix(x, y, classes, generator(run.seed, epoch, step, "mix"))
        soft = smoothed(y, run.smoothing, classes) if run.smoothing else y
        noise = generator(run.seed, epoch, step, "attack")
        x_adv = recipe.craft(learner.bare, x, soft if run.attack_labels == "soft" else y, noise)
        with torch.autocast(runtime.place.type, torch.bfloat16, enabled=run.precision == "bf16"):
            loss, logits = recipe.loss(model, x, x_adv, soft, generator(run.seed, epoch, step, "loss"))
        if run.ensembling is not None:
            loss = loss + run.ensembling.penalty(logits, learner.memory, index, epoch)
            run.ensembling.remember(logits, learner.memory, index, epoch)
        optimizer.zero_grad(set_to_none=True)
        runtime.backward(loss)
        if run.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), run.clip)
        optimizer.step()
        if run.average is not None and learner.average is not None:
            run.average.after_step(learner.average, learner.bare, epoch)
        with torch.no_grad():
            right += (logits.argmax(dim=1) == hard(y)).sum()
            total += loss.detach() * len(y)
        progress("train", step + 1, len(indices))
    if run.average is not None and learner.average is not None:
        run.average.after_epoch(learner.average, learner.bare, epoch)
    lr = optimizer.param_groups[0]["lr"]
    if not math.isfinite(float(total)):
        raise UserError(
            f"the training loss is not a number in epoch {epoch}; lower lr (now {lr:g}) or set clip=1.0, "
            "and train again: the epochs before are kept"
        )
    seen = float(right) / len(split)
    adversarial = run.recipe.threat is not None
    return {
        "epoch": epoch,
        "lr": lr,
        "seconds": round(time.perf_counter() - started, 3),
        "train_loss": float(total) / len(split),
        "train_clean": None if adversarial else seen,
        "train_robust": seen if adversarial else None,
    }


def _batch(
    run: Run, runtime: Runtime, split: Split, index: Tensor, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """Augmented images in [0, 1] and their classes; the one place that draws training batches."""
    images = split.images[index]
    if run.augment is not None:
        images = run.augment(images, generator(run.seed, epoch, step, "augment"))
    return as_float(images).contiguous(memory_format=runtime.memory_format), split.labels[index]


def _clean(run: Run, runtime: Runtime, split: Split, epoch: int) -> Iterator[Tensor]:
    """Augmented training images once through, for the batch norm of an average."""
    for step, index in enumerate(batches(len(split), run.batch, generator(run.seed, epoch, 0, "refresh"))):
        yield _batch(run, runtime, split, index.to(runtime.place), epoch, step)[0]


def _observed(run: Run, rows: list[Row], classes: int) -> Row:
    """What the row just added says beside the others, and the alarms that it raises."""
    found = alarms.raised(rows, classes) if rows[-1].get("watched") else []
    ending = [a for a in found if a.name in run.stop_on and a.level == "alarm"]  # a note ends nothing
    return {
        **alarms.trends(rows),
        "alarms": [asdict(a) for a in found],
        "warnings": [*rows[-1]["warnings"], *(str(a) for a in found if a.level == "alarm")],
        "ended_by": asdict(ending[0]) if ending else None,
    }


def _rolled_back(folder: RunFolder, row: Row) -> Row:
    """To which epoch `last` goes back, and why, in words."""
    good, found = row["ended_by"]["good"], _good(folder, row["ended_by"]["good"])
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
    names = [f"best.{s}" for s in ("val", "test") if watch.best(rows, s) is row]
    if run.keep_every and row["epoch"] % run.keep_every == 0:
        names.append(f"epoch_{row['epoch']:03d}")
    if row["epoch"] == run.epochs or row["ended_by"]:
        names.append("last")
    if run.roll_back and row.get("watched"):
        names.append("last_good")
    if row.get("rolled_back_to"):
        found = _good(folder, row["rolled_back_to"])
        assert found is not None
        tensors, card = checkpoint.load(folder.checkpoint(found[0]))
        checkpoint.save(folder.checkpoint("last"), tensors, {**card, "checkpoint": "last", "chosen_by": None})
        names = [n for n in names if not n.startswith("last")]
    for name in names:
        card = {
            "format": 1,
            "checkpoint": name,
            "epoch": row["epoch"],
            "chosen_by": name.partition(".")[2] or None,
            "digest": run.digest(),
            "model": run.model.plain(),
            "classes": len(splits.class_names),
            "channels": splits.train.images.shape[1],
            "size": splits.train.images.shape[-1],
            "class_names": list(splits.class_names),
            "recipe": run.recipe.plain(),
            "seed": run.seed,
            "check": f"{run.check_attack()}",
            "scores": {
                k: row.get(k) for k in ("val_clean", "val_robust", "test_clean", "test_robust", "cas")
            },
        }
        checkpoint.save(folder.checkpoint(name), model.state_dict(), card)


def _good(folder: RunFolder, epoch: int | None) -> tuple[str, dict[str, Any]] | None:
    """Name and card of the newest checkpoint that was kept up to an epoch, if any."""
    if epoch is None:
        return None
    kept = [(name, folder.checkpoint(name)) for name in ("last_good", "best.val", "best.test")]
    cards = [(name, checkpoint.load(path)[1]) for name, path in kept if path.exists()]
    return max((c for c in cards if c[1]["epoch"] <= epoch), key=lambda c: c[1]["epoch"], default=None)


def _resume(folder: RunFolder, learner: Learner, say: Callable[[str], None]) -> list[Row]:
    """Put the newest state back; the rows up to it."""
    state = folder.load_state()
    if state is None:
        return folder.rewind(0)
    tensors, card, notes = state
    for note in notes:
        say(note)
    learner.restore(tensors)
    rows = folder.rewind(card["epoch"])
    if len(rows) != card["epoch"]:
        raise UserError(f"{folder.path / 'events.jsonl'} lacks epochs; delete {folder.path} to train again")
    say(f"resuming after epoch {card['epoch']}")
    return rows


def _about(run: Run, splits: Splits, runtime: Runtime, label: str, folder: RunFolder) -> dict[str, Any]:
    path = getattr(run.data, "path", None)
    images = len(splits.test.first(run.check.n))
    return {
        **runtime.about(),
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


def _uses_bf16(run: Run) -> bool:
    return run.precision == "bf16" or "bf16" in str(run.recipe.plain())
