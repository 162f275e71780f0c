"""Before the first step: what later happens to a network is tried on copies, with a few images.

A copy takes a step, is averaged if the run averages, is saved, made anew, loaded and compared. Otherwise a
network whose state no file can hold would be trained for an epoch, or to the end, and then be lost.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from crossclass import models
from crossclass.attacks.losses import cross_entropy
from crossclass.checkpoints.card import load_checkpoint, load_tensors, save_checkpoint, save_tensors
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.device import full_precision, out_of_memory, to_device
from crossclass.core.errors import UserError, first_line
from crossclass.core.rng import isolated_rng, stream_seed
from crossclass.core.sync_batchnorm import no_sync
from crossclass.data import Splits, as_float
from crossclass.models import Classifier
from crossclass.models.model_state import evaluating
from crossclass.models.saved_state import saved_state
from crossclass.training.checkpointing import card_of
from crossclass.training.run import Run
from crossclass.training.state import TrainState

IMAGES = 4
"""So many are tried."""
NEAR = 1e-3
"""Outputs are the same if they differ by no more than this share of the largest: kernels may differ."""


def rehearse(run: Run, folder: RunFolder, state: TrainState, splits: Splits) -> None:
    """Raises UserError, which names the part of the network, if its checkpoints would not give it back.

    Nothing of the state changes, no global stream moves, and the file that is written is deleted. Where the
    memory is too small for a copy, nothing is tried.

    Args:
        run: The run as its checkpoints describe it.
        folder: Where a file is written for a moment.
        state: The state before the first step.
        splits: The images of the run.
    """
    runtime, path = state.runtime, folder.path / ".rehearsal.tmp"  # `begin` deletes what a kill leaves
    if runtime.compile:  # takes half a minute
        runtime = runtime.replace(compile=False)
    seed = stream_seed(run.seed, 0, 0, "rehearsal")
    few = splits.train.first(IMAGES).to(runtime.torch_device)
    x = as_float(few.images).contiguous(memory_format=runtime.memory_format)
    try:
        with isolated_rng(seed, runtime.torch_device), full_precision():
            first = _through_file(run, path, state.model, state, splits)
            torch.rand(())  # so that what the network draws when it is made is not the same again
            trained = TrainState(state.run, runtime, first, splits)
            _step(trained, x, few.labels)
            saved = trained.model if trained.average is None else trained.average
            again = _through_file(run, path, saved, state, splits)
            _require_same(saved, again, x, seed)
            with _explained(trained.model, path):
                save_tensors(path, trained.tensors(), {})
                resumed = TrainState(state.run, runtime, again, splits)
                resumed.restore(load_tensors(path)[0])
            _require_same(trained.model, resumed.model, x, seed)
    except (RuntimeError, MemoryError) as e:
        if not out_of_memory(e):
            raise
    finally:
        path.unlink(missing_ok=True)


def _through_file(run: Run, path: Path, network: nn.Module, state: TrainState, splits: Splits) -> Classifier:
    """The network saved as a checkpoint, made anew and loaded."""
    with _explained(network, path):
        save_checkpoint(path, saved_state(network), card_of(run, splits, "last"))
        tensors, card = load_checkpoint(path)
        made = models.rebuild(card.model, tensors, card.classes, card.channels, card.size)
    return to_device(made, state.runtime.torch_device, state.runtime.memory_format)


def _step(state: TrainState, x: Tensor, y: Tensor) -> None:
    """One step on clean images and, if the run averages, one average; what fails here, training will say."""
    model, averaging = state.model.train(), state.run.weight_averaging
    try:
        with no_sync(model):
            cross_entropy(model(x), y).mean().backward()
    except Exception:
        return
    state.optimizer.step()
    if averaging is not None and state.average is not None:
        averaging.after_step(state.average, model, averaging.start)
        averaging.after_epoch(state.average, model, averaging.start)


@contextmanager
def _explained(network: nn.Module, path: Path) -> Iterator[None]:
    """Whatever fails inside becomes a UserError that names the tensor to blame, if there is one."""
    try:
        yield
    except Exception as e:
        if out_of_memory(e) or (isinstance(e, UserError) and e.__cause__ is None):
            raise
        why = first_line(e.__cause__ if isinstance(e, UserError) and e.__cause__ else e)
        odd = next((n for n, t in saved_state(network).items() if not _can_be_saved(t, path)), None)
        of = f" '{odd}' is {network.state_dict()[odd].dtype}:" if odd else ""
        raise UserError(
            f"a checkpoint of the network could not be written and loaded again:{of} "
            f"{type(e).__name__} ({why}); change its state before training it"
        ) from e


def _can_be_saved(tensor: Tensor, path: Path) -> bool:
    try:
        save_tensors(path, {"": tensor}, {})
        return True
    except Exception:
        return False


@torch.no_grad()
def _require_same(network: nn.Module, again: nn.Module, x: Tensor, seed: int) -> None:
    """Raises UserError if a network that was saved and made anew says something else of the same images."""
    logits = []
    for one in (network, again):
        with evaluating(one), isolated_rng(seed, x.device):
            logits.append(one(x).double())
    a, b = logits
    top = float(a.nan_to_num(0, 0, 0).abs().max())
    if torch.allclose(a, b, rtol=0, atol=NEAR * top, equal_nan=True):
        return
    raise UserError(
        "the network is another one after it was saved and loaded, so its checkpoints would be of no use: "
        f"{_left_behind(network, again)}"
    )


def _left_behind(network: nn.Module, again: nn.Module) -> str:
    """What of a network is not in its state dict, and what to do."""
    saved = set(network.state_dict())
    for (name, module), other in zip(network.named_modules(), again.modules(), strict=False):
        prefix = f"{name}." if name else ""
        for key, value in vars(module).items():
            inside = value.values() if isinstance(value, dict) else value
            listed = key != "_modules" and isinstance(value, list | tuple | dict)
            if listed and any(isinstance(v, nn.Module) for v in inside):
                return f"'{prefix}{key}' holds layers that torch does not know of; use nn.ModuleList"
        for key, value in module._buffers.items():
            if prefix + key not in saved and _differs(value, other._buffers.get(key)):
                return f"the buffer '{prefix}{key}' is not saved; register it with persistent=True"
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is None and _differs(value, vars(other).get(key)):
                return f"'{prefix}{key}' is a plain attribute; use register_buffer or nn.Parameter"
    return "something that it computes with is not in its state_dict; register it as a buffer or parameter"


def _differs(a: Tensor | None, b: object) -> bool:
    if a is None or not isinstance(b, Tensor):
        return a is not b
    return a.shape != b.shape or not bool((a == b.to(a)).all())
