"""What is measured after an epoch, and at the end of training, in float32.

The watched part is the validation part, or test images where nothing is held out: `watched` says which, and
columns named `watched_*` are of it. Two signs of catastrophic overfitting are of `fgsm_n` of its images:

    fgsm_gap          accuracy under one full step from x (FGSM) minus under the check's attack
    gradient_cosine   mean cos(grad_x l(x, y), grad_x l(x + eta, y)), eta uniform in the ball
                      (GradAlign's; Andriushchenko & Flammarion 2020, eq. 3)
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossclass.analysis import evaluate, pictures
from crossclass.analysis.compare import comparison
from crossclass.analysis.feature_images import Evaluated
from crossclass.analysis.feature_pictures import CHOOSE_FROM, feature_pictures
from crossclass.analysis.measure import Measure, evaluate_checkpoint, measurement
from crossclass.analysis.metrics import Part
from crossclass.analysis.records import EpochRow, ResultFile, result_file
from crossclass.attacks import Network
from crossclass.attacks.losses import cross_entropy
from crossclass.attacks.norms import AnyThreat
from crossclass.checkpoints.card import load_checkpoint
from crossclass.checkpoints.load import identity, load_model
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.classes import predicted
from crossclass.core.device import full_precision, to_device
from crossclass.core.progress import Progress
from crossclass.core.rng import generator, isolated_rng, stream_seed
from crossclass.core.runtime import Runtime
from crossclass.data import Split, Splits, as_float, batches
from crossclass.models import Classifier
from crossclass.models.model_state import frozen, in_float32
from crossclass.training.alarms.checks import pack
from crossclass.training.recipes.gradalign import cosine, nonzero
from crossclass.training.run import Run

CHECK_GRADIENTS = 3
"""Cost of a check beside its attack, in gradients per image: the clean and the attacked images are
classified, and some of them take two gradients more."""
EVALUATED = 2
"""Checkpoints in the full evaluation: best and last (best.val and best.test are often one epoch)."""
PROBE_N = 500
"""At most so many images for FGSM and the cosine: two gradients and a forward pass of each."""


def is_validated(run: Run, epoch: int) -> bool:
    """Whether a check follows an epoch, counted from 1."""
    return epoch % run.validation.every == 0 or epoch in (1, run.epochs)


def validate(
    row: EpochRow, run: Run, runtime: Runtime, network: Classifier, splits: Splits, progress: Progress
) -> EpochRow:
    """The row of an epoch with what is measured after it, on validation and test images, in float32."""
    started, attack = time.perf_counter(), run.validation_attack()
    drawn = run.validation.n, run.seed, run.validation.balanced
    parts: dict[Part, Split] = {"test": splits.test.drawn(*drawn)}
    if len(splits.val):
        parts["val"] = splits.val.drawn(*drawn)
    watched: Part = "val" if "val" in parts else "test"
    probed = parts[watched].sample(PROBE_N, run.seed, run.validation.balanced)
    few = parts[watched].take(probed)
    total, done = sum(len(p) for p in parts.values()) + len(few), 0

    def advance(n: int) -> None:
        nonlocal done
        done += n * runtime.group.size  # the others do as much
        progress("check", min(done, total), total)

    how: Any = {
        "batch": run.validation.batch,
        "epoch": row.epoch,
        "memory_format": runtime.memory_format,
        "advance": advance,
        "distributed_map": runtime.group.map,
    }
    passes = {
        part: evaluate.evaluate(network, split, attack, run.seed, purpose="check", **how)
        for part, split in parts.items()
    }
    test, evaluated = passes["test"], passes[watched]
    probe = probe_one_step(network, few, attack.threat, run.seed, **how)
    fgsm = float(probe.correct.double().mean())
    pgd = float((evaluated.robust == evaluated.labels)[probed].double().mean())  # on the same images
    update: dict[str, Any] = {}
    for part, one in passes.items():
        update |= evaluate.epoch_metrics(one, part)
    if run.recipe.threat is not None:
        update["train_clean"] = evaluate.evaluate(
            network,
            splits.train.drawn(*drawn),
            None,
            batch=run.validation.batch,
            distributed_map=runtime.group.map,
        ).accuracy("clean")
    update |= {
        "watched": watched,
        "watched_n": len(parts[watched]),
        "watched_attack": str(attack),
        "watched_correct": pack((evaluated.robust == evaluated.labels).numpy()),
        "watched_fgsm": fgsm,
        "watched_predicted_classes": evaluated.predicted_classes,
        "watched_largest_share": evaluated.largest_share,
        "fgsm_n": len(few),
        "fgsm_gap": fgsm - pgd,
        "gradient_cosine": mean_cosine(probe.cosine),
        "test_n": len(parts["test"]),
        "C": evaluate.rounded(test.C),
        "classwise_robust": evaluate.classwise(test.robust, test.labels, test.classes),
        "warnings": evaluate.warnings(test, splits.class_names, of_collapse=False),
        "check_seconds": round(time.perf_counter() - started, 3),
    }
    return row.model_copy(update=update)


class OneStepProbe(NamedTuple):
    """What one gradient step says about a network, per sample, on the CPU."""

    correct: Bool[Tensor, " n"]
    """Whether it is classified correctly under FGSM: x + eps steepest(gradient), clipped into [0, 1]."""
    cosine: Float[Tensor, " n"]
    """Of the input gradients at x and at x + eta; NaN where one of them is zero or not finite."""


def probe_one_step(
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
    """FGSM and GradAlign's cosine together, since both need the gradient at x; float32, eval mode."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        full_precision(),
        in_float32(model),
        frozen(model) as f,
    ):

        def probe(step: int, index: Tensor) -> tuple[Tensor, Tensor]:
            index = index.to(split.labels.device)
            x = as_float(split.images[index]).contiguous(memory_format=memory_format)
            y = split.labels[index]
            eta = threat.sample(x, threat.uniform_start, generator(seed, epoch, step, "check"))
            with isolated_rng(stream_seed(seed, epoch, step, "evaluation"), x.device):
                at_x, beside = _gradient(f, x, y), _gradient(f, (x + eta).clamp(0, 1), y)
                with torch.no_grad():
                    x_adv = (x + threat.project(threat.steepest(at_x, threat.eps))).clamp(0, 1)
                    correct = (predicted(f(x_adv)) == y).cpu()
            advance(len(index))
            return correct, _cosine(at_x, beside).cpu()

        probes = distributed_map(batches(len(split), batch, None), probe)
    correct, aligned = zip(*probes, strict=True)
    return OneStepProbe(torch.cat(correct), torch.cat(aligned))


