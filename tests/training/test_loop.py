"""The loop: it equals one written on a page, checking changes nothing, and its numbers can be had again."""

import json
import os

import numpy as np
import pytest
import torch

from crossclass import models
from crossclass.analysis.records import EpochRow, columns
from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.checkpoints.card import load_checkpoint
from crossclass.checkpoints.load import load_model
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core import cpu_threads
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.core.runtime import Runtime
from crossclass.data import Npz, Shapes
from crossclass.training.checkpointing import best
from crossclass.training.loop import iterate_epochs, train
from crossclass.training.recipes import AT
from crossclass.training.run import Run, Validation
from crossclass.training.state import optimizer as _optimizer
from measuring import measure, read
from tiny_runs import CPU, TINY, ones, same, weights


def test_a_finished_run_is_complete(whole):
    names = {
        "config.yaml",
        "env.json",
        "events.jsonl",
        "metrics.csv",
        "measure.json",
        "measure-features.npz",
        "measure-pictures.npz",
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
    assert header == ",".join(columns())
    assert len(lines) == 4
    assert {"epoch", "lr", "train_robust", "test_clean", "test_robust", "cas"} <= set(columns())
    for row in rows:
        assert torch.tensor(row["C"]).shape == (3, 3)
        for key in ("train_clean", "train_robust", "val_robust", "test_robust", "test_clean"):
            assert 0 <= row[key] <= 1


def test_the_full_evaluation_says_its_conditions(whole):
    results = ones(read(whole.path / "measure.json"))
    assert [r["checkpoint"] for r in results] == ["best.val", "best.test", "last"]
    assert [r["chosen_by"] for r in results] == ["val", "test", None]
    for r in results:
        assert r["conditions"] == {
            "attack": PGD(steps=3).to_dict(),
            "eps": "8/255",
            "steps": 3,
            "seed": 0,
            "n": 14,
            "drawn": False,
            "split": "test",
            "precision": "fp32",
            "batch": 5,
            "attribution_subset": "all",
        }
        assert sum(map(sum, r["confusion"])) == 14
        assert r["sharing"] == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]


def test_best_is_the_first_highest_of_its_split(whole):
    rows = whole.rows()
    for split in ("val", "test"):
        top = best([EpochRow.model_validate(r) for r in rows], split)
        assert top["epoch"] == load_checkpoint(whole.checkpoint(f"best.{split}"))[1].epoch
        assert top[f"{split}_robust"] == max(r[f"{split}_robust"] for r in rows)


def test_checking_never_changes_what_is_trained(whole, tmp_path):
    for change in ({"every": 3}, {"n": 3, "attack": FGSM()}):
        run = TINY.replace(validation=TINY.validation.replace(**change))
        assert same(weights(train(run, tmp_path, "t", CPU)), weights(whole))


def test_the_result_depends_on_no_global_stream(whole, tmp_path):
    torch.manual_seed(12345)
    torch.rand(7)
    assert same(weights(train(TINY, tmp_path, "t", CPU)), weights(whole))


def test_training_needs_training_images(tmp_path):
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "test.npz", images=images, labels=np.arange(4, dtype=np.uint8))
    with pytest.raises(UserError, match="there are no training images"):
        train(TINY.replace(data=Npz(path=tmp_path)), tmp_path / "runs", "tiny", CPU)
    assert not (tmp_path / "runs").exists()


def test_without_a_validation_part_only_the_papers_rule_is_left(tmp_path):
    run = TINY.replace(data=TINY.data.replace(n_val=0), epochs=1, lr_milestones=())
    folder = train(run, tmp_path, "t", CPU)
    assert folder.checkpoints() == ["best.test", "last"]
    results = ones(measure([str(folder.path)], ["n=6"], CPU))
    assert [r["checkpoint"] for r in results] == ["best.test", "last"]


