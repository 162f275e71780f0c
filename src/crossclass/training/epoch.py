"""One epoch of training: its batches and steps, and smaller micro-batches when the memory is too small.

Every random draw is of the global batch and starts from (seed, epoch, step, purpose); processes and
micro-batches take their rows of it. Nothing waits for the device until the epoch is over.
"""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor, nn

from crossclass.analysis.records import EpochRow, metric_columns
from crossclass.attacks import Images, skip_range_check
from crossclass.attacks.losses import Labels, hard
from crossclass.core.classes import known_labels, predicted
from crossclass.core.device import cudnn_benchmark, out_of_memory
from crossclass.core.errors import UserError
from crossclass.core.progress import Log, Progress
from crossclass.core.rng import generator, isolated_rng, seed_global_rng, slice_generator, stream_seed
from crossclass.core.runtime import Runtime
from crossclass.core.sync_batchnorm import no_sync
from crossclass.data import Split, Splits, as_float, batches
from crossclass.training.labels import smoothed
from crossclass.training.nonfinite import FirstNonFinite, NotFiniteError
from crossclass.training.recipes import Recipe
from crossclass.training.run import Run
from crossclass.training.state import TrainState


@dataclass(frozen=True)
class Batch:
    """A global batch, on the device, and when it is trained on."""

    index: Int[Tensor, " n"]
    """Positions of its images among the training images."""
    x: Images
    """Augmented images in [0, 1], mixed where the run says so."""
    y: Labels
    targets: Labels
    """The labels for the loss: `y`, smoothed where the run says so."""
    epoch: int
    step: int
    """Counted from 0."""


def train_epoch(
    recipe: Recipe, state: TrainState, splits: Splits, epoch: int, progress: Progress, log: Log
) -> EpochRow:
    """Train for one epoch, counted from 1, and return its row of the log.

    Raises NotFiniteError, with the batch, for a loss or a gradient that is no number, and UserError for a
    memory that is too small.
    """
    run, runtime, model, optimizer = state.run, state.runtime, state.model, state.optimizer
    split, averaging, started = splits.train, run.weight_averaging, time.perf_counter()
    model.train()
    right, total = torch.zeros(2, device=runtime.torch_device)
    first_bad = FirstNonFinite(runtime.torch_device)
    indices = batches(len(split), run.batch, generator(run.seed, epoch, 0, "order"))
    with (
        cudnn_benchmark(runtime.torch_device),
        state.graphs.active() if state.graphs else nullcontext(),
        isolated_rng(stream_seed(run.seed, epoch, 0, "network"), runtime.torch_device),
        known_labels(),
    ):
        for step, index in enumerate(indices):
            for group in optimizer.param_groups:  # all of them: Rice's code forgets the second
                group["lr"] = run.lr_at(epoch, (step + 1) / len(indices))
            batch = _global_batch(run, runtime, splits, index, epoch, step)
            rows = runtime.group.rows(len(index))
            logits, loss, x_adv = _gradients(recipe, state, batch, log)
            gradients = [p.grad for p in state.parameters if p.grad is not None]
            runtime.group.sum(gradients)
            norm = (
                nn.utils.get_total_norm(gradients)
                if run.grad_clip_norm is None
                else nn.utils.clip_grad_norm_(state.parameters, run.grad_clip_norm)
            )
            kept = {"x": batch.x[rows], "x_adv": x_adv, "index": batch.index[rows]}
            first_bad.update(step, loss.isfinite() & norm.isfinite(), kept)
            optimizer.step()
            if averaging is not None and state.average is not None:
                averaging.after_step(state.average, model, epoch)
            with torch.no_grad():
                hits = (predicted(logits) == hard(batch.y[rows])).sum()
                right += runtime.group.weight(len(index)) * hits
                total += loss * len(index)
            if state.graphs is not None and (warning := state.graphs.pop_warning()):
                log(warning)
            progress("train", step + 1, len(indices))
    if averaging is not None and state.average is not None:
        averaging.after_epoch(state.average, model, epoch)
    state.sync_epoch()
    runtime.group.sum([right, total])
    lr = optimizer.param_groups[0]["lr"]
    if not math.isfinite(float(total)) or first_bad.occurred:
        raise NotFiniteError(first_bad, epoch, lr)
    accuracy = float(right) / len(split)
    adversarial = run.recipe.threat is not None
    return EpochRow(
        epoch=epoch,
        lr=lr,
        seconds=round(time.perf_counter() - started, 3),
        train_loss=float(total) / len(split),
        train_clean=None if adversarial else accuracy,
        train_robust=accuracy if adversarial else None,
        **dict.fromkeys(metric_columns()),  # null until a validation measures them
    )


def clean_images(run: Run, runtime: Runtime, split: Split, epoch: int) -> Iterator[Images]:
    """Augmented training images once through, for the batch norm of an average."""
    for step, index in enumerate(batches(len(split), run.batch, generator(run.seed, epoch, 0, "refresh"))):
        yield _augmented(run, runtime, split, index.to(runtime.torch_device), epoch, step)


