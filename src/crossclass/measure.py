"""A model, a split and an attack in; plain numbers with the conditions that they hold under out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from crossclass import checkpoint, evaluate, models
from crossclass.attacks import AnyAttack
from crossclass.data import AnyData, Splits
from crossclass.errors import UserError, did_you_mean
from crossclass.recipes import Run, reference_attack
from crossclass.runtime import Runtime
from crossclass.settings import Settings, load_yaml, override
from crossclass.store import RunFolder
from crossclass.threat import Linf

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far, and out of how many."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class Measure(Settings):
    """What `measure` may be told; unset values are the run's own."""

    attack: AnyAttack | None = None
    """Unset: PGD-20 at the eps the run was trained with, and at 8/255 too where that differs."""
    clean: bool = False
    """Measure on clean images only (`attack=none`)."""
    split: str = "test"
    n: int | None = Field(None, ge=1)
    """The first n images of the split; unset is all."""
    seed: int = Field(0, ge=0)
    batch: int = Field(250, ge=1)


def load_model(path: Path) -> tuple[models.Classifier, dict[str, Any]]:
    """A model of ours from its checkpoint file, in eval mode, with its card; raises UserError."""
    tensors, card = checkpoint.load(path)
    if "model" not in card:
        raise UserError(f"{path} holds no model (a resume state?); give best.val, best.test or last")
    settings = models.AnyModel.model_validate(card["model"])
    size = card.get("size", 32)  # cards of earlier versions: nets that take any size
    return models.rebuild(settings, tensors, card["classes"], card["channels"], size), card


def numbers(
    model: models.Classifier,
    splits: Splits,
    attack: AnyAttack | None,
    seed: int = 0,
    *,
    split: str = "test",
    n: int | None = None,
    runtime: Runtime,
    batch: int = 250,
    progress: Progress = silent,
) -> dict[str, Any]:
    """One object of measure.json: the numbers of one model under one attack, and their conditions."""
    part, done = splits.part(split).first(n), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress("measure", done, len(part))

    seen = evaluate.under(
        model, part, attack, seed, batch=batch, memory_format=runtime.memory_format, advance=advance
    )
    said: dict[str, Any] = attack.plain() if attack is not None else {}
    conditions = {
        "attack": said or None,
        "eps": said["threat"]["eps"] if said else 0,
        "steps": said.get("steps", 1) if said else 0,
        "seed": seed,
        "n": len(part),
        "split": split,
        "precision": "fp32",
        "batch": batch,
    }
    return {
        "split": split,
        "n": len(part),
        "attack": str(attack) if attack is not None else "none (clean images)",
        "conditions": conditions,
        **evaluate.summary(seen, splits.class_names, splits.sharing),
    }


def measured(
    targets: Sequence[str],
    changes: Sequence[str] = (),
    runtime: Runtime | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Measure run folders (`RUN`, `RUN@best.test`) or checkpoint files of ours; one object for each.

    `changes` are `path=value` texts: those under `data.` change where the images come from, the others
    are `Measure`'s. Raises UserError.
    """
    runtime = runtime or Runtime()
    own = [_clean(c) for c in changes if not c.startswith("data.")]
    settings = _settings(own)
    results = []
    for target in targets:
        files, run, seen = _files(target)
        data = _data(run, seen, [c for c in changes if c.startswith("data.")])
        splits = data().to(runtime.place)
        for path in files:
            model, card = load_model(path)
            _fits(card, splits, path)
            model = runtime.placed(model)  # type: ignore[assignment]
            for attack in _attacks(settings, own, run):
                found = numbers(
                    model,
                    splits,
                    attack,
                    settings.seed,
                    split=settings.split,
                    n=settings.n,
                    runtime=runtime,
                    batch=settings.batch,
                    progress=progress,
                )
                results.append({**identity(card, path, describe(data)), **found})
    return results


def identity(card: dict[str, Any], path: Path, data: str) -> dict[str, Any]:
    """Which checkpoint an object is about: the folder and name, its epoch and what chose it."""
    return {
        "checkpoint": card["checkpoint"],
        "run": path.parent.name,
        "epoch": card["epoch"],
        "chosen_by": card["chosen_by"],
        "data": data,
    }


def describe(data: AnyData) -> str:
    """A data set in a few words."""
    plain = data.plain()
    sizes = [f"{k}={plain[k]}" for k in ("n_train", "n_val", "n_test") if plain.get(k) is not None]
    return f"{plain['kind']} ({', '.join(sizes)})" if sizes else str(plain["kind"])


def _clean(change: str) -> str:
    return "clean=true" if change.replace(" ", "") == "attack=none" else change


def _settings(changes: Sequence[str]) -> Measure:
    below = any(c.startswith("attack.") and not c.startswith("attack.kind=") for c in changes)
    start = Measure(attack=reference_attack(Linf())) if below else Measure()
    return override(start, changes)


def _attacks(settings: Measure, changes: Sequence[str], run: Run) -> list[AnyAttack | None]:
    if settings.clean:
        return [None]
    if settings.attack is not None:
        eps_given = any("threat" in c or "attack.kind" in c or "attack=" in c for c in changes)
        own = settings.attack if eps_given else settings.attack.but(threat=run.threat)
        return [own]
    usual = reference_attack(run.threat)
    standard = reference_attack(Linf())
    return [usual] if usual == standard else [usual, standard]


def _files(target: str) -> tuple[list[Path], Run, dict[str, Any]]:
    """The checkpoint files that a target names, their run, and what its env.json says."""
    place, _, which = target.partition("@")
    path = Path(place)
    if path.suffix == ".safetensors" or path.is_file():
        if not path.is_file():
            raise UserError(f"there is no checkpoint {path}")
        folder, files = path.parent, [path]
    else:
        folder = path
        there = RunFolder.at(path).checkpoints()
        chosen = [which] if which else [*[b for b in ("best.val", "best.test") if b in there][:1], "last"]
        for name in chosen:
            if name not in there:
                hint = did_you_mean(name, there) if there else "; train it first"
                raise UserError(f"{path} has no checkpoint '{name}'{hint}")
        files = [RunFolder(path).checkpoint(name) for name in chosen]
    if not (folder / "config.yaml").exists():
        raise UserError(f"{path} lies outside a run folder, so its data are unknown; keep it in its folder")
    home = RunFolder.at(folder)
    return (
        files,
        load_yaml(Run, home.config(), str(folder / "config.yaml")),
        home.read("env.json") or {},
    )


def _data(run: Run, env: dict[str, Any], changes: Sequence[str]) -> AnyData:
    data = run.data
    if hasattr(data, "path") and env.get("data_path"):
        data = data.but(path=env["data_path"])
    return override(data, [c.removeprefix("data.") for c in changes])


def _fits(card: dict[str, Any], splits: Splits, path: Path) -> None:
    channels, classes = splits.test.images.shape[1], len(splits.class_names)
    if (card["channels"], card["classes"]) != (channels, classes):
        raise UserError(
            f"{path} is for {card['classes']} classes and {card['channels']} channels, the data have "
            f"{classes} and {channels}; give its own data with data.path=DIR"
        )
