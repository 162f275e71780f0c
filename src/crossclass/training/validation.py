"""What is measured while a run is trained, and at its end: plain rows of numbers, judged in float32.

The watched part is the validation part, or test images where nothing is held out: `watched` says which, and
columns named `watched_*` are of it. Two signs of catastrophic overfitting are of its first `fgsm_n` images:

    fgsm_gap          accuracy under one full step from x (FGSM) minus under the check's attack
    gradient_cosine   mean cos(grad_x l(x, y), grad_x l(x + eta, y)), eta uniform in the ball
                      (GradAlign's; Andriushchenko & Flammarion 2020, eq. 3)
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossclass import models
from crossclass.analysis import evaluate
from crossclass.analysis.measure import Measure, compared, evaluate_checkpoint, measurement
from crossclass.analysis.metrics import Part
from crossclass.analysis.records import ResultFile, metric_columns, result_file
from crossclass.attacks import Network
from crossclass.attacks.losses import cross_entropy
from crossclass.attacks.norms import L2, AnyThreat
from crossclass.checkpoints.load import identity, load_model
from crossclass.checkpoints.run_folder import Row, RunFolder
from crossclass.core.errors import UserError
from crossclass.core.progress import Progress
from crossclass.core.rng import generator, isolated_rng, stream_seed
from crossclass.core.runtime import Runtime, full_precision
from crossclass.data import Split, Splits, as_float, batches
from crossclass.models.model_state import frozen
from crossclass.training import alarms
from crossclass.training.run import Run

PROBED = 500
"""At most so many images for FGSM and the cosine: two gradients and a forward pass of each."""


def check(
    run: Run, runtime: Runtime, model: nn.Module, splits: Splits, epoch: int, progress: Progress
) -> Row:
    """What is measured after an epoch, on validation and test images, in float32."""
    started, bare, attack = time.perf_counter(), classifier(model), run.check_attack()
    parts: dict[Part, Split] = {"test": splits.test.first(run.validation.n)}
    if len(splits.val):
        parts["val"] = splits.val.first(run.validation.n)
    watched: Part = "val" if "val" in parts else "test"
    few, k = parts[watched].first(PROBED), len(splits.class_names)
    total, done, row = sum(len(p) for p in parts.values()) + len(few), 0, unchecked()

    def advance(n: int) -> None:
        nonlocal done
        done += n * runtime.processes  # the others do as much
        progress("check", min(done, total), total)

    for name, part in parts.items():
        seen = evaluate.evaluate(
            bare,
            part,
            attack,
            run.seed,
            batch=run.validation.batch,
            epoch=epoch,
            purpose="check",
            memory_format=runtime.memory_format,
            advance=advance,
            distributed_map=runtime.distributed_map,
        )
        row |= evaluate.epoch_metrics(seen, name)
        if name == watched:
            row |= {
                "watched_predicted_classes": seen.predicted_classes,
                "watched_largest_share": seen.largest_share,
            }
            pgd = (seen.robust == seen.labels)[: len(few)]
        if name == "test":
            row |= {
                "classwise_robust": evaluate.classwise(seen.robust, seen.labels, k),
                "C": evaluate.rounded(seen.C),
                "warnings": evaluate.warnings(seen, splits.class_names),
            }
    threat = getattr(attack, "threat", run.threat)
    probe = probed(
        bare,
        few,
        threat,
        run.seed,
        epoch,
        run.validation.batch,
        runtime.memory_format,
        advance,
        runtime.distributed_map,
    )
    row |= {"watched": watched, "watched_n": len(parts[watched]), "watched_attack": str(attack)}
    row |= {"fgsm_n": len(few), "test_n": len(parts["test"])}
    row["watched_fgsm"] = float(probe.right.double().mean())
    row["fgsm_gap"] = row["watched_fgsm"] - float(pgd.double().mean())  # on the same images
    row["gradient_cosine"] = mean_cosine(probe.cosine)
    if run.recipe.threat is not None:
        row["train_clean"] = evaluate.clean_accuracy(
            bare, splits.train.first(run.validation.n), run.validation.batch, runtime.distributed_map
        )
    row["check_seconds"] = round(time.perf_counter() - started, 3)
    return row


_OBSERVED = (
    "watched_fgsm",
    "fgsm_gap",
    "gradient_cosine",
    "watched_predicted_classes",
    "watched_largest_share",
)
_CONDITIONS = ("watched", "watched_n", "watched_attack", "fgsm_n", "test_n")


def unchecked() -> Row:
    """The same columns for an epoch that was not checked."""
    names = (*metric_columns(), "classwise_robust", "C", "check_seconds")
    return {**dict.fromkeys((*names, *_OBSERVED, *_CONDITIONS)), "warnings": []}


class OneStepProbe(NamedTuple):
    """What one step says about a network, per sample, on the CPU."""

    right: Bool[Tensor, " n"]
    """Classified rightly under FGSM: x + eps * steepest(gradient), clipped into [0, 1]."""
    cosine: Float[Tensor, " n"]
    """Of the input gradients at x and at x + eta; NaN where one of them is zero or not finite."""


def probed(
    model: nn.Module,
    split: Split,
    threat: AnyThreat,
    seed: int = 0,
    epoch: int = 0,
    batch: int = 250,
    memory_format: torch.memory_format = torch.contiguous_format,
    advance: Callable[[int], None] = lambda n: None,
    distributed_map: evaluate.DistributedMap = evaluate.local_map,
) -> OneStepProbe:
    """FGSM and GradAlign's cosine in one go, since both want the gradient at x; float32, eval mode."""
    with torch.inference_mode(False), torch.enable_grad(), full_precision(), frozen(model) as f:

        def look(step: int, index: Tensor) -> tuple[Tensor, Tensor]:
            index = index.to(split.labels.device)
            x = as_float(split.images[index]).contiguous(memory_format=memory_format)
            y = split.labels[index]
            eta = threat.sample(x, threat.uniform_start, generator(seed, epoch, step, "check"))
            with isolated_rng(stream_seed(seed, epoch, step, "evaluation"), x.device):
                at_x, beside = _gradient(f, x, y), _gradient(f, (x + eta).clamp(0, 1), y)
                with torch.no_grad():
                    x_adv = (x + threat.project(threat.steepest(at_x, threat.eps))).clamp(0, 1)
                    right = (f(x_adv).argmax(dim=1) == y).cpu()
            advance(len(index))
            return right, _cosine(at_x, beside).cpu()

        seen = distributed_map(batches(len(split), batch, None), look)
    right, cosine = zip(*seen, strict=True)
    return OneStepProbe(torch.cat(right), torch.cat(cosine))


