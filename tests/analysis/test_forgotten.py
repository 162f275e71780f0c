"""What is kept of the features that a run's classes shared at best: exact numbers, few, and images."""

import json

import numpy as np
import pytest
import torch

from crossclass.analysis import feature_pictures
from crossclass.analysis.attribution import unit_rows
from crossclass.analysis.evaluate import EvaluationPass, evaluate
from crossclass.analysis.forgotten import CARRY, LOST, PAIRS, shared_and_forgotten
from crossclass.analysis.result_files import load_results
from crossclass.attacks import PGD
from crossclass.checkpoints.load import load_checkpoints
from crossclass.core.errors import UserError
from crossclass.training import validation
from crossclass.training.loop import train
from tiny_runs import CPU, TINY


def seen(K: int, d: int, n: int, seed: int) -> EvaluationPass:
    """Non-negative features of the classes 0 to K - 1, n images of each."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(K).repeat(n)
    features, W = torch.rand(K * n, d, generator=g), torch.randn(K, d, generator=g)
    return EvaluationPass(y, y, y, features, W)


def test_the_numbers_are_the_parts_of_c_and_cas() -> None:
    first, second = seen(6, 9, 5, 0), seen(6, 9, 5, 1)
    kept = shared_and_forgotten(first, second)
    u, v = unit_rows(first.means), unit_rows(second.means)
    assert kept.lost + kept.changed_sign == pytest.approx(first.cas - second.cas, abs=2e-4)
    assert kept.pairs[0].C[0] == pytest.approx(float(first.C.triu(1).max()), abs=1e-4)
    for pair in kept.pairs:
        i, j = pair.i, pair.j
        parts, then = u[i] * u[j], v[i] * v[j]
        carry = [k for k in parts.argsort(descending=True)[:CARRY].tolist() if parts[k] > 0]
        assert [f.k for f in pair.features][: len(carry)] == carry
        assert len(pair.features) <= CARRY + LOST
        for f in pair.features:
            assert pytest.approx((float(parts[f.k]), float(then[f.k])), abs=1e-4) == f.C
            assert f.i == pytest.approx([float(e.means[i, f.k]) for e in (first, second)], abs=1e-4)
            assert f.j == pytest.approx([float(e.means[j, f.k]) for e in (first, second)], abs=1e-4)
        assert all(f.C[0] > 0 for f in pair.features)  # what never carried was not forgotten
        assert all(f.C[0] > f.C[1] for f in pair.features[len(carry) :])
    losses = [f.lost for f in kept.features]
    assert losses == sorted(losses, reverse=True)
    assert all(f.lost > 0 and f.lost_interval[0] <= f.lost <= f.lost_interval[1] for f in kept.features)


def test_of_many_classes_a_bounded_number_is_kept() -> None:
    first, second = seen(1000, 64, 1, 0), seen(1000, 64, 1, 1)
    kept = shared_and_forgotten(first, second)
    assert len(kept.pairs) == PAIRS
    assert kept.more_pairs + PAIRS == int((first.C.triu(1) > 0).sum())
    assert len(kept.model_dump_json()) < 30_000


def test_two_classes_and_classes_without_images() -> None:
    assert len(shared_and_forgotten(seen(2, 3, 4, 0), seen(2, 3, 4, 2)).pairs) <= 1
    whole = seen(4, 5, 3, 0)
    some = whole.labels != 2
    y, g = whole.labels[some], whole.features[some]
    kept = shared_and_forgotten(*[EvaluationPass(y, y, y, g, w.abs()) for w in (whole.W, whole.W.flip(0))])
    assert kept.pairs
    assert all(2 not in (p.i, p.j) for p in kept.pairs)
    assert all(i != 2 for f in kept.features for i, _, _ in f.classes)


def test_networks_of_other_shapes_have_no_common_features() -> None:
    assert shared_and_forgotten(seen(3, 4, 2, 0), seen(3, 5, 2, 0)) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose best and last checkpoints differ."""
    settings = TINY.replace(seed=1, validation=TINY.validation.replace(every=1))
    return train(settings, tmp_path_factory.mktemp("runs"), "tiny", CPU)


def test_a_run_keeps_images_of_what_its_classes_share(run) -> None:
    file = load_results(run.path / "measure.json")
    numbers = file.comparisons[0].features
    pictures = feature_pictures.load_feature_pictures(run.path / "measure.json", 0)
    top = numbers.pairs[0]
    assert {p.k for p in pictures if p.pair == (top.i, top.j)} == set(feature_pictures.shown_features(top))
    read = next(load_checkpoints([f"{run.path}@best.val"], runtime=CPU))
    attack = PGD.model_validate(file.results[0].conditions["attack"])
    e = evaluate(
        read.model, read.splits.test, attack, file.results[0].conditions["seed"], batch=TINY.validation.batch
    )
    for p in pictures:
        assert p.of_class in p.pair
        adds = (e.features[:, p.k] * e.W[p.of_class, p.k])[e.labels == p.of_class]
        against = bool(adds.mean() < 0)  # then these are the images from which it takes most
        adds = adds.sort(descending=not against).values
        np.testing.assert_allclose(p.adds[0], adds[: len(p.images)], rtol=1e-3, atol=1e-5)
        assert p.maps.shape == (2, *p.images.shape[:3])
    largest = {(p.pair, p.k): 0 for p in pictures}
    for p in pictures:
        largest[p.pair, p.k] = max(largest[p.pair, p.k], int(p.maps.max()))
    assert not set(largest.values()) - {0, 255}  # both classes of a feature are on one scale


def test_pictures_of_another_file_or_damaged_ones_are_left_out(run, tmp_path) -> None:
    file = tmp_path / "measure.json"
    beside = feature_pictures.feature_picture_file(file)
    beside.write_bytes(feature_pictures.feature_picture_file(run.path / "measure.json").read_bytes())
    file.write_bytes((run.path / "measure.json").read_bytes())
    assert feature_pictures.load_feature_pictures(file, 0)
    assert not feature_pictures.load_feature_pictures(file, 1)
    file.write_text(json.dumps({"schema": 1}))
    assert not feature_pictures.load_feature_pictures(file, 0)
    beside.write_bytes(b"PK damaged")
    assert not feature_pictures.load_feature_pictures(file, 0)


def test_pictures_never_cost_a_run_its_numbers(tmp_path, monkeypatch) -> None:
    def fails(*args):
        raise UserError("no map")

    monkeypatch.setattr(validation, "feature_pictures", fails)
    settings = TINY.replace(seed=1, validation=TINY.validation.replace(every=1))
    run = train(settings, tmp_path, "tiny", CPU)
    assert load_results(run.path / "measure.json").comparisons[0].features.pairs
    assert not feature_pictures.feature_picture_file(run.path / "measure.json").exists()
