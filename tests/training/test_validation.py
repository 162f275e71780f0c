"""What a check measures: against the plane's closed form, the plug-ins, and slow loops."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from conftest import Plane, seeded, tiny_net
from crossclass import models
from crossclass.analysis import evaluate
from crossclass.analysis.records import EpochRow, metric_columns
from crossclass.analysis.result_files import load_results
from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.checkpoints.load import load_model
from crossclass.core.device import to_device
from crossclass.core.rng import generator
from crossclass.data import Split, as_float
from crossclass.training import checkpointing, validation
from crossclass.training.loop import train
from crossclass.training.recipes import Standard
from crossclass.training.run import Run, Validation
from crossclass.training.validation import mean_cosine, probe_one_step
from tiny_runs import CPU, TINY, killed_after

RUN = TINY.replace(validation=Validation(attack=PGD(threat=Linf(eps=16 / 255), steps=3), batch=5))


def split(n: int = 40, classes: int = 3, side: int = 6) -> Split:
    images = (256 * torch.rand(n, 3, side, side, generator=seeded(1))).byte()
    return Split(images, torch.randint(classes, (n,), generator=seeded(2)))


@pytest.fixture(scope="module")
def built() -> tuple:
    splits = RUN.data()
    model = models.build(RUN.model, splits.train.images, 3, 0)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=seeded(7))
    return splits, to_device(model, CPU.torch_device, CPU.memory_format)


def bare_row() -> EpochRow:
    return EpochRow(epoch=1, **dict.fromkeys(metric_columns()))


def checked(built, run: Run = RUN, splits=None, progress=lambda *a: None) -> EpochRow:
    return validation.validate(bare_row(), run, CPU, built[1], splits or built[0], progress)


def test_the_gradient_of_a_plane_is_the_same_everywhere():
    plane, part = Plane(torch.randn(108, generator=seeded(3))), split(classes=2)
    seen = probe_one_step(plane, part, Linf(eps=0.1))
    assert torch.allclose(seen.cosine, torch.ones(40), atol=1e-5)
    # on a plane one full step is the worst case, so FGSM's accuracy has a closed form
    x = as_float(part.images)
    worst = plane.margin(plane.worst_linf_in_box(x, part.labels, 0.1), part.labels)
    assert torch.equal(seen.correct, worst > 0)


@pytest.mark.parametrize("threat", [Linf(eps=24 / 255), L2(eps=1.0)])
def test_fgsm_is_the_attack_of_that_name(threat):
    net, part = tiny_net(), split()
    seen = probe_one_step(net, part, threat, batch=7)
    x_adv = FGSM(threat=threat)(net, as_float(part.images), part.labels)
    assert torch.equal(seen.correct, net(x_adv).argmax(dim=1) == part.labels)
    assert 0 < seen.correct.double().mean() < 1


@pytest.mark.parametrize("threat", [Linf(eps=64 / 255), L2(eps=3.0)])
def test_the_cosine_equals_its_definition(threat):
    net, part = tiny_net(), split(12)
    seen = probe_one_step(net, part, threat, seed=5, epoch=3, batch=4)
    for i in range(len(part)):
        x, y = as_float(part.images[i : i + 1]), part.labels[i : i + 1]
        batch = as_float(part.images[i // 4 * 4 : i // 4 * 4 + 4])
        start = "uniform" if threat.kind == "linf" else "ball"
        eta = threat.sample(batch, start, generator(5, 3, i // 4, "check"))[i % 4 : i % 4 + 1]
        gradients = []
        for at in (x, (x + eta).clamp(0, 1)):
            at = at.clone().requires_grad_()
            F.cross_entropy(net(at), y).backward()
            gradients.append(at.grad.double().flatten())
        net.zero_grad()
        a, b = gradients
        assert float(seen.cosine[i]) == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-5)
    assert seen.cosine.min() < 0.999


def test_the_cosine_of_tiny_gradients_is_exact_and_of_none_undefined():
    assert float(validation._cosine(*(torch.full((1, 4), 1e-25),) * 2)) == pytest.approx(1)
    a = torch.tensor([[1e-30, 0.0], [0, 0], [1, 1]])
    b = torch.tensor([[0.0, 1e-30], [1, 0], [math.nan, 1]])
    cosine = validation._cosine(a, b)
    assert float(cosine[0]) == 0
    assert cosine[1].isnan()
    assert mean_cosine(torch.tensor([0.5, math.nan, 1.0])) == 0.75
    assert mean_cosine(torch.tensor([math.nan])) is None


def test_probing_leaves_no_trace():
    net = tiny_net().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.random.get_rng_state()
    probe_one_step(net, split(), Linf())
    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_check_watches_the_validation_part(built):
    splits, model = built
    row = checked(built)
    attack = RUN.validation.attack
    seen = evaluate.evaluate(model, splits.val, attack, batch=5, epoch=1, purpose="check")
    pgd = float((seen.robust == seen.labels).double().mean())
    fgsm = float(probe_one_step(model, splits.val, attack.threat, 0, 1, 5).correct.double().mean())
    counts = torch.bincount(seen.robust, minlength=3)
    assert row["watched"] == "val"
    assert (row["watched_n"], row["fgsm_n"], row["test_n"]) == (12, 12, 14)
    assert row["watched_attack"] == str(attack)
    assert row["val_robust"] == pytest.approx(pgd)
    assert row["watched_fgsm"] == pytest.approx(fgsm)
    assert row["fgsm_gap"] == pytest.approx(fgsm - pgd)
    assert row["gradient_cosine"] == pytest.approx(
        float(probe_one_step(model, splits.val, attack.threat, 0, 1, 5).cosine.double().mean())
    )
    assert row["watched_predicted_classes"] == int((counts > 0).sum())
    assert row["watched_largest_share"] == pytest.approx(float(counts.max()) / 12)


def test_without_validation_the_row_says_that_it_watched_test(built):
    splits = RUN.data.replace(n_val=0)()
    row = checked(built, splits=splits)
    assert row["watched"] == "test"
    assert row["val_robust"] is None
    assert row["watched_n"] == row["test_n"] == 14
    assert row["fgsm_gap"] == pytest.approx(row["watched_fgsm"] - row["test_robust"])
    assert row["watched_predicted_classes"] == row["predicted_classes"]


@pytest.mark.parametrize("n", [1, 3, 5, 8])
@pytest.mark.parametrize("balanced", [True, False])
def test_fgsm_is_compared_with_pgd_on_the_same_few_images(built, monkeypatch, n, balanced):
    monkeypatch.setattr(validation, "PROBE_N", n)
    splits, model = built
    row = checked(built, RUN.replace(validation=RUN.validation.replace(balanced=balanced)))
    index = splits.val.sample(n, RUN.seed) if balanced else torch.arange(n)
    few = splits.val.take(index)
    pgd = evaluate.evaluate(
        model, splits.val, RUN.validation.attack, batch=5, epoch=1, purpose="check"
    ).robust[index]
    assert (row["fgsm_n"], row["watched_n"]) == (n, 12)
    assert row["watched_fgsm"] == pytest.approx(
        float(probe_one_step(model, few, Linf(eps=16 / 255)).correct.double().mean())
    )
    assert row["fgsm_gap"] == pytest.approx(row["watched_fgsm"] - float((pgd == few.labels).double().mean()))


@pytest.mark.parametrize("balanced", [True, False])
def test_fewer_images_are_drawn_over_all_classes(built, monkeypatch, balanced):
    """Parts sorted by class: six images drawn are two of each class, the first six are of one."""
    asked, run = [], RUN.replace(validation=RUN.validation.replace(n=6, balanced=balanced))
    splits = built[0]
    ordered = {
        p: getattr(splits, p).take(getattr(splits, p).labels.argsort()) for p in ("train", "val", "test")
    }
    kept = evaluate.evaluate
    monkeypatch.setattr(evaluate, "evaluate", lambda m, s, *a, **k: asked.append(s) or kept(m, s, *a, **k))
    checked(built, run, replace(splits, **ordered))
    seen = [torch.bincount(s.labels, minlength=3).tolist() for s in asked]
    assert [sum(s) for s in seen] == [6, 6, 6]
    assert all((s == [2, 2, 2]) == balanced for s in seen)


def test_check_n_and_progress_are_kept(built):
    told = []
    row = checked(
        built, RUN.replace(validation=RUN.validation.replace(n=7)), progress=lambda *a: told.append(a)
    )
    assert (row["watched_n"], row["fgsm_n"], row["test_n"]) == (7, 7, 7)
    assert told[-1] == ("check", 21, 21)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_standard_training_is_checked_in_its_default_ball(built):
    row = checked(built, RUN.replace(recipe=Standard(), validation=Validation(batch=5)))
    assert "PGD-20, l_inf 8/255" in row["watched_attack"]
    assert row.train_clean is None  # the loop knows it already


def test_rows_have_the_same_columns_with_and_without_a_validation(built):
    assert checked(built).to_dict().keys() == bare_row().to_dict().keys()


def test_the_best_row_is_the_first_of_equals():
    rows = [EpochRow(epoch=e, val_robust=r) for e, r in ((1, 0.1), (2, 0.4), (3, None), (4, 0.4))]
    assert checkpointing.best(rows, "val").epoch == 2
    assert checkpointing.best(rows, "test") is None


def test_the_full_evaluation_loads_only_networks_of_earlier_epochs(tmp_path, monkeypatch):
    loaded: list[str] = []

    def load(path):
        loaded.append(path.stem)
        return load_model(path)

    monkeypatch.setattr(validation, "load_model", load)
    folder = train(TINY, tmp_path, "t", CPU)
    measured = load_results(folder.path / "measure.json")
    epochs = {r.checkpoint.name: r.checkpoint.epoch for r in measured.results}
    assert loaded == [name for name, epoch in epochs.items() if epoch != TINY.epochs]
    loaded.clear()
    killed_after(TINY.epochs, tmp_path / "resumed")  # before the full evaluation: nothing is in memory then
    folder = train(TINY, tmp_path / "resumed", "tiny", CPU)
    assert loaded == list(epochs)
    from_disk = load_results(folder.path / "measure.json")
    assert [r.metrics for r in from_disk.results] == [r.metrics for r in measured.results]