def _gradient(f: Network, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(f(x), y).sum(), x)
    return gradient


def _cosine(a: Float[Tensor, "n ..."], b: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Of each pair, exact also where a confident network's gradients are 1e-30; NaN where it is undefined."""
    unit = L2().steepest  # a zero or NaN gradient becomes zero
    u, v = unit(a, 1.0).flatten(1), unit(b, 1.0).flatten(1)
    there = (u != 0).any(dim=1) & (v != 0).any(dim=1)
    return torch.where(there, (u * v).sum(dim=1), torch.nan)


def mean_cosine(cosine: Float[Tensor, " n"]) -> float | None:
    """Over the samples where it is defined; None if it is nowhere."""
    value = float(cosine.double().nanmean())
    return None if math.isnan(value) else value


def best(rows: list[Row], split: str) -> Row | None:
    """The first row with the highest robust accuracy on `val` or `test`, or None if none was checked."""
    checked = [r for r in rows if r.get(f"{split}_robust") is not None]
    return max(checked, key=lambda r: r[f"{split}_robust"]) if checked else None


def best_with_cas(rows: Sequence[Row], n: int | None = None, split: str = "val") -> Row | None:
    """EXPERIMENT, used by no default: the row of largest CAS among those as robust as the best.

    Score: robust accuracy p on `split`; rows within one standard error sqrt(p (1 - p) / n) of the largest
    count as equal, and CAS of the same split breaks the tie (the first of equals; rows without CAS, or
    with at most half of the classes predicted, only where no other is left). That CAS says anything about
    robustness beyond the accuracy itself is the open question, so compare it with `best`. `n` is the
    number of images where the rows do not say (`watched_n`, `test_n`); raises UserError if neither does.
    """
    top = best(list(rows), split)
    if top is None:
        return None
    n = (top.get("test_n") if split == "test" else top.get("watched_n")) or n
    if not n:
        raise UserError("best_with_cas: the rows do not say how many images were checked; pass n")
    key = f"{split}_robust"
    least = top[key] - math.sqrt(top[key] * (1 - top[key]) / n)
    near = [r for r in rows if r.get(key) is not None and r[key] >= least]
    cas, used = ("val_cas", "watched_predicted_classes") if split == "val" else ("cas", "predicted_classes")
    usable = [r for r in near if r.get(cas) is not None and not alarms.predicts_few(r, used)]
    return max(usable, key=lambda r: r[cas]) if usable else top


def final(run: Run, folder: RunFolder, runtime: Runtime, splits: Splits, progress: Progress) -> ResultFile:
    """The full evaluation of best.val, best.test and last on all test images, and best minus last."""
    settings = Measure(seed=run.seed, batch=run.validation.batch)
    attack, seen, results = run.final_attack(), dict[int, evaluate.EvaluationPass](), []
    for path in map(folder.checkpoint, ("best.val", "best.test", "last")):
        if not path.exists():
            continue
        model, card = load_model(path)
        placed, epoch = classifier(runtime.to_device(model)), card["epoch"]
        if epoch not in seen:
            seen[epoch] = evaluate_checkpoint(placed, splits, attack, settings, runtime, progress)
        who = identity(card, path, path.parent.name, run.data, placed)
        results.append(measurement(seen[epoch], who, splits, attack, settings))
    ends = results[0], results[-1]
    epochs = [r.checkpoint.epoch or 0 for r in ends]
    pairs = [compared(*ends, (seen[epochs[0]], seen[epochs[1]]))] if epochs[0] != epochs[1] else []
    return result_file(results, pairs)


def classifier(model: nn.Module) -> models.Classifier:
    """The module, known to be one of ours."""
    assert isinstance(model, models.Classifier)
    return model
