"""The doctor leaves nothing behind: network, gradients and streams are as before, also after an error."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossclass.analysis.input_alternatives import with_normalisation
from crossclass.analysis.network_faults import _batch_statistics
from crossclass.attacks.norms import Linf
from crossclass.core.rng import isolated_rng
from crossclass.data import Splits
from crossclass.diagnostics import Doctor, examine
from crossclass.diagnostics.probe import make_probe, restored
from faulty_networks import QUICK, Small


class Tripped(BaseException):
    """Like Ctrl-C: nothing may swallow it."""


class Wandering(Small):
    """Moves its buffers in eval mode, puts another tensor into one, and draws from every global stream."""

    trip: int | None = None
    count = 0

    def features(self, x: Tensor) -> Tensor:
        self.count += 1
        if self.count == self.trip:
            raise Tripped
        self.bn.running_mean += 1e-6
        self.bn.running_var = self.bn.running_var * 1.0001
        noise = 1e-3 * (torch.rand(1) + random.random() + np.random.random())  # noqa: NPY002
        return super().features(x + noise.to(x))


def state(net: nn.Module) -> list[Any]:
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return [
        [(n, id(t), t.detach().clone(), t.requires_grad, copy.deepcopy(t.grad)) for n, t in tensors],
        [m.training for m in net.modules()],
    ]


def same(a: list[Any], b: list[Any]) -> bool:
    tensors = all(
        p[:2] == q[:2] and torch.equal(p[2], q[2]) and p[3] == q[3] and (p[4] is None) == (q[4] is None)
        and (p[4] is None or torch.equal(p[4], q[4])) for p, q in zip(a[0], b[0], strict=True)
    )  # fmt: skip
    return tensors and a[1] == b[1]


@pytest.mark.parametrize("trip", [None, 1, 3, 10, 60, 200])
def test_network_and_global_streams_are_as_before(trip: int | None, nets: dict[str, Small], data: Splits):
    net = Wandering(3, 3)
    net.load_state_dict(nets["none"].state_dict())
    net.train().bn.eval()
    net.conv.bias.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    net.trip = trip
    surrogate = copy.deepcopy(nets["robust"])
    before, other = state(net), state(surrogate)
    stream, array = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    try:
        examine(net, data, QUICK.replace(n=100), surrogate=surrogate)
        assert trip is None
    except Tripped:
        assert trip is not None
    assert same(before, state(net))
    assert same(other, state(surrogate))
    assert torch.equal(stream, torch.get_rng_state())
    assert (array == np.random.get_state()[1]).all()  # noqa: NPY002


def test_untouched_restores_gradients_flags_and_what_was_written(nets: dict[str, Small]):
    net = copy.deepcopy(nets["none"])
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before = state(net)
    with pytest.raises(Tripped), restored(net):  # noqa: PT012
        net.head.weight.grad.zero_()
        net.conv.weight.grad = torch.ones_like(net.conv.weight)
        net.conv.weight.requires_grad_(False)
        net.bn.train().running_var.fill_(3.0)
        raise Tripped
    assert same(before, state(net))


def test_batch_statistics_move_nothing(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    before, p = state(net), make_probe(net, data, QUICK, None, None)
    with _batch_statistics(net), torch.no_grad():
        assert not torch.equal(net(p.x), p.all_logits)
    assert len(p.correct_by_batch_statistics) == len(p.x)
    assert same(before, state(net))
    assert net.bn.track_running_stats


def test_targets_are_the_likeliest_wrong_classes(nets: dict[str, Small], data: Splits):
    p = make_probe(nets["none"], data, QUICK, None, None)
    for logits, label, target in zip(
        p.logits(p.attack_set[0]), p.attack_set[1], p._targets(*p.attack_set), strict=True
    ):
        wrong = [k for k in range(3) if k != int(label)]
        assert int(target) == max(wrong, key=lambda k: float(logits[k]))


def test_python_draws_are_put_back():
    # alone, since the shape checks of these tests draw from this stream themselves
    with isolated_rng(0, torch.device("cpu")):
        first = random.random()
        before = random.getstate()
    inner = isolated_rng(0, torch.device("cpu"))
    random.setstate(before)
    inner.__enter__()
    assert random.random() == first
    inner.__exit__(None, None, None)
    assert random.getstate() == before


def test_the_same_seed_gives_the_same_findings(nets: dict[str, Small], data: Splits):
    net = copy.deepcopy(nets["none"])
    net.before = lambda x: x + 0.05 * torch.randn_like(x)
    first = examine(net, data, QUICK)
    torch.rand(3)
    assert examine(net, data, QUICK) == first
    assert examine(net, data, QUICK.replace(seed=1)) != first


def test_constants_come_back_after_an_exception(nets: dict[str, Small]):
    net = copy.deepcopy(nets["imagenet"])
    mean, std = net.mean, net.std
    with pytest.raises(Tripped):  # noqa: PT012
        with with_normalisation(net, (0.5,), (0.25,)):
            assert float(net.normalise(torch.ones(1, 3, 2, 2))[0, 0, 0, 0]) == 2
            raise Tripped
    assert net.mean is mean
    assert net.std is std


def test_progress_counts_every_check(nets: dict[str, Small], data: Splits):
    told: list[tuple[str, int, int]] = []
    examine(copy.deepcopy(nets["none"]), data, QUICK, progress=lambda *a: told.append(a))
    assert [done for _, done, _ in told] == list(range(len(told)))
    assert told[-1] == ("done", len(told) - 1, len(told) - 1)


def test_a_doctor_needs_a_radius():
    with pytest.raises(ValueError, match="eps=0 attacks nothing"):
        Doctor(threat=Linf(eps=0))
