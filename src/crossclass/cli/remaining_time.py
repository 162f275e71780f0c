"""How long a training still takes: from its last epochs, the checks that are still due, and what follows."""

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossclass.analysis.records import EpochRow
    from crossclass.training.run import Run

_EPOCHS, _CHECKS = 5, 3
"""The median of so many of the last ones counts: the machine may have been busier or less busy before."""


class RemainingTime:
    """Estimates from the rows of a run, those before a resume too, the seconds that are left."""

    def __init__(self, run: "Run", test_images: int) -> None:
        self.run, self.test_images = run, test_images
        self.rows: list[EpochRow] = []

    def after(self, row: "EpochRow") -> float:
        """The seconds that are left after one more epoch."""
        from crossclass.training.validation import is_validated

        self.rows.append(row)
        epochs = [r.seconds for r in self.rows if r.seconds is not None][-_EPOCHS:]
        checks = [r.check_seconds for r in self.rows if r.check_seconds is not None][-_CHECKS:]
        left = range(row.epoch + 1, self.run.epochs + 1)
        check = median(checks or [0.0])
        due = sum(is_validated(self.run, epoch) for epoch in left)
        return len(left) * median(epochs or [0.0]) + due * check + self._final(check)

    def _final(self, check: float) -> float:
        """The full evaluation at the end, by how many gradients it takes beside a check."""
        from crossclass.training.validation import CHECK_GRADIENTS, EVALUATED

        checked = next((r for r in reversed(self.rows) if r.watched_n), None)
        if checked is None:
            return 0.0
        images = (checked.test_n or 0) + (checked.watched_n or 0) * (checked.watched == "val")
        taken = images * (self.run.validation_attack().gradients + CHECK_GRADIENTS)
        return check * EVALUATED * self.test_images * (self.run.final_attack().gradients + 1) / max(1, taken)
