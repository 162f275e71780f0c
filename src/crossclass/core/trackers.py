"""Experiment trackers, such as TensorBoard: every epoch's numbers are sent there too, by Accelerate."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator

from crossclass.core.errors import UserError

Tracker = Literal[
    "tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio"
]


def require_tracker(engine: Accelerator, tracker: Tracker) -> None:
    """Raises UserError if the package of a tracker is not installed."""
    if not engine.log_with:  # Accelerate leaves out what is not installed
        raise UserError(
            f"runtime.track={tracker} needs its package: pip install {tracker}; metrics.csv and "
            "events.jsonl are written without it"
        )


@contextmanager
def tracking(
    engine: Accelerator, name: str, folder: Path, settings: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, Any], int], None]]:
    """A function `send(row, epoch)` that sends an epoch's numbers to the engine's tracker, if it has one.

    `name` is the project's name, `settings` what the tracker shows as the settings of the run; trackers that
    write files write them to `folder`. The tracker is closed at the end.
    """
    if not engine.log_with:
        yield lambda row, epoch: None
        return
    plain = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in settings.items()}
    engine.project_configuration.logging_dir = str(folder)
    engine.init_trackers(name, config=plain)

    def send(row: Mapping[str, Any], epoch: int) -> None:
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "epoch"}
        engine.log(numbers, step=epoch)

    try:
        yield send
    finally:
        for tracker in engine.trackers if engine.is_main_process else ():
            tracker.finish()
        engine.trackers.clear()
