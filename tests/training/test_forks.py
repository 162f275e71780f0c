"""A fork begins where its parent was, draws what its parent draws, and differs by its settings alone."""

import shutil

import pytest
import torch

from crossclass import models
from crossclass.analysis.run_record import load_run
from crossclass.checkpoints.card import load_checkpoint, load_tensors
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.core.overrides import override
from crossclass.training.forks import with_parent
from crossclass.training.labels import TemporalEnsembling
from crossclass.training.loop import iterate_epochs
from crossclass.training.run import Parent, Run
from tiny_runs import CPU, TINY, KilledError, same, untimed, weights

AT_EPOCH = 2
ARMS = {
    "one-hot labels": {},
    "distillation": {"recipe.kind": "kd", "recipe.inner": TINY.recipe.to_dict()},
    "temporal ensembling": {"ensembling": TemporalEnsembling(start=3).to_dict()},
    "label smoothing": {"label_smoothing": 0.2},
    "half of eps": {"recipe.attack.threat.eps": 4 / 255},
    "the rate is not dropped": {"lr_milestones": []},
    "an average of the weights": {"weight_averaging": {"kind": "ema"}},
    "a refreshed average": {"weight_averaging": {"kind": "swa"}},
    "longer, in larger batches": {"epochs": 5, "batch": 13},
}


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs")
    return trained(TINY, out, keep_state=[AT_EPOCH, "best"])


def trained(run: Run, out, **more) -> RunFolder:
    *_, (folder, _) = iterate_epochs(run, out, "tiny", CPU, **more)
    return folder


def started(run: Run, out) -> RunFolder:
    """Trained for one epoch of its own."""
    for folder, row in iterate_epochs(run, out, "tiny", CPU):
        if row.epoch == AT_EPOCH + 1:
            return folder
    raise AssertionError("it ended before")


def forked(parent: RunFolder, changes=None, epoch: int = AT_EPOCH) -> Run:
    run = override(TINY, changes or {})
    return run.replace(parent=Parent(run=str(parent.path), epoch=epoch))


def test_a_fork_that_changes_nothing_ends_in_its_parents_bits(parent, tmp_path):
    fork = trained(forked(parent), tmp_path)
    assert fork.path != parent.path
    assert fork.path.name != parent.path.name  # another digest, which holds the parent's
    assert untimed(fork.rows()) == untimed(parent.rows())
    for name in parent.checkpoints():
        if name in fork.checkpoints():  # epoch_002 is the parent's
            assert same(weights(fork, name), weights(parent, name)), name
    assert {"best.val", "best.test", "last", "epoch_004"} <= set(fork.checkpoints())
    (a, b) = (load_run(f.path).results.results for f in (parent, fork))
    assert [(r.checkpoint.name, r.checkpoint.epoch, r["robust"], r["cas"]) for r in a] == [
        (r.checkpoint.name, r.checkpoint.epoch, r["robust"], r["cas"]) for r in b
    ]


@pytest.mark.parametrize("changes", ARMS.values(), ids=ARMS.keys())
def test_every_arm_shares_its_parents_past_and_resumes_to_the_bit(parent, tmp_path, changes):
    run = forked(parent, changes)
    whole = trained(run, tmp_path / "whole")
    assert untimed(whole.rows(AT_EPOCH)) == untimed(parent.rows(AT_EPOCH))
    assert len(whole.rows()) == run.epochs
    if changes:
        assert not same(weights(whole), weights(parent))
    started(run, tmp_path / "killed")
    again = trained(run, tmp_path / "killed")
    assert same(weights(again), weights(whole))
    assert untimed(again.rows()) == untimed(whole.rows())


