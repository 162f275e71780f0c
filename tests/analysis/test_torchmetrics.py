"""The metric classes say what their functional twins say: streamed, merged, pickled, over processes."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from conftest import seeded
from crossclass.analysis import attribution, evaluate, instances
from crossclass.analysis.torchmetrics import (
    CAS,
    CASByFeature,
    ClassCorrelation,
    ClasswiseAccuracy,
    InstanceCAS,
)
from crossclass.core.errors import UserError

K, D, N = 4, 12, 401


def sample() -> tuple[Tensor, Tensor, Tensor]:
    generator = seeded(0)
    y = torch.randint(0, K - 1, (N,), generator=generator)  # the last class has no samples
    g = torch.randn(N, D, generator=generator).clamp(min=0) + (y[:, None] == torch.arange(D) % K)
    return g, torch.randn(K, D, generator=generator), y


def predictions() -> Tensor:
    return torch.randint(0, K, (N,), generator=seeded(1))


def truths() -> dict[str, Tensor]:
    g, W, y = sample()
    C = attribution.correlation(attribution.class_means(g, W, y))
    I = instances.instance_correlation(instances.nearest(g, W, y), y)  # noqa: E741
    A, share = attribution.class_means(g, W, y), torch.zeros(D, dtype=torch.float64)
    for i in range(K - 1):
        for j in range(K - 1):
            length = A[i].norm() * A[j].norm()
            if i != j and A[i] @ A[j] > 0:
                share += torch.stack([A[i, f] * A[j, f] / length for f in range(D)])
    return {
        "CASByFeature": share,
        "ClassCorrelation": C,
        "CAS": torch.tensor(attribution.cas(C), dtype=torch.float64),
        "InstanceCAS": torch.tensor(attribution.cas(I), dtype=torch.float64),
    }


def fresh() -> dict[str, Any]:
    return {
        c.__name__: c(num_classes=K, num_features=D)
        for c in (ClassCorrelation, CAS, CASByFeature, InstanceCAS)
    }


def same(found: Tensor, truth: Tensor) -> None:
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 50, 400, 401])
def test_streamed_metrics_are_their_functional_twins(batch: int) -> None:
    g, W, y = sample()
    for name, metric in fresh().items():
        for rows in torch.arange(N).split(batch):
            metric.update(g[rows], y[rows], W)
        same(metric.compute(), truths()[name])
        assert metric.compute().shape == truths()[name].shape


def test_attributions_instead_of_features_and_weights() -> None:
    g, W, y = sample()
    for name, metric in fresh().items():
        metric.update(g.double() * W.double()[y], y, attributions=True)
        torch.testing.assert_close(metric.compute(), truths()[name], rtol=1e-6, atol=1e-6)


def test_each_batch_may_come_with_weights_of_its_own() -> None:
    g, W, y = sample()
    C = ClassCorrelation(K, D)
    C.update(g[:100], y[:100], W)
    C.update(g[100:], y[100:], 2 * W)
    means = torch.zeros(K, D, dtype=torch.float64)
    for x, i, factor in zip(g.double(), y.tolist(), [1] * 100 + [2] * (N - 100), strict=True):
        means[i] += factor * x * W[i]
    same(C.compute(), attribution.correlation(means))


def test_reset_forgets_and_forward_gives_the_batch() -> None:
    g, W, y = sample()
    for name, metric in fresh().items():
        metric.update(g * 3 + 1, y, -W)
        metric.reset()
        metric.update(g[:200], y[:200], W)
        part, again = metric(g[200:], y[200:], W), fresh()[name]
        again.update(g[200:], y[200:], W)
        same(part, again.compute())
        same(metric.compute(), truths()[name])


def test_metrics_that_saw_nothing_share_nothing() -> None:
    for name, metric in fresh().items():
        metric.update(torch.zeros(0, D), torch.zeros(0, dtype=torch.int64), torch.ones(K, D))
        same(metric.compute(), torch.zeros_like(truths()[name]))


def test_half_precision_leaves_the_states_alone() -> None:
    g, W, y = sample()
    metrics = fresh()
    torch.nn.ModuleDict(metrics).half()
    for name, metric in metrics.items():
        metric.half().update(g, y, W)
        same(metric.compute(), truths()[name])
    assert metrics["CAS"].sums.dtype == torch.float64
    assert metrics["CAS"].counts.dtype == torch.int64


def test_half_features_are_summed_in_float64() -> None:
    g, W, y = sample()
    big = (g * 1000).half()
    C = ClassCorrelation(K, D)
    C.update(big, y, W)
    same(C.compute(), attribution.correlation(attribution.class_means(big, W, y)))


def test_pickled_metrics_go_on() -> None:
    g, W, y = sample()
    for name, metric in fresh().items():
        metric.update(g[:150], y[:150], W)
        copy = pickle.loads(pickle.dumps(metric))
        copy.update(g[150:], y[150:], W)
        same(copy.compute(), truths()[name])


def test_a_collection_computes_all_and_may_share_states() -> None:
    g, W, y = sample()
    collection = MetricCollection(list(fresh().values()))
    for rows in torch.arange(N).split(130):
        collection.update(g[rows], y[rows], W)
    found = collection.compute()
    assert set(found) == set(truths())
    for name, truth in truths().items():
        same(found[name], truth)


def test_classwise_accuracy_counts_and_knows_what_it_has_not_seen() -> None:
    _, _, y = sample()
    predicted, metric = predictions(), ClasswiseAccuracy(K)
    for rows in torch.arange(N).split(130):
        metric.update(predicted[rows], y[rows])
    found = metric.compute()
    assert found.dtype == torch.float64
    literal = evaluate.classwise(predicted, y, K)
    assert literal[K - 1] is None
    assert bool(found[K - 1].isnan())
    assert found[: K - 1].tolist() == pytest.approx(literal[: K - 1])
    theirs = MulticlassAccuracy(num_classes=K, average=None)(predicted, y)
    torch.testing.assert_close(found[: K - 1].float(), theirs[: K - 1])
    assert float(theirs[K - 1]) == 0  # why there is one of ours


def test_torchmetrics_own_confusion_matrix_is_ours() -> None:
    _, _, y = sample()
    theirs = MulticlassConfusionMatrix(num_classes=K)(predictions(), y)
    assert torch.equal(theirs, evaluate.confusion(predictions(), y, K))


@pytest.mark.usefixtures("without_shape_checks")
def test_wrong_labels_and_widths_are_refused_in_one_sentence() -> None:
    g, W, y = sample()
    for metric in fresh().values():
        for wrong in (y + K - 2, y - 1):
            with pytest.raises(UserError, match=r"labels reach from .* num_classes=4"):
                metric.update(g, wrong, W)
        with pytest.raises(UserError, match="features have width 11 and W is 4 x 11"):
            metric.update(g[:, 1:], y, W[:, 1:])
        with pytest.raises(UserError, match="W is 5 x 12"):
            metric.update(g, y, torch.ones(K + 1, D))
        with pytest.raises(UserError, match=r"width 11, but .*num_features=12"):
            metric.update(g[:, 1:], y, attributions=True)
        with pytest.raises(UserError, match="W is missing"):
            metric.update(g, y)
        with pytest.raises(UserError, match="leave W out"):
            metric.update(g, y, W, attributions=True)
        with pytest.raises(UserError, match="one-hot"):
            metric.update(g, torch.eye(K)[y], W)
    with pytest.raises(UserError, match="num_classes=3"):
        ClasswiseAccuracy(3).update(y, y + 2)
    with pytest.raises(UserError, match="argmax"):
        ClasswiseAccuracy(K).update(torch.rand(N, K), y)


@pytest.mark.parametrize("rows", [slice(3, 4), slice(None)])
def test_one_image_of_nan_is_never_left_out_silently(rows: slice) -> None:
    g, W, y = sample()
    g[rows] = torch.nan
    for metric in fresh().values():
        metric.update(g, y, W)
        found = metric.compute()
        assert bool(found[y[3]].isnan().all() if found.ndim else found.isnan())


def one_process(rank: int, meeting: str, out: str) -> None:
    """What each of two processes does: unequal shards, then all samples on one of them."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    g, W, y = sample()
    found = {}
    for label, cut in (("uneven", 201), ("empty", 0)):
        mine = slice(0, cut) if rank == 0 else slice(cut, N)
        metrics = fresh()
        for metric in metrics.values():
            for rows in torch.arange(N)[mine].split(64):
                metric.update(g[rows], y[rows], W)
        classwise = ClasswiseAccuracy(K)
        classwise.update(predictions()[mine], y[mine])
        found[label] = {name: m.compute() for name, m in metrics.items()} | {"classwise": classwise.compute()}
    torch.save(found, f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_with_unequal_shards_are_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_process, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    alone = ClasswiseAccuracy(K)
    alone.update(predictions(), sample()[2])
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt").values():
            assert torch.equal(found.pop("classwise").nan_to_num(-1), alone.compute().nan_to_num(-1))
            for name, value in found.items():
                same(value, truths()[name])
