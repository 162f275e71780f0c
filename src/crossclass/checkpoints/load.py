"""What a target on the command line stands for: whose model, on whose images, against which ball.

A target is a run folder (`RUN`, `RUN@best.test`), a checkpoint of ours, or anyone's file of weights.
For a stranger's file the network is `model=...`, or recognized by the names and shapes in the file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from crossclass import models
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.foreign import stranger
from crossclass.checkpoints.loaded import LoadedCheckpoint, data_of, describe
from crossclass.checkpoints.own import check_fit, data_of_run, files_of, identity, load_model
from crossclass.core.errors import UserError
from crossclass.core.overrides import Changes, changes_of
from crossclass.core.runtime import Runtime
from crossclass.data import AnyData, Splits


def subjects(
    targets: Sequence[str],
    changes: Changes | None = None,
    runtime: Runtime | None = None,
    *,
    allow_partial: bool = False,
) -> Iterator[LoadedCheckpoint]:
    """The models that targets stand for, one after the other.

    `changes` are values at dotted paths of `data` and `model`. `allow_partial` leaves weights that
    the file lacks at random values. Raises UserError.
    """
    runtime, changes = runtime or Runtime(), changes or {}
    shared: dict[str, Splits] = {}

    def images(data: AnyData, where: str) -> Splits:
        """Read once, however many checkpoints are measured on them."""
        key = data.digest() + str(getattr(data, "path", ""))
        if key not in shared:
            shared[key] = data().to(runtime.torch_device)
        if len(shared[key].test) == 0:
            raise UserError(f"{where}: the data hold no test images; give some with data.path=DIR")
        return shared[key]

    named = [files_of(target) for target in targets]
    if (about_model := changes_of(changes, "model")) and None not in named:
        raise UserError(
            f"{targets[0]} says itself which model it is; '{min(about_model)}' is for files of others"
        )
    for target, found in zip(targets, named, strict=True):
        if found is None:
            path = Path(target)
            splits = images(data := data_of(changes, path), target)
            yield stranger(path, data, splits, changes, runtime, allow_partial)
            continue
        files, run = found
        for path in files:
            built, card = load_model(path)
            data = data_of_run(run, path, changes)
            splits = images(data, str(path))
            check_fit(card, splits, path)
            model = runtime.to_device(built)
            assert isinstance(model, models.Classifier)
            told = identity(card, path, path.parent.name if run else "", data, model)
            threat = run.threat if run else Linf()
            yield LoadedCheckpoint(model, splits, told, (threat,) if threat == Linf() else (threat, Linf()))


__all__ = ["LoadedCheckpoint", "describe", "identity", "load_model", "subjects"]