def _augmented(run: Run, runtime: Runtime, split: Split, index: Tensor, epoch: int, step: int) -> Images:
    """Augmented images in [0, 1]; only this function draws training images."""
    images = split.images[index]
    if run.augment is not None:
        images = run.augment(images, generator(run.seed, epoch, step, "augment"))
    return as_float(images).contiguous(memory_format=runtime.memory_format)


def _global_batch(run: Run, runtime: Runtime, splits: Splits, index: Tensor, epoch: int, step: int) -> Batch:
    index, classes = index.to(runtime.torch_device, non_blocking=True), len(splits.class_names)
    x, y = _augmented(run, runtime, splits.train, index, epoch, step), splits.train.labels[index]
    if run.mix is not None:
        x, y = run.mix(x, y, classes, generator(run.seed, epoch, step, "mix"))
    targets = smoothed(y, run.label_smoothing, classes) if run.label_smoothing else y
    return Batch(index, x, y, targets, epoch, step)


def _gradients(recipe: Recipe, state: TrainState, batch: Batch, log: Log) -> tuple[Tensor, Tensor, Tensor]:
    """Leave the gradient of this process's share in the parameters; logits, loss share, adversarial images.

    In micro-batches of at most `state.micro_batch` images, which get smaller when the memory is too small,
    where that does not change the result. Raises UserError where it would.
    """
    n = len(batch.index)
    rows, whole = state.runtime.group.rows(n), n < state.runtime.group.size
    while True:
        state.optimizer.zero_grad(set_to_none=True)
        try:
            cuts = micro_batches(rows, state.micro_batch)
            with no_sync(state.model, whole):
                pieces = [_backward(recipe, state, batch, cut) for cut in cuts]
            logits, losses, images, memories = zip(*pieces, strict=True)
            for cut, z in zip(cuts, memories, strict=True):
                if z is not None:
                    state.memory["z"][batch.index[cut]] = z  # not before: a batch may be tried again
            return torch.cat(logits), torch.stack(losses).sum(), torch.cat(images)
        except (RuntimeError, MemoryError) as e:
            if not out_of_memory(e):
                raise
        most = min(state.micro_batch or n, rows.stop - rows.start)
        if state.batch_coupling or most == 1:
            who = " and ".join(state.batch_coupling)
            why = f"with {who} fewer at a time would change the result: " if who else ""
            raise UserError(
                f"out of memory with {most} images at once; {why}set "
                f"runtime.micro_batch={max(1, most // 2)} to accept that, or a smaller batch= or model"
            )
        state.micro_batch = -(-most // 2)
        log(
            f"out of memory with {most} images at once; going on with {state.micro_batch}, which changes "
            "nothing"
        )


def _backward(
    recipe: Recipe, state: TrainState, batch: Batch, piece: slice
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Add the gradient of some rows of the global batch to the parameters'.

    Returns their logits, share of the loss, adversarial images, and new memory of past predictions, if any.
    """
    run, runtime, n = state.run, state.runtime, len(batch.index)
    seed, epoch, step = run.seed, batch.epoch, batch.step
    x, y, targets = batch.x[piece], batch.y[piece], batch.targets[piece]
    noise = slice_generator(generator(seed, epoch, step, "attack", runtime.noise_device), piece, n)
    rows = runtime.group.rows(run.batch)
    full = len(x) == min(state.micro_batch or run.batch, rows.stop - rows.start)
    network = state.crafting if full else state.model  # another shape is not worth compiling for
    # for dropout and other people's networks; each piece draws for itself
    seed_global_rng(stream_seed(seed, epoch, step, "network", piece.start), runtime.torch_device)
    z = term = None
    if run.ensembling is not None and epoch >= run.ensembling.start:
        z = run.ensembling.updated(state.memory["z"][batch.index[piece]], state.model, x)
        term = partial(run.ensembling.term, z, epoch)
        recipe = recipe.map_attacks(lambda attack: attack.replace(added_loss=term))
    with skip_range_check():  # bytes over 255, or mixtures of such
        x_adv = recipe.craft(network, x, targets if run.attack_labels == "soft" else y, noise)
    with torch.autocast(runtime.torch_device.type, torch.bfloat16, enabled=run.precision == "bf16"):
        more = slice_generator(generator(seed, epoch, step, "loss"), piece, n)
        loss, logits = recipe.loss(state.model, x, x_adv, targets, more)
    if term is not None:
        loss = loss + term(logits).mean()
    # so that the sum over micro-batches and processes is the mean over the global batch
    loss = loss * (runtime.group.weight(n) * len(x) / n)
    torch.autograd.backward(loss)
    return logits.detach(), loss.detach(), x_adv.detach(), z


def micro_batches(rows: slice, most: int | None) -> list[slice]:
    """A range of rows cut into slices of at most `most`; None leaves it whole."""
    size = most or max(1, rows.stop - rows.start)
    return [slice(at, min(at + size, rows.stop)) for at in range(rows.start, rows.stop, size)]
