"""The loop: an interrupted run equals an uninterrupted one, checking changes nothing, every recipe trains."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from crossclass import checkpoint, models
from crossclass.attacks import FGSM, PGD
from crossclass.augment import Augment
from crossclass.data import Npz, Shapes
from crossclass.errors import BusyError, UserError
from crossclass.learner import optimizer as _optimizer
from crossclass.measure import measured
from crossclass.models import PreActResNet
from crossclass.recipes import (
    AT,
    AWP,
    EMA,
    MART,
    SWA,
    AnyRecipe,
    Check,
    Distilled,
    GradAlign,
    Mix,
    Run,
    Standard,
    TemporalEnsembling,
    Trades,
)
from crossclass.runtime import Runtime
from crossclass.settings import members
from crossclass.store import COLUMNS, RunFolder
from crossclass.subjects import load_model
from crossclass.threat import L2, Linf
from crossclass.train import train, trained
from crossclass.watch import best

CPU = Runtime(device="cpu")
TINY = Run(
    data=Shapes(n_train=26, n_val=12, n_test=14, classes=3, size=16),
    model=PreActResNet(width=4, stem_stride=2, blocks=(1, 1), normalise="data"),
    recipe=AT(attack=PGD(steps=2)),
    augment=Augment(crop=1),
    epochs=4,
    drops=(2, 3),
    batch=8,
    lr=0.05,
    check=Check(attack=PGD(steps=2), final=PGD(steps=3), batch=5),
    keep_every=2,
)
UNTIMED = ("seconds", "check_seconds")


def ones(results: list[dict]) -> list[dict]:
    """The objects about one checkpoint each."""
    return [r for r in results if "comparison" not in r]


def weights(folder: RunFolder, name: str = "last") -> dict[str, torch.Tensor]:
    return checkpoint.load(folder.checkpoint(name))[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def untimed(rows):
    return [{k: v for k, v in row.items() if k not in UNTIMED} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    return trained(TINY, tmp_path_factory.mktemp("whole"), "tiny", CPU)


class KilledError(Exception):
    pass


def killed_after(epoch: int, out, run=TINY, inside: bool = False) -> None:
    """Stop training after an epoch, or in the middle of the next."""
    current = 0

    def progress(what, done, total):
        if inside and what == "train" and current == epoch and done == 2:
            raise KilledError

    stream = train(run, out, "tiny", CPU, progress)
    try:
        for _, row in stream:
            current = row["epoch"]
            if current == epoch and not inside:
                break
    except KilledError:
        pass
    stream.close()


def test_a_finished_run_is_complete(whole):
    names = {
        "config.yaml",
        "env.json",
        "events.jsonl",
        "metrics.csv",
        "measure.json",
        "DONE",
        "resume",
        ".lock",
    }
    names |= {f"{n}.safetensors" for n in ("best.val", "best.test", "last", "epoch_002", "epoch_004")}
    assert set(os.listdir(whole.path)) == names
    assert os.listdir(whole.path / "resume") == []
    rows = whole.rows()
    assert [r["epoch"] for r in rows] == [1, 2, 3, 4]
    assert [r["lr"] for r in rows] == pytest.approx([0.05, 0.05, 0.005, 0.0005])
    header, *lines = (whole.path / "metrics.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS)
    assert len(lines) == 4
    assert {"epoch", "lr", "train_robust", "test_clean", "test_robust", "cas"} <= set(COLUMNS)
    for row in rows:
        assert torch.tensor(row["C"]).shape == (3, 3)
        for key in ("train_clean", "train_robust", "val_robust", "test_robust", "test_clean"):
            assert 0 <= row[key] <= 1


def test_the_full_evaluation_says_its_conditions(whole):
    results = ones(whole.read("measure.json"))
    assert [r["checkpoint"] for r in results] == ["best.val", "best.test", "last"]
    assert [r["chosen_by"] for r in results] == ["val", "test", None]
    for r in results:
        assert r["conditions"] == {
            "attack": PGD(steps=3).plain(),
            "eps": "8/255",
            "steps": 3,
            "seed": 0,
            "n": 14,
            "split": "test",
            "precision": "fp32",
            "batch": 5,
            "examples": "all",
        }
        assert sum(map(sum, r["confusion"])) == 14
        assert r["truth"]["sharing"] == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]


def test_best_is_the_first_highest_of_its_split(whole):
    rows = whole.rows()
    for split in ("val", "test"):
        top = best(rows, split)
        assert top["epoch"] == checkpoint.load(whole.checkpoint(f"best.{split}"))[1]["epoch"]
        assert top[f"{split}_robust"] == max(r[f"{split}_robust"] for r in rows)
    assert best([{"epoch": 1, "val_robust": 0.5}, {"epoch": 2, "val_robust": 0.5}], "val")["epoch"] == 1


@pytest.mark.parametrize(("epoch", "inside"), [(1, False), (2, True), (3, False), (3, True)])
def test_interrupted_equals_uninterrupted(whole, tmp_path, epoch, inside):
    killed_after(epoch, tmp_path, inside=inside)
    folder = trained(TINY, tmp_path, "tiny", CPU)
    for name in ("last", "best.val", "best.test", "epoch_002"):
        assert same(weights(folder, name), weights(whole, name))
    assert untimed(folder.rows()) == untimed(whole.rows())
    named = [{**r, "run": folder.path.name} if "run" in r else r for r in whole.read("measure.json")]
    assert folder.read("measure.json") == named


def test_kill_9_in_mid_epoch_and_resume_gives_identical_weights(tmp_path):
    run = TINY.but(epochs=6, data=TINY.data.but(n_train=200))
    (tmp_path / "run.yaml").write_text(run.yaml())
    command = [sys.executable, "-m", "crossclass", "train", "run.yaml", "out=killed", "runtime.threads=1"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = None
    for _ in range(600):
        log = next(iter(tmp_path.glob("killed/*/events.jsonl")), None)
        if log is not None and log.read_text().count("\n") >= 2:
            break
        time.sleep(0.05)
    time.sleep(0.05)  # somewhere inside the third epoch or its check
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert log is not None
    assert not (log.parent / "DONE").exists(), "the run was over before it could be killed"
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    command[5] = "out=whole"
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    one, two = (RunFolder(next(tmp_path.glob(f"{n}/*"))) for n in ("killed", "whole"))
    assert same(weights(one), weights(two))
    assert untimed(one.rows()) == untimed(two.rows())


def test_checking_never_changes_what_is_trained(whole, tmp_path):
    for change in ({"every": 3}, {"n": 3, "attack": FGSM()}):
        run = TINY.but(check=TINY.check.but(**change))
        assert same(weights(trained(run, tmp_path, "t", CPU)), weights(whole))


def test_the_result_depends_on_no_global_stream(whole, tmp_path):
    torch.manual_seed(12345)
    torch.rand(7)
    assert same(weights(trained(TINY, tmp_path, "t", CPU)), weights(whole))


def test_a_second_call_does_nothing(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.path.rglob("*")}
    assert trained(TINY, whole.path.parent, "another label", CPU) == whole
    assert before == {p: p.stat().st_mtime_ns for p in whole.path.rglob("*")}


def test_a_cut_off_log_line_and_a_damaged_state_are_survived(whole, tmp_path):
    killed_after(3, tmp_path)
    folder = RunFolder(next(tmp_path.iterdir()))
    with open(folder.path / "events.jsonl", "ab") as file:
        file.write(b'{"epoch": 4, "lr"')
    states = sorted((folder.path / "resume").iterdir())
    assert [s.name for s in states] == ["epoch_00002.safetensors", "epoch_00003.safetensors"]
    states[-1].write_bytes(states[-1].read_bytes()[:-100])
    said: list[str] = []
    for _ in train(TINY, tmp_path, "tiny", CPU, say=said.append):
        pass
    assert "epoch_00003.safetensors is damaged" in said[0]
    assert "resuming after epoch 2" in said[1]
    assert same(weights(folder), weights(whole))


def test_if_no_state_can_be_read_it_says_what_to_delete(tmp_path):
    killed_after(2, tmp_path)
    folder = RunFolder(next(tmp_path.iterdir()))
    for state in (folder.path / "resume").iterdir():
        state.write_bytes(b"x")
    events = (folder.path / "events.jsonl").read_text()
    with pytest.raises(UserError, match=r"no state in .*resume can be read; delete that folder"):
        trained(TINY, tmp_path, "tiny", CPU)
    assert (folder.path / "events.jsonl").read_text() == events
    shutil.rmtree(folder.path / "resume")
    assert len(trained(TINY, tmp_path, "tiny", CPU).rows()) == 4


def test_a_full_disk_keeps_what_was_finished(tmp_path, monkeypatch, whole):
    from crossclass import files

    written = 0
    fsync = os.fsync

    def sometimes(descriptor):
        nonlocal written
        written += 1
        if written > 14:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", sometimes)
    with pytest.raises(UserError, match="no space left"):
        trained(TINY, tmp_path, "tiny", CPU)
    monkeypatch.undo()
    folder = RunFolder(next(tmp_path.iterdir()))
    assert not list(folder.path.rglob("*.tmp"))
    for path in folder.path.rglob("*.safetensors"):
        checkpoint.load(path)
    assert same(weights(trained(TINY, tmp_path, "tiny", CPU)), weights(whole))


def test_an_output_folder_of_another_run_is_refused(tmp_path, whole):
    with pytest.raises(UserError, match="folder that holds the runs"):
        trained(TINY, whole.path, "tiny", CPU)
    killed_after(1, tmp_path)
    folder = next(tmp_path.iterdir())
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.05", "lr: 0.06"))
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(UserError, match="is not the run that would be trained: lr differs"):
        trained(TINY, tmp_path, "tiny", CPU)
    assert sorted(p.name for p in folder.iterdir()) == before
    config.write_text("{")
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        trained(TINY, tmp_path, "tiny", CPU)


def test_a_setting_added_since_does_not_orphan_a_run(tmp_path):
    killed_after(1, tmp_path)
    config = next(tmp_path.iterdir()) / "config.yaml"
    config.write_text(config.read_text().replace("clip: null\n", ""))
    assert len(trained(TINY, tmp_path, "tiny", CPU).rows()) == 4


def test_training_needs_training_images(tmp_path):
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "test.npz", images=images, labels=np.arange(4, dtype=np.uint8))
    with pytest.raises(UserError, match="there are no training images"):
        trained(TINY.but(data=Npz(path=tmp_path)), tmp_path / "runs", "tiny", CPU)
    assert not (tmp_path / "runs").exists()


def test_without_a_validation_part_only_the_papers_rule_is_left(tmp_path):
    run = TINY.but(data=TINY.data.but(n_val=0), epochs=1, drops=())
    folder = trained(run, tmp_path, "t", CPU)
    assert folder.checkpoints() == ["best.test", "last"]
    results = ones(measured([str(folder.path)], ["n=6"], CPU))
    assert [r["checkpoint"] for r in results] == ["best.test", "last"]


RECIPES = {
    "standard": Standard(),
    "at": AT(attack=PGD(steps=2)),
    "trades": Trades(attack=PGD(steps=2, start="gauss", loss="kl")),
    "mart": MART(attack=PGD(steps=2, start="gauss")),
    "gradalign": GradAlign(attack=FGSM()),
    "kd": Distilled(inner=AT(attack=PGD(steps=2))),
    "awp": AWP(inner=AT(attack=PGD(steps=2))),
}
FORWARDS = {"trades": 2, "mart": 2, "gradalign": 3}  # in train mode, a step; the others make one


def test_every_recipe_is_listed_here():
    assert set(RECIPES) == {m.model_fields["kind"].default for m in members(AnyRecipe)}


@pytest.mark.parametrize("kind", RECIPES)
def test_every_recipe_moves_the_weights_and_batch_norm(tmp_path, kind):
    # T3, T4: the paper's code never steps in two of its three modes, ART never updates batch norm
    run = TINY.but(recipe=RECIPES[kind], epochs=1, drops=(), keep_every=0)
    splits = run.data()
    start = models.build(run.model, splits.train.images, 3, run.seed).state_dict()
    end = weights(trained(run, tmp_path, "t", CPU))
    for name in start:
        if name.endswith("weight") or name.endswith("running_mean"):
            assert not torch.equal(start[name], end[name]), name
    steps = -(-len(splits.train) // run.batch)
    assert end["bn.num_batches_tracked"] == steps * FORWARDS.get(kind, 1)


EXTRAS = {
    **{kind: {"recipe": recipe} for kind, recipe in RECIPES.items()},
    "swa": {"average": SWA(start=2)},
    "ema": {"average": EMA(decay=0.9)},
    "ensembling": {"ensembling": TemporalEnsembling(weight=5.0)},
    "mix": {"mix": Mix(prob=0.8), "smoothing": 0.1, "attack_labels": "soft"},
    "warm": {"eps_warmup": 3, "lr_warmup": 2},
    "cyclic": {"schedule": "cyclic", "drops": ()},
}


@pytest.mark.parametrize("what", EXTRAS)
def test_every_recipe_resumes_to_the_same_bits(tmp_path, what):
    run = TINY.but(**{"epochs": 3, "drops": (2,), "keep_every": 0, **EXTRAS[what]})
    one, two = tmp_path / "one", tmp_path / "two"
    straight = trained(run, one, "tiny", CPU)
    killed_after(2, two, run=run, inside=True)
    resumed = trained(run, two, "tiny", CPU)
    assert same(weights(straight), weights(resumed))
    assert same(weights(straight, "best.val"), weights(resumed, "best.val"))
    assert untimed(straight.rows()) == untimed(resumed.rows())
    if "recipe" not in EXTRAS[what]:
        plain = trained(TINY.but(epochs=3, drops=(2,), keep_every=0), tmp_path / "plain", "tiny", CPU)
        assert not same(weights(straight), weights(plain)), "the setting does nothing"


@pytest.mark.parametrize("kind", ["swa", "ema"])
def test_an_average_is_what_is_checked_and_kept(tmp_path, kind):
    run = TINY.but(**{"epochs": 3, "drops": (), **EXTRAS[kind]})
    folder = trained(run, tmp_path, "tiny", CPU)
    plain = trained(run.but(average=None), tmp_path, "tiny", CPU)
    one, two = weights(folder), weights(plain)
    assert not torch.equal(one["conv1.weight"], two["conv1.weight"])
    (result,) = [r for r in ones(folder.read("measure.json")) if r["checkpoint"] == "last"]
    again = measured([f"{folder.path}@last"], ["attack.steps=3", "attack.step=0.25", "batch=5"], CPU)
    assert again[0]["C"] == result["C"]
    losses = [[r["train_loss"] for r in f.rows()] for f in (folder, plain)]
    assert losses[0] == losses[1], "averaging must not change what is trained"
    if kind == "swa":
        every = trained(run.but(average=None, keep_every=1), tmp_path, "t", CPU)
        ends = [weights(every, f"epoch_00{e}") for e in (2, 3)]
        assert torch.allclose(one["conv1.weight"], (ends[0]["conv1.weight"] + ends[1]["conv1.weight"]) / 2)
        assert not torch.equal(one["bn.running_mean"], two["bn.running_mean"])


@pytest.mark.parametrize(("bn", "forwards"), [("eval", 1), ("train_frozen_stats", 1), ("train", 3)])
def test_batch_norm_counts_the_documented_forwards(tmp_path, bn, forwards):
    run = TINY.but(recipe=AT(attack=PGD(steps=2, bn=bn)), epochs=1, drops=())
    end = weights(trained(run, tmp_path, "t", CPU))
    assert end["bn.num_batches_tracked"] == 4 * forwards


def test_the_loop_equals_a_literal_one(tmp_path):
    """Two epochs of AT again, as one would write it on a page."""
    run = TINY.but(augment=None, epochs=2, drops=(1,), keep_every=0, decay="matrices", clip=0.5)
    folder = trained(run, tmp_path, "t", Runtime(device="cpu", layout="contiguous"))
    from crossclass.streams import generator

    splits = run.data()
    model = models.build(run.model, splits.train.images, 3, 0).train()
    velocity = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    images, labels = splits.train.images.float() / 255, splits.train.labels
    for epoch in (1, 2):
        lr = run.lr * (0.1 if epoch == 2 else 1.0)
        order = torch.randperm(26, generator=generator(0, epoch, 0, "order"))
        for step in range(4):
            index = order[step * 8 : (step + 1) * 8]
            x, y = images[index], labels[index]
            noise = torch.rand(x.shape, generator=generator(0, epoch, step, "attack"))
            x_adv = (x + (2 * noise - 1) * 8 / 255).clamp(0, 1)
            model.eval()
            for _ in range(2):
                x_adv.requires_grad_(True)
                loss = torch.nn.functional.cross_entropy(model(x_adv), y, reduction="sum")
                (g,) = torch.autograd.grad(loss, x_adv)
                x_adv = x_adv.detach() + 2 / 255 * g.sign()
                x_adv = torch.max(torch.min(x_adv, x + 8 / 255), x - 8 / 255).clamp(0, 1)
            model.train()
            loss = torch.nn.functional.cross_entropy(model(x_adv), y)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            norm = torch.stack([g.norm() for g in gradients]).norm()
            with torch.no_grad():
                for (name, p), g in zip(model.named_parameters(), gradients, strict=True):
                    g = g * min(1.0, 0.5 / float(norm))
                    g = g + (5e-4 * p if p.ndim > 1 else 0)
                    velocity[name] = 0.9 * velocity[name] + g
                    p -= lr * velocity[name]
    ours = weights(folder)
    for name, value in model.state_dict().items():
        assert torch.allclose(ours[name].float(), value.float(), atol=2e-4, rtol=1e-3), name


def test_every_parameter_group_follows_the_schedule():
    # T17: Rice's code forgets the second group
    run = Run(data=Shapes(), decay="matrices")
    model = models.build(TINY.model, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 3, 0)
    groups = _optimizer(run, model).param_groups
    assert [g["weight_decay"] for g in groups] == [5e-4, 0.0]
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert [run.lr_at(e) for e in (1, 100, 101, 150, 151, 200)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_l2_and_bf16_run_end_to_end(tmp_path):
    attack = PGD(threat=L2(eps=0.5), steps=2, step=0.5, precision="bf16")
    run = TINY.but(recipe=AT(attack=attack), epochs=1, drops=(), precision="bf16")
    folder = trained(run, tmp_path, "t", CPU)
    assert folder.read("measure.json")[0]["conditions"]["precision"] == "fp32"
    assert run.but(check=Check()).final_attack().threat == L2(eps=0.5)


class TestMeasure:
    def test_agrees_with_the_run_and_selects(self, whole):
        again = measured([f"{whole.path}@last"], ["attack.steps=3", "attack.step=0.25", "batch=5"], CPU)
        (last,) = [r for r in ones(whole.read("measure.json")) if r["checkpoint"] == "last"]
        assert len(again) == 1
        for key in ("clean", "robust", "C", "cas", "confusion", "conditions"):
            assert again[0][key] == last[key], key

    def test_default_is_best_val_and_last_at_the_training_radius(self, whole):
        results = ones(measured([str(whole.path)], ["n=4"], CPU))
        assert [r["checkpoint"] for r in results] == ["best.val", "last"]
        assert all(r["attack"].startswith("PGD-20, l_inf 8/255") for r in results)

    def test_other_radius_is_measured_at_8_too(self, tmp_path):
        run = TINY.but(recipe=AT(attack=PGD(threat=Linf(eps=4 / 255), steps=1)), epochs=1, drops=())
        folder = trained(run, tmp_path, "t", CPU)
        results = measured([f"{folder.path}@last"], ["n=4"], CPU)
        assert [r["conditions"]["eps"] for r in results] == ["4/255", "8/255"]

    def test_clean_and_val(self, whole):
        (r,) = measured([str(whole.checkpoint("last"))], ["attack=none", "split=val"], CPU)
        assert r["clean"] == r["robust"]
        assert (r["n"], r["split"], r["attack"]) == (12, "val", "none (clean images)")

    @pytest.mark.parametrize(
        ("target", "changes", "words"),
        [
            ("{run}@best.tset", [], "did you mean 'best.test'"),
            ("{run}x", [], "there is no run folder"),
            ("{run}", ["splitt=val"], "did you mean 'split'"),
            ("{run}", ["split=dev"], "known: train, val, test"),
            ("{run}", ["attack.threat.eps=8"], "8/255"),
            ("{run}", ["data.classes=5"], "3 classes apart, the data have 5"),
            ("{run}/config.yaml", [], "not a safetensors file"),
        ],
    )
    def test_mistakes(self, whole, target, changes, words):
        with pytest.raises(UserError, match=words) as e:
            measured([target.format(run=whole.path)], changes, CPU)
        assert "\n" not in str(e.value)

    def test_a_loaded_model_classifies_as_measured(self, whole):
        model, card = load_model(whole.checkpoint("last"))
        test = TINY.data().test
        right = (model(test.images.float() / 255).argmax(1) == test.labels).double().mean()
        (last,) = [r for r in ones(whole.read("measure.json")) if r["checkpoint"] == "last"]
        assert float(right) == pytest.approx(last["clean"])
        assert card["class_names"] == ["disk", "square", "triangle"]


def test_the_folder_holds_no_path(whole):
    assert "path" not in json.dumps(TINY.plain())
    assert str(whole.path.parent) not in whole.config()


class TestAlarms:
    @pytest.fixture(autouse=True)
    def _in_epoch_3(self, monkeypatch):
        from crossclass import alarms

        def raised(rows, classes, n=None):
            alarm = alarms.Alarm("catastrophic-overfitting", 3, 3, "FGSM 71 %, PGD-10 0 %", good=2)
            return [alarm] if rows[-1]["epoch"] == 3 else []

        monkeypatch.setattr(alarms, "raised", raised)

    def test_an_alarm_is_told_and_the_run_goes_on(self, tmp_path):
        folder = trained(TINY, tmp_path, "t", CPU)
        rows = folder.rows()
        assert [len(r["alarms"]) for r in rows] == [0, 0, 1, 0]
        assert rows[2]["alarms"][0]["evidence"] == "FGSM 71 %, PGD-10 0 %"
        assert any("catastrophic overfitting in epoch 3" in w for w in rows[2]["warnings"])
        assert all({"robust_gap", "cas_since_peak", "val_fgsm", "gradient_cosine"} <= set(r) for r in rows)

    def test_it_may_end_the_run(self, tmp_path, whole):
        run = TINY.but(stop_on=("catastrophic-overfitting",))
        folder = trained(run, tmp_path, "t", CPU)
        assert [r["epoch"] for r in folder.rows()] == [1, 2, 3]
        assert checkpoint.load(folder.checkpoint("last"))[1]["epoch"] == 3
        assert folder.done
        before = folder.rows()
        assert trained(run, tmp_path, "t", CPU).rows() == before
        other = TINY.but(stop_on=("robust-overfitting",))
        assert len(trained(other, tmp_path, "t", CPU).rows()) == 4

    def test_it_may_roll_the_run_back(self, tmp_path, whole):
        run = TINY.but(stop_on=("catastrophic-overfitting",), roll_back=True)
        folder = trained(run, tmp_path, "t", CPU)
        tensors, card = checkpoint.load(folder.checkpoint("last"))
        assert (card["epoch"], card["checkpoint"], card["chosen_by"]) == (2, "last", None)
        assert same(tensors, weights(whole, "epoch_002"))

    def good(self, monkeypatch, epoch, level="alarm"):
        from crossclass import alarms

        def raised(rows, classes, n=None):
            alarm = alarms.Alarm("catastrophic-overfitting", 3, 3, "FGSM 71 %", level, epoch)
            return [alarm] if rows[-1]["epoch"] == 3 else []

        monkeypatch.setattr(alarms, "raised", raised)

    def test_trouble_of_several_checks_goes_back_behind_all_of_them(self, tmp_path, whole, monkeypatch):
        self.good(monkeypatch, 1)
        run = TINY.but(stop_on=("catastrophic-overfitting",), roll_back=True)
        folder = trained(run, tmp_path, "t", CPU)
        row, (tensors, card) = folder.rows()[-1], checkpoint.load(folder.checkpoint("last"))
        earlier = [
            n for n in ("best.val", "best.test") if checkpoint.load(folder.checkpoint(n))[1]["epoch"] == 1
        ]
        assert bool(earlier) == (row["rolled_back_to"] == 1)  # only what was kept can be had
        if earlier:
            assert card["epoch"] == 1
            assert same(tensors, weights(folder, earlier[0]))
        else:
            assert card["epoch"] == 3
            assert any("nothing to roll back to" in w for w in row["warnings"])

    def test_without_a_good_epoch_it_says_so(self, tmp_path, monkeypatch):
        self.good(monkeypatch, None)
        run = TINY.but(stop_on=("catastrophic-overfitting",), roll_back=True)
        folder = trained(run, tmp_path, "t", CPU)
        row = folder.rows()[-1]
        assert row["rolled_back_to"] is None
        assert any("nothing to roll back to" in w for w in row["warnings"])
        assert checkpoint.load(folder.checkpoint("last"))[1]["epoch"] == 3

    def test_the_newest_that_is_old_enough_is_taken(self, tmp_path):
        from crossclass.store import RunFolder
        from crossclass.train import _good

        folder = RunFolder(tmp_path)
        for name, epoch in (("last_good", 9), ("best.val", 5), ("best.test", 3)):
            checkpoint.save(folder.checkpoint(name), {"w": torch.zeros(1)}, {"format": 1, "epoch": epoch})
        found = {e: _good(folder, e) for e in (None, 2, 3, 4, 5, 8, 9, 12)}
        names = {e: f and f[0] for e, f in found.items()}
        assert names == {
            None: None,
            2: None,
            3: "best.test",
            4: "best.test",
            5: "best.val",
            8: "best.val",
            9: "last_good",
            12: "last_good",
        }

    def test_a_note_ends_nothing(self, tmp_path, monkeypatch):
        self.good(monkeypatch, 2, level="note")
        run = TINY.but(stop_on=("catastrophic-overfitting",), roll_back=True)
        assert len(trained(run, tmp_path, "t", CPU).rows()) == 4

    def test_killed_after_the_end_it_stays_ended(self, tmp_path):
        run = TINY.but(stop_on=("catastrophic-overfitting",), roll_back=True)
        killed_after(3, tmp_path, run=run)
        folder = trained(run, tmp_path, "tiny", CPU)
        assert len(folder.rows()) == 3
        assert checkpoint.load(folder.checkpoint("last"))[1]["epoch"] == 2

    def test_unknown_alarms_are_refused(self):
        with pytest.raises(UserError, match="did you mean 'robust-overfitting'"):
            TINY.but(stop_on=("robust-overfiting",))


HOLDER = """
import sys, time
from pathlib import Path
from crossclass.files import held
with held(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_folder_is_trained_by_one_process_at_a_time(tmp_path):
    killed_after(1, tmp_path)
    folder = RunFolder(next(tmp_path.glob("tiny-*")))
    command = [sys.executable, "-c", HOLDER, str(folder.path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(
                BusyError, match=rf"is being trained by process {holder.pid} on .*; wait for it"
            ):
                trained(TINY, tmp_path, "tiny", CPU)
            assert len(folder.rows()) == 1
        finally:
            holder.kill()  # as hard as it gets: the lock goes with the process
    assert len(trained(TINY, tmp_path, "tiny", CPU).rows()) == 4


def test_a_finished_run_can_be_read_while_it_is_held(whole):
    from crossclass.files import held

    with held(whole.path / ".lock", "it"):
        assert trained(TINY, whole.path.parent, "tiny", CPU).path == whole.path


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path):
    from crossclass.files import held

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"), held(tmp_path / "file" / ".lock", "it"):
        pass


def test_where_nothing_can_be_locked_one_goes_on_without(tmp_path, monkeypatch):
    import fcntl

    from crossclass.files import held

    def refuse(file, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held(tmp_path / ".lock", "it"):
        (tmp_path / "done").touch()
    assert (tmp_path / "done").exists()
    with pytest.raises(KeyError), held(tmp_path / ".lock", "it"):
        raise KeyError


def test_what_a_killed_process_left_half_written_is_swept_up(tmp_path):
    folder = RunFolder.of(tmp_path, "tiny", TINY)
    left = [
        folder.path / ".last.safetensors.1.tmp",
        folder.path / "resume" / ".epoch_00001.safetensors.1.tmp",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    killed_after(1, tmp_path)
    assert not [p for p in left if p.exists()]


def test_a_run_that_goes_on_elsewhere_says_what_is_different(tmp_path):
    killed_after(2, tmp_path)
    said: list[str] = []
    other = Runtime(device="cpu", layout="contiguous")
    *_, (folder, _) = train(TINY, tmp_path, "tiny", other, say=said.append)
    assert said[0].endswith("may depend on it: layout channels_last before, contiguous_format now")
    assert folder.read("env.json")["earlier"] == [{"layout": "channels_last", "epochs": 2}]
    assert RunFolder.at(folder.path).begin(folder.read("env.json")) == []