def _gradient(f: Network, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(f(x), y).sum(), x)
    return gradient


def _cosine(a: Float[Tensor, "n ..."], b: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Of each pair; NaN where it is undefined."""
    return torch.where(nonzero(a) & nonzero(b), cosine(a, b), torch.nan)


def mean_cosine(cosine: Float[Tensor, " n"]) -> float | None:
    """The mean over the samples where it is defined; None if it is defined for none."""
    value = float(cosine.double().nanmean())
    return None if math.isnan(value) else value


def final_evaluation(
    run: Run,
    folder: RunFolder,
    runtime: Runtime,
    splits: Splits,
    progress: Progress,
    last: tuple[int, Classifier] | None = None,
    images: int = Measure().images,
) -> ResultFile:
    """The full evaluation of best.val, best.test and last on all test images, and best minus last.

    `last` is the epoch that this process trained last, and its network; only networks of other epochs are
    loaded.
    """
    settings = Measure(seed=run.seed, batch=run.validation.batch, images=images)
    attack, results = run.final_attack(), []
    seen: dict[int, Evaluated] = {}
    few = CHOOSE_FROM // (4 * splits.test.images[0].numel())
    keep = pictures.chosen(splits.test.labels, few) if images else None
    for path in map(folder.checkpoint, ("best.val", "best.test", "last")):
        if not path.exists():
            continue
        card = load_checkpoint(path)[1]
        epoch = card.epoch
        if last is not None and epoch == last[0]:
            network = last[1]
        else:
            network = to_device(load_model(path)[0], runtime.torch_device, runtime.memory_format)
        if epoch not in seen:
            of_first = None if seen else keep  # it is the best, on whose images features are shown
            one = evaluate_checkpoint(network, splits, attack, settings, runtime, progress, keep=of_first)
            seen[epoch] = network, one
        who = identity(card, path, run.data, network)
        results.append(measurement(seen[epoch][1], who, splits, attack, settings))
    ends = results[0], results[-1]
    epochs = [r.checkpoint.epoch or 0 for r in ends]
    if epochs[0] == epochs[1]:
        return result_file(results)
    both = seen[epochs[0]], seen[epochs[1]]
    compared = comparison(*ends, (both[0][1], both[1][1]))
    if images and compared.features is not None:
        try:
            drawn = feature_pictures(both, compared.features)
        except Exception:  # anyone's network may raise anything here, and pictures are not worth a run
            drawn = []
        compared = compared.model_copy(update={"feature_pictures": drawn})
    return result_file(results, [compared])
