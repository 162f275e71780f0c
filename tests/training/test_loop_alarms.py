"""Alarms in the loop: told, and where the run says so, they end it or roll it back."""

import pytest
import torch

from crossclass.analysis import evaluate
from crossclass.checkpoints.card import Card, load_checkpoint, save_checkpoint
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.errors import UserError
from crossclass.models import PreActResNet
from crossclass.training import alarms
from crossclass.training.alarms import cas
from crossclass.training.checkpointing import last_good
from crossclass.training.loop import train
from tiny_runs import CPU, TINY, killed_after, same, weights

STOPPED = TINY.replace(stop_on_alarms=("catastrophic-overfitting",))
RESTORED = STOPPED.replace(restore_last_good=True)


def test_a_network_that_stays_at_one_class_is_told_once(tmp_path, monkeypatch):
    for module in (evaluate, cas):
        monkeypatch.setattr(module, "collapsed", lambda share, predicted, classes: True)
    rows = train(TINY, tmp_path, "t", CPU).rows()
    assert [sum("collapsed" in w for w in r["warnings"]) for r in rows] == [0, 0, 1, 0]


class TestAlarms:
    @pytest.fixture(autouse=True)
    def _in_epoch_3(self, monkeypatch):
        self.alarm(monkeypatch, last_good=2)

    def alarm(self, monkeypatch, last_good, level="alarm"):
        """An alarm in epoch 3."""
        one = alarms.Alarm("catastrophic-overfitting", 3, 3, "FGSM 71 %, PGD-10 0 %", level, last_good)
        monkeypatch.setattr(alarms, "raised", lambda rows, classes: [one] if rows[-1].epoch == 3 else [])

    def test_an_alarm_is_told_and_the_run_goes_on(self, tmp_path):
        folder = train(TINY, tmp_path, "t", CPU)
        rows = folder.rows()
        assert [len(r["alarms"]) for r in rows] == [0, 0, 1, 0]
        assert rows[2]["alarms"][0]["evidence"] == "FGSM 71 %, PGD-10 0 %"
        assert any("catastrophic overfitting in epoch 3" in w for w in rows[2]["warnings"])
        assert all(
            {"robust_gap", "cas_since_peak", "watched_fgsm", "gradient_cosine"} <= set(r) for r in rows
        )

    def test_it_may_end_the_run(self, tmp_path):
        folder = train(STOPPED, tmp_path, "t", CPU)
        assert [r["epoch"] for r in folder.rows()] == [1, 2, 3]
        assert load_checkpoint(folder.checkpoint("last"))[1].epoch == 3
        assert folder.done
        before = folder.rows()
        assert train(STOPPED, tmp_path, "t", CPU).rows() == before
        other = TINY.replace(stop_on_alarms=("robust-overfitting",))
        assert len(train(other, tmp_path, "t", CPU).rows()) == 4

    def test_it_may_roll_the_run_back(self, tmp_path, whole):
        folder = train(RESTORED, tmp_path, "t", CPU)
        tensors, card = load_checkpoint(folder.checkpoint("last"))
        assert (card.epoch, card.checkpoint, card.chosen_by) == (2, "last", None)
        assert same(tensors, weights(whole, "epoch_002"))

    def test_trouble_of_several_checks_goes_back_behind_all_of_them(self, tmp_path, monkeypatch):
        self.alarm(monkeypatch, 1)
        folder = train(RESTORED, tmp_path, "t", CPU)
        row, (tensors, card) = folder.rows()[-1], load_checkpoint(folder.checkpoint("last"))
        earlier = [
            n for n in ("best.val", "best.test") if load_checkpoint(folder.checkpoint(n))[1].epoch == 1
        ]
        assert bool(earlier) == (row["restored_epoch"] == 1)  # only what was kept can be had
        if earlier:
            assert card.epoch == 1
            assert same(tensors, weights(folder, earlier[0]))
        else:
            assert card.epoch == 3
            assert any("nothing to go back to" in w for w in row["warnings"])

    def test_without_a_good_epoch_it_says_so(self, tmp_path, monkeypatch):
        self.alarm(monkeypatch, None)
        folder = train(RESTORED, tmp_path, "t", CPU)
        row = folder.rows()[-1]
        assert row["restored_epoch"] is None
        assert any("nothing to go back to" in w for w in row["warnings"])
        assert load_checkpoint(folder.checkpoint("last"))[1].epoch == 3

    def test_the_newest_that_is_old_enough_is_taken(self, tmp_path):
        folder = RunFolder(tmp_path)
        for name, epoch in (("last_good", 9), ("best.val", 5), ("best.test", 3)):
            card = Card(checkpoint=name, epoch=epoch, model=PreActResNet(), classes=2, channels=3, size=8)
            save_checkpoint(folder.checkpoint(name), {"w": torch.zeros(1)}, card)
        expected = {None: None, 2: None, 3: "best.test", 5: "best.val", 8: "best.val", 9: "last_good"}
        for epoch, name in expected.items():
            good = last_good(folder, epoch)
            assert (good and good[1].checkpoint) == name

    def test_a_note_ends_nothing(self, tmp_path, monkeypatch):
        self.alarm(monkeypatch, 2, level="note")
        assert len(train(RESTORED, tmp_path, "t", CPU).rows()) == 4

    def test_killed_after_the_end_it_stays_ended(self, tmp_path):
        killed_after(3, tmp_path, run=RESTORED)
        folder = train(RESTORED, tmp_path, "tiny", CPU)
        assert len(folder.rows()) == 3
        assert load_checkpoint(folder.checkpoint("last"))[1].epoch == 2

    def test_unknown_alarms_are_refused(self):
        with pytest.raises(UserError, match="did you mean 'robust-overfitting'"):
            TINY.replace(stop_on_alarms=("robust-overfiting",))
