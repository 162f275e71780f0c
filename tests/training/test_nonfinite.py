"""A loss or gradient that is no number stops the run, names itself, and leaves the batch to look at."""

import json

import pytest
import torch

from crossclass.attacks import PGD
from crossclass.checkpoints.card import load_checkpoint, load_tensors
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.errors import UserError
from crossclass.report import write_report
from crossclass.training.loop import train
from crossclass.training.nonfinite import FirstNonFinite
from crossclass.training.recipes import AT
from tiny_runs import CPU, TINY, same, weights

RUN = TINY.replace(recipe=AT(attack=PGD(steps=1)), augment=None, epochs=3, lr_milestones=(2,))


def spoiled(monkeypatch, call: int, how: str) -> None:
    """From one call of the recipe's loss on, it or only its gradient is no number."""
    loss, calls = AT.loss, [0]

    def spoil(self, model, x, x_adv, y, generator=None):
        value, logits = loss(self, model, x, x_adv, y, generator)
        calls[0] += 1
        if calls[0] < call:
            return value, logits
        bad = value * torch.nan if how == "loss" else value + (value * 0).sqrt()  # 0, with a slope of NaN
        return bad, logits

    monkeypatch.setattr(AT, "loss", spoil)


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_it_stops_and_keeps_the_batch(tmp_path, monkeypatch, how, clip):
    spoiled(monkeypatch, 7, how)  # four steps an epoch
    run = RUN.replace(grad_clip_norm=clip)
    with pytest.raises(UserError, match=r"not finite in epoch 2: .* in step 3 at lr 0.05; its batch is kept"):
        train(run, tmp_path, "t", CPU)
    folder = RunFolder.of(tmp_path, "t", run)
    assert [r["epoch"] for r in folder.rows()] == [1], "the epoch before is kept"
    batch, card = load_tensors(folder.path / "failure" / "batch.safetensors")
    assert (card["epoch"], card["step"], len(batch["x"])) == (2, 3, 8)
    part = run.data().train
    assert torch.equal(batch["x"], part.images[batch["index"]].float() / 255)
    assert torch.equal(batch["y"], part.labels[batch["index"]])
    assert 0 < (batch["x_adv"] - batch["x"]).abs().max() <= 8 / 255 + 1e-7
    assert (folder.path / "resume" / "epoch_00001.safetensors").exists()


def test_the_report_says_it_and_a_run_that_goes_on_forgets_it(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        spoiled(patched, 7, "loss")
        with pytest.raises(UserError, match="lower lr or set grad_clip_norm"):
            train(RUN, tmp_path, "t", CPU)
    folder = RunFolder.of(tmp_path, "t", RUN)
    alarm = json.loads((folder.path / "failure.json").read_text())
    assert (alarm["name"], alarm["epoch"], alarm["level"]) == ("not-finite", 2, "alarm")
    page = write_report([folder.path], tmp_path / "page.html").read_text()
    assert "not finite in epoch 2, where training stopped" in page
    train(RUN, tmp_path, "t", CPU)
    assert not (folder.path / "failure.json").exists()
    straight = train(RUN, tmp_path / "other", "t", CPU)
    assert load_checkpoint(straight.checkpoint("last"))[1] == load_checkpoint(folder.checkpoint("last"))[1]


def test_a_run_without_an_epoch_says_why(tmp_path, monkeypatch):
    spoiled(monkeypatch, 1, "loss")
    with pytest.raises(UserError, match="in epoch 1"):
        train(RUN, tmp_path, "t", CPU)
    with pytest.raises(UserError, match=r"no epochs yet \(the training loss or its gradient is not a number"):
        write_report([RunFolder.of(tmp_path, "t", RUN).path], tmp_path / "page.html")


class TestFirstNonFinite:
    def updated(self, *fine: bool, sizes: tuple[int, ...]) -> FirstNonFinite:
        first = FirstNonFinite(torch.device("cpu"))
        for step, (good, size) in enumerate(zip(fine, sizes, strict=True)):
            batch = {"x": torch.full((size, 2), float(step)), "index": torch.full((size,), step)}
            first.update(step, torch.tensor(good), batch)
        return first

    def test_nothing_bad(self):
        assert not self.updated(True, True, sizes=(3, 3)).occurred

    def test_the_first_of_several_is_kept(self):
        first = self.updated(True, False, True, False, sizes=(3, 3, 3, 3))
        assert (first.occurred, first.step) == (True, 1)
        assert torch.equal(first.batch["index"], torch.full((3,), 1))

    def test_a_smaller_last_batch(self):
        first = self.updated(True, False, sizes=(3, 2))
        assert torch.equal(first.batch["x"], torch.full((2, 2), 1.0))

    def test_it_keeps_a_copy(self):
        first, x = FirstNonFinite(torch.device("cpu")), torch.zeros(2)
        first.update(0, torch.tensor(False), {"x": x})
        x.fill_(1)
        assert torch.equal(first.batch["x"], torch.zeros(2))

    def test_a_later_step_may_have_more_rows_than_the_first(self):
        first = FirstNonFinite(torch.device("cpu"))
        first.update(0, torch.tensor(True), {"x": torch.zeros(1, 2)})
        first.update(1, torch.tensor(False), {"x": torch.ones(3, 2)})
        first.update(2, torch.tensor(False), {"x": torch.zeros(2, 2)})
        assert first.step == 1
        assert torch.equal(first.batch["x"], torch.ones(3, 2))


def test_checking_moves_nothing(tmp_path, monkeypatch):
    straight = train(RUN, tmp_path / "one", "t", CPU)
    monkeypatch.setattr(FirstNonFinite, "update", lambda *a: None)
    blind = train(RUN, tmp_path / "two", "t", CPU)
    assert same(weights(straight), weights(blind))
