"""Run folders and checkpoints of ours: which files a target names, and the models in them."""

from pathlib import Path
from typing import Any

from crossclass import models
from crossclass.checkpoints import formats
from crossclass.checkpoints.card import is_ours, load_checkpoint
from crossclass.checkpoints.loaded import (
    Identity,
    Source,
    data_of,
    describe,
    file_sha256,
    normalisation,
    not_the_classes,
)
from crossclass.checkpoints.run_folder import RunFolder, place_of
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.overrides import Changes, changes_of, override
from crossclass.core.trust import names_of_code, require_consent, trusting
from crossclass.data import AnyData, Splits
from crossclass.training.run import Run


def load_model(path: Path, *, trust: bool = False) -> tuple[models.Classifier, dict[str, Any]]:
    """A model of ours from its checkpoint file, in eval mode, with its card.

    `trust` lets the card name code that is imported and run. Raises UserError.
    """
    tensors, card = load_checkpoint(path)
    if "model" not in card:
        raise UserError(f"{path} holds no model (a resume state?); give best.val, best.test or last")
    settings = models.settings_of(card["model"])
    size = card.get("size", 32)  # cards of earlier versions: nets that take any size
    with trusting(everything=trust):
        require_consent(names_of_code(card["model"]), str(path))
        return models.rebuild(settings, tensors, card["classes"], card["channels"], size), card


def identity(card: dict[str, Any], path: Path, run: str, data: AnyData, model: models.Classifier) -> Identity:
    """Which checkpoint of ours an object is about: its run and name, its epoch and what chose it."""
    return Identity(
        checkpoint=card["checkpoint"],
        run=run,
        epoch=card["epoch"],
        chosen_by=card["chosen_by"],
        data=describe(data),
        model=models.describe(models.settings_of(card["model"]), card["classes"]),
        normalise=normalisation(model),
        loaded=[],
        source=path.name,
        sha256=file_sha256(path),
    )


def files_of(target: str) -> tuple[list[Path], Run | None] | None:
    """Checkpoints of ours that a target names, with their run where it is known; None for strangers."""
    folder, which = place_of(target)
    path = Path(target)
    if path.is_file():
        if not is_ours(path):
            return None
        return [path], _run_of(path.parent)
    if folder.suffix in formats.SUFFIXES and not folder.is_dir():
        raise UserError(f"there is no checkpoint {target}")
    there = RunFolder.at(folder).checkpoints()
    chosen = [which] if which else [*[b for b in ("best.val", "best.test") if b in there][:1], "last"]
    for name in chosen:
        if name not in there:
            hint = did_you_mean(name, there) if there else "; train it first"
            raise UserError(f"{folder} has no checkpoint '{name}'{hint}")
    return [RunFolder(folder).checkpoint(name) for name in chosen], _run_of(folder)


def _run_of(folder: Path) -> Run | None:
    if not (folder / "config.yaml").exists():
        return None
    return load_yaml(Run, RunFolder.at(folder).config(), str(folder / "config.yaml"))


def data_of_run(run: Run | None, path: Path, changes: Changes) -> AnyData:
    """The images that a run was trained on, where they lay, with what the changes say."""
    if run is None:
        return data_of(changes, path)
    data, env = run.data, RunFolder.at(path.parent).read("env.json") or {}
    if hasattr(data, "path") and env.get("data_path"):
        data = data.replace(path=env["data_path"])
    changed = override(Source(data=data), changes_of(changes, "data")).data
    assert changed is not None
    return changed


def check_fit(card: dict[str, Any], splits: Splits, path: Path) -> None:
    """Raises UserError if a checkpoint is for other classes or channels than the data have."""
    channels, classes = splits.test.images.shape[1], len(splits.class_names)
    if card["classes"] != classes:
        raise UserError(not_the_classes(path, card["classes"], classes))
    if card["channels"] != channels:
        raise UserError(
            f"{path} is for images of {card['channels']} channels, the data have {channels}; give its own "
            "data with data.path=DIR"
        )
