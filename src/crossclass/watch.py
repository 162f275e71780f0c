"""What is measured while a run is trained, and at its end: plain rows of numbers, judged in float32."""

import time
from typing import Any

from torch import nn

from crossclass import compare, evaluate, models
from crossclass.data import Splits
from crossclass.measure import Measure, Progress, look, plain
from crossclass.recipes import Run
from crossclass.runtime import Runtime
from crossclass.store import Row, RunFolder
from crossclass.subjects import identity, load_model


def check(
    run: Run, runtime: Runtime, model: nn.Module, splits: Splits, epoch: int, progress: Progress
) -> Row:
    """What is measured after an epoch, on validation and test images, in float32."""
    started, bare, attack = time.perf_counter(), classifier(model), run.check_attack()
    parts = {"test": splits.test.first(run.check.n)}
    if len(splits.val):
        parts["val"] = splits.val.first(run.check.n)
    total, done, row = sum(len(p) for p in parts.values()), 0, unchecked()

    def advance(n: int) -> None:
        nonlocal done
        done += n
        progress("check", done, total)

    for name, part in parts.items():
        seen = evaluate.under(
            bare,
            part,
            attack,
            run.seed,
            batch=run.check.batch,
            epoch=epoch,
            purpose="check",
            memory_format=runtime.memory_format,
            advance=advance,
        )
        found = evaluate.summary(seen, splits.class_names)
        row |= {f"{name}_clean": found["clean"], f"{name}_robust": found["robust"]}
        if name == "val":
            row["val_cas"] = found["cas"]
            continue
        for key in (*_FROM_TEST, "warnings"):
            row[key] = found[key]
    if run.recipe.threat is not None:
        row["train_clean"] = evaluate.clean_accuracy(bare, splits.train.first(run.check.n))
    row["check_seconds"] = round(time.perf_counter() - started, 3)
    return row


_FROM_TEST = ("cas", "cas_normalised", "negative_mass", "classwise_robust", "predicted_classes", "C")


def unchecked() -> Row:
    """The same columns for an epoch that was not checked."""
    names = ("val_clean", "val_robust", "test_clean", "test_robust", "val_cas", "check_seconds")
    return {**dict.fromkeys((*names, *_FROM_TEST)), "warnings": []}


def best(rows: list[Row], split: str) -> Row | None:
    """The first row with the highest robust accuracy on `val` or `test`, or None if none was checked."""
    checked = [r for r in rows if r.get(f"{split}_robust") is not None]
    return max(checked, key=lambda r: r[f"{split}_robust"]) if checked else None


def final(
    run: Run, folder: RunFolder, runtime: Runtime, splits: Splits, progress: Progress
) -> list[dict[str, Any]]:
    """The full evaluation of best.val, best.test and last on all test images, and best minus last."""
    settings = Measure(seed=run.seed, batch=run.check.batch)
    attack, seen, results = run.final_attack(), dict[int, compare.Seen](), []
    for path in map(folder.checkpoint, ("best.val", "best.test", "last")):
        if not path.exists():
            continue
        model, card = load_model(path, trust=True)  # the code that this process has just trained
        placed, epoch = classifier(runtime.placed(model)), card["epoch"]
        if epoch not in seen:
            seen[epoch] = look(placed, splits, attack, settings, runtime, progress)
        about = identity(card, path.parent.name, run.data, placed)
        results.append({**about, **plain(seen[epoch], splits, attack, settings)})
    best, last = results[0], results[-1]
    if best["epoch"] != last["epoch"]:
        said = {"a": best["checkpoint"], "b": last["checkpoint"]}
        said |= {k: best[k] for k in ("attack", "n", "split", "conditions")}
        pair = seen[best["epoch"]], seen[last["epoch"]]
        found = compare.comparison(*pair, splits.class_names)
        results.append({"comparison": {**said, **found, "saliency": None}})
    return results


def classifier(model: nn.Module) -> models.Classifier:
    """The bare module, known to be one of ours."""
    assert isinstance(model, models.Classifier)
    return model
