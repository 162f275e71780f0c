"""Crafting by replay gives what running gives. Without a GPU, a recording runs the job once more."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import seeded
from crossclass import models
from crossclass.attacks import FGSM, PGD, skip_range_check
from crossclass.attacks.cuda_graphs import Capture, CudaGraphs, Job
from crossclass.attacks.norms import L2
from crossclass.core.rng import isolated_rng
from crossclass.models import PreActResNet
from crossclass.models.model_state import frozen

RECORDED = {
    "l_inf, batch norm in train mode": PGD(steps=2, bn="train"),
    "l_inf, batch norm in eval mode": PGD(steps=2),
    "l_2": PGD(steps=2, threat=L2(), rel_step=0.125, bn="train"),
    "TRADES": PGD(steps=2, loss="kl", start="gauss"),
    "fast AT": FGSM(start="uniform", rel_step=1.25, bn="train"),
    "bf16": PGD(steps=2, bn="train", precision="bf16"),
}


def net() -> nn.Module:
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    return models.build(PreActResNet(width=4, blocks=(1, 1)), images, 4, 0).train()


def emulated(attack: Any, network: nn.Module) -> Capture:
    """A capture that keeps its results in fixed tensors, as a CUDA graph does."""

    def capture(job: Job) -> tuple[Callable[[], object], Any]:
        job()  # warm-up moves batch norm and draws, which must leave no trace
        outputs = job()

        def replay() -> None:
            with torch.enable_grad(), frozen(network, attack.bn, attack.precision):
                new = job()
            for fixed, tensor in zip(outputs, new, strict=True):
                fixed.copy_(tensor)

        return replay, outputs

    return capture


@pytest.mark.parametrize("attack", RECORDED.values(), ids=RECORDED.keys())
def test_replays_are_what_running_gives(attack: PGD) -> None:
    one, other = net(), net()
    graphs, results = CudaGraphs(emulated(attack, one)), []
    for step, n in enumerate((8, 8, 8, 8, 5)):
        g = seeded(step)
        x, y = torch.rand(n, 3, 16, 16, generator=g), torch.arange(n) % 4
        with graphs.active():
            replayed = attack(one, x, y, seeded(step))
        plain = attack(other, x, y, seeded(step))
        assert torch.equal(replayed, plain)
        results.append((replayed, plain))
        with torch.no_grad():  # weights change in place, as an optimizer changes them
            for p, q in zip(one.parameters(), other.parameters(), strict=True):
                change = 0.1 * torch.randn(p.shape, generator=g)
                p.add_(change)
                q.add_(change)
    assert graphs.replays == 3  # the first is run, the last has another size
    assert all(torch.equal(a, b) for a, b in results)  # a replay does not overwrite an earlier result
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))
    assert all(m.training for m in one.modules())
    assert all(p.requires_grad for p in one.parameters())


class NothingRead(TorchDispatchMode):
    """Raises where the host reads a tensor: a recording would end there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "equal.default", "unique")):
            raise RuntimeError(f"{func} while recording")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("attack", RECORDED.values(), ids=RECORDED.keys())
@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
def test_nothing_is_read_while_recording_in_whatever_loop(
    attack: PGD, soft: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = net()

    def no_list(tensor: torch.Tensor) -> Any:  # a tolist() is no operation that a mode would see
        raise RuntimeError("tolist while recording")

    def capture(job: Job) -> tuple[Callable[[], object], Any]:
        with NothingRead(), monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", no_list)
            return emulated(attack, network)(job)

    graphs, y = CudaGraphs(capture), torch.arange(4)
    y = torch.eye(4) if soft else y
    for step in range(3):
        with graphs.active(), skip_range_check():  # as a loop does that has checked its images
            attack(network, torch.rand(4, 3, 16, 16, generator=seeded(step)), y, seeded(step))
    assert graphs.pop_warning() is None
    assert graphs.replays == 2


def test_recording_does_not_move_the_global_generator() -> None:
    attack = PGD(steps=2, bn="train")
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 16 * 16, 4)).train()
    graphs, y = CudaGraphs(emulated(attack, network)), torch.arange(4)
    for step in range(3):
        x = torch.rand(4, 3, 16, 16, generator=seeded(step))
        found = []
        for context in (graphs.active(), nullcontext()):
            with isolated_rng(step, torch.device("cpu")), context:
                found.append(attack(network, x, y, seeded(step)))
        assert torch.equal(*found)
    assert graphs.replays == 2


@pytest.mark.parametrize(
    "change",
    [{"restarts": 2}, {"return_iterate": "best"}, {"return_iterate": "first"}, {"bn": "train_frozen_stats"}],
    ids=str,
)
def test_what_depends_on_results_is_not_recorded(change: dict[str, Any]) -> None:
    attack, network = PGD(steps=1, **change), net()
    graphs = CudaGraphs(emulated(attack, network))
    with graphs.active():
        for _ in range(3):
            attack(network, torch.rand(4, 3, 16, 16), torch.arange(4))
    assert graphs.replays == 0


def test_the_term_of_one_batch_is_not_replayed_for_another() -> None:
    network, x, y = net(), torch.rand(4, 3, 16, 16, generator=seeded(0)), torch.arange(4)
    # a new function for every batch, as temporal ensembling has
    terms = [lambda logits, rows, k=k: 100 * logits[:, k] for k in (0, 1, 2, 3)]
    attacks = [PGD(steps=1, added_loss=term) for term in terms]
    graphs = CudaGraphs(emulated(attacks[0], network))
    with graphs.active():
        found = [attack(network, x, y, seeded(1)) for attack in attacks]
    assert graphs.replays == 0
    assert all(torch.equal(f, a(network, x, y, seeded(1))) for f, a in zip(found, attacks, strict=True))


def test_where_recording_fails_crafting_goes_on_and_one_warning_says_why() -> None:
    def refused(job: Job) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\n(a stack)")

    graphs, network = CudaGraphs(refused), net()
    attack, x, y = PGD(steps=1, bn="train"), torch.rand(4, 3, 16, 16), torch.arange(4)
    with graphs.active():
        found = [attack(network, x, y, seeded(0)) for _ in range(3)]
    assert all(f.shape == x.shape for f in found)
    assert graphs.failed
    warning = graphs.pop_warning()
    assert warning is not None
    assert "operation not permitted" in warning
    assert "stack" not in warning
    assert graphs.pop_warning() is None


def test_an_attack_outside_of_training_uses_no_graphs() -> None:
    attack, network = PGD(steps=1), net()
    graphs = CudaGraphs(emulated(attack, network))
    with graphs.active():
        pass
    for _ in range(3):
        attack(network, torch.rand(2, 3, 16, 16), torch.arange(2))
    assert graphs.replays == 0