def test_the_loop_equals_a_literal_one(tmp_path):
    """Two epochs of AT again, as one would write it on a page."""
    run = TINY.replace(
        augment=None,
        epochs=2,
        lr_milestones=(1,),
        checkpoint_every=0,
        decay_bias_and_norm=False,
        grad_clip_norm=0.5,
    )
    folder = train(run, tmp_path, "t", Runtime(device="cpu", layout="contiguous"))
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
    run = Run(data=Shapes(), decay_bias_and_norm=False)
    model = models.build(TINY.model, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 3, 0)
    groups = _optimizer(run, model).param_groups
    assert [g["weight_decay"] for g in groups] == [5e-4, 0.0]
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_l2_and_bf16_run_end_to_end(tmp_path):
    attack = PGD(threat=L2(eps=0.5), steps=2, rel_step=0.5, precision="bf16")
    run = TINY.replace(recipe=AT(attack=attack), epochs=1, lr_milestones=(), precision="bf16")
    folder = train(run, tmp_path, "t", CPU)
    assert read(folder.path / "measure.json")[0]["conditions"]["precision"] == "fp32"
    assert run.replace(validation=Validation()).final_attack().threat == L2(eps=0.5)


class TestMeasure:
    def test_agrees_with_the_run_and_selects(self, whole):
        again = measure([f"{whole.path}@last"], ["attack.steps=3", "attack.rel_step=0.25", "batch=5"], CPU)
        (last,) = [r for r in ones(read(whole.path / "measure.json")) if r["checkpoint"] == "last"]
        assert len(again) == 1
        for key in ("clean", "robust", "C", "cas", "confusion", "conditions"):
            assert again[0][key] == last[key], key

    def test_default_is_best_val_and_last_at_the_training_radius(self, whole):
        results = ones(measure([str(whole.path)], ["n=4"], CPU))
        assert [r["checkpoint"] for r in results] == ["best.val", "last"]
        assert all(r["attack"].startswith("PGD-20, l_inf 8/255") for r in results)

    def test_other_radius_is_measured_at_8_too(self, tmp_path):
        run = TINY.replace(
            recipe=AT(attack=PGD(threat=Linf(eps=4 / 255), steps=1)), epochs=1, lr_milestones=()
        )
        folder = train(run, tmp_path, "t", CPU)
        results = measure([f"{folder.path}@last"], ["n=4"], CPU)
        assert [r["conditions"]["eps"] for r in results] == ["4/255", "8/255"]

    def test_clean_and_val(self, whole):
        (r,) = measure([str(whole.checkpoint("last"))], ["attack=none", "split=val"], CPU)
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
            ("{run}/config.yaml", [], "nothing says which images"),
        ],
    )
    def test_mistakes(self, whole, target, changes, words):
        with pytest.raises(UserError, match=words) as e:
            measure([target.format(run=whole.path)], changes, CPU)
        assert "\n" not in str(e.value)

    def test_a_loaded_model_classifies_as_measured(self, whole):
        model, card = load_model(whole.checkpoint("last"))
        test = TINY.data().test
        right = (model(test.images.float() / 255).argmax(1) == test.labels).double().mean()
        (last,) = [r for r in ones(read(whole.path / "measure.json")) if r["checkpoint"] == "last"]
        assert float(right) == pytest.approx(last["clean"])
        assert card.class_names == ["disk", "square", "triangle"]


def test_the_folder_holds_no_path(whole):
    assert "path" not in json.dumps(TINY.to_dict())
    assert str(whole.path.parent) not in whole.config()


def test_a_run_begun_on_a_busy_machine_keeps_its_one_thread(tmp_path, monkeypatch):
    def rows(spare: float, stop: int) -> list[str]:
        said: list[str] = []
        monkeypatch.setattr(cpu_threads, "spare_cores", lambda: spare)
        for _, row in iterate_epochs(TINY, tmp_path, "r", Runtime(device="cpu"), log=said.append):
            threads.append(torch.get_num_threads())
            if row.epoch == stop:
                break
        return [text for text in said if "runtime.threads" in text]

    threads: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cpu_threads, "cpu_count", lambda: 2)
    torch.set_num_threads(2)
    try:
        assert len(rows(0.3, stop=1)) == 1
        assert torch.get_num_threads() == 2  # given back
        assert len(rows(2.0, stop=2)) == 1
        assert threads == [1, 1, 1]  # the first epoch's row is seen twice
    finally:
        torch.set_num_threads(1)
    (folder,) = tmp_path.iterdir()
    env = RunFolder(folder).read("env.json")
    assert env["threads"] == 1
    assert env["earlier"] == []
