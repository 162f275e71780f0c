"""Which checkpoints an epoch writes, and going back to the last one before an alarm."""

from collections.abc import Sequence

from torch import Tensor, nn

from crossclass.analysis.metrics import Part
from crossclass.analysis.records import EpochRow
from crossclass.checkpoints.card import Card, load_checkpoint, save_checkpoint
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.data import Splits
from crossclass.models.base import size_of
from crossclass.models.saved_state import saved_state
from crossclass.training.run import Run

Checkpoint = tuple[dict[str, Tensor], Card]
"""The tensors of a network, and the card beside them."""


def best(rows: Sequence[EpochRow], part: Part) -> EpochRow | None:
    """The first row with the highest robust accuracy on a part; None if none was validated on it."""
    key = f"{part}_robust"
    validated = [row for row in rows if row.get(key) is not None]
    return max(validated, key=lambda row: row[key]) if validated else None


def last_good(folder: RunFolder, epoch: int | None) -> Checkpoint | None:
    """The newest checkpoint that was kept up to an epoch, if there is one."""
    if epoch is None:
        return None
    paths = [folder.checkpoint(name) for name in ("last_good", "best.val", "best.test")]
    kept = [load_checkpoint(path) for path in paths if path.exists()]
    return max((c for c in kept if c[1].epoch <= epoch), key=lambda c: c[1].epoch, default=None)


def restored(row: EpochRow, good: Card | None) -> EpochRow:
    """The row of an epoch that ended the training, with the epoch whose network `last` holds, and why."""
    assert row.stopped_by is not None
    if good is None:
        why = "nothing to go back to: no checkpoint was kept before the trouble; `last` is this epoch's"
        return row.model_copy(update={"warnings": [*row.warnings, why]})
    exact = good.epoch == row.stopped_by.last_good
    which = "the last validation" if exact else f"the newest checkpoint kept ({good.checkpoint})"
    why = f"`last` is of epoch {good.epoch}, {which} before the trouble"
    return row.model_copy(update={"restored_epoch": good.epoch, "warnings": [*row.warnings, why]})


def save_epoch(
    run: Run,
    folder: RunFolder,
    model: nn.Module,
    splits: Splits,
    rows: Sequence[EpochRow],
    good: Checkpoint | None = None,
) -> None:
    """Write the checkpoints that the last of the rows earns; `last` from `good` where it is given."""
    row = rows[-1]
    parts: tuple[Part, ...] = ("val", "test")
    names = [f"best.{part}" for part in parts if best(rows, part) is row]
    if run.checkpoint_every and row.epoch % run.checkpoint_every == 0:
        names.append(f"epoch_{row.epoch:03d}")
    if good is not None:
        tensors, card = good
        card = card.model_copy(update={"checkpoint": "last", "chosen_by": None})
        save_checkpoint(folder.checkpoint("last"), tensors, card)
    else:
        names += ["last"] if row.epoch == run.epochs or row.stopped_by else []
        names += ["last_good"] if run.restore_last_good and row.watched else []
    for name in names:
        save_checkpoint(folder.checkpoint(name), saved_state(model), card_of(run, splits, name, row))


def card_of(run: Run, splits: Splits, name: str, row: EpochRow | None = None) -> Card:
    """The card of a checkpoint after an epoch; without its row, as it is before the first."""
    scores = ("val_clean", "val_robust", "test_clean", "test_robust", "cas")
    return Card(
        checkpoint=name,
        epoch=row.epoch if row else 0,
        chosen_by=name.partition(".")[2] or None,
        digest=run.digest(),
        model=run.model,
        classes=len(splits.class_names),
        channels=splits.train.images.shape[1],
        size=size_of(splits.train.images),
        class_names=list(splits.class_names),
        data=run.data,
        threat=run.recipe.threat,
        recipe=run.recipe.to_dict(),
        seed=run.seed,
        check=f"{run.validation_attack()}",
        scores={key: row.get(key) for key in scores} if row else {},
    )