def test_a_fork_goes_on_without_its_parent_once_it_has_begun(parent, tmp_path):
    copy = RunFolder(tmp_path / "runs" / parent.path.name)
    shutil.copytree(parent.path, copy.path)
    run = forked(copy, {"label_smoothing": 0.2})
    folder = started(run, tmp_path / "runs")
    shutil.rmtree(copy.path)
    stored = load_yaml(Run, folder.config(), "config.yaml")
    assert stored.parent is not None
    assert stored.parent.run is None
    *_, (done, _) = iterate_epochs(stored, tmp_path / "runs", "tiny", CPU, begun=folder)
    assert same(weights(done), weights(trained(forked(parent, {"label_smoothing": 0.2}), tmp_path / "b")))
    with pytest.raises(UserError, match="no run folder"):
        trained(run.replace(seed=0), tmp_path / "c")


def test_the_best_epoch_is_kept_too_and_its_fork_begins_with_it(parent, tmp_path):
    best = load_checkpoint(parent.checkpoint("best.val"))[1].epoch
    assert parent.kept_states() == sorted({AT_EPOCH, best})
    if best < TINY.epochs:
        fork = trained(forked(parent, {"label_smoothing": 0.2}, best), tmp_path)
        assert untimed(fork.rows(best)) == untimed(parent.rows(best))


def test_an_average_that_begins_with_the_fork_begins_with_the_parents_weights(parent, tmp_path):
    almost_all = {"weight_averaging": {"kind": "ema", "decay": 1 - 1e-7}}
    fork = trained(forked(parent, almost_all), tmp_path)
    kept = load_tensors(parent.kept_state(AT_EPOCH) / "state.safetensors")[0]
    there = {k.removeprefix("model/"): v for k, v in kept.items() if k.startswith("model/")}
    learned = [name for name, _ in built().named_parameters()]
    assert learned
    for name, tensor in weights(fork).items():
        if name in learned:
            torch.testing.assert_close(tensor, there[name], rtol=0, atol=1e-5)


def built():
    splits = TINY.data()
    return models.build(TINY.model, splits.train.images, 3, 0)


def test_the_digest_holds_the_parents_and_its_epoch(parent, tmp_path):
    one = with_parent(forked(parent))
    assert one.parent is not None
    assert one.parent.run_digest == parent.read("env.json")["digest"]
    assert one.digest() != TINY.digest()
    assert one.digest() == with_parent(one.replace(parent=one.parent.replace(run=str(parent.path)))).digest()
    other = one.parent.replace(fingerprint="0" * 16)
    with pytest.raises(UserError, match="fingerprint"):
        with_parent(one.replace(parent=other))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "seed=0"),
        ({"model.width": 8}, "model.width=4"),
        ({"data.classes": 4}, "data.classes=3"),
        ({"data.seed": 5}, "data.seed"),
    ],
)
def test_another_seed_network_or_data_set_is_refused(parent, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        trained(forked(parent, changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_state_that_was_not_kept_is_refused_and_those_kept_are_named(parent, tmp_path):
    with pytest.raises(UserError, match=f"kept no state of epoch 1 .*{AT_EPOCH}"):
        trained(forked(parent, epoch=1), tmp_path)
    with pytest.raises(UserError, match="epochs"):
        forked(parent, {"epochs": 2, "lr_milestones": []})
    with pytest.raises(UserError, match="kept no state of epoch 3"):
        trained(TINY, parent.path.parent, keep_state=[3])


def test_a_killed_beginning_begins_anew(parent, tmp_path, monkeypatch):
    run = forked(parent, {"label_smoothing": 0.2})

    def killed(*args, **more):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_state", killed)
        with pytest.raises(KilledError):
            trained(run, tmp_path)
    again = trained(run, tmp_path)
    assert same(weights(again), weights(trained(run, tmp_path / "other")))


def test_a_fork_of_a_fork(parent, tmp_path):
    first = trained(forked(parent, {"label_smoothing": 0.2}), tmp_path, keep_state=[3])
    second = override(TINY, {"label_smoothing": 0.2}).replace(parent=Parent(run=str(first.path), epoch=3))
    folder = trained(second, tmp_path)
    assert untimed(folder.rows()) == untimed(first.rows())
    assert same(weights(folder), weights(first))
