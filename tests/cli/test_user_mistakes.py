"""What a second reading of the code found: each of these once went wrong."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from crossclass import models
from crossclass.analysis.records import CheckpointRef, EpochRow, Measurement, ResultFile
from crossclass.analysis.run_record import RunRecord
from crossclass.attacks import PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.checkpoints.run_folder import RunFolder, split_target
from crossclass.cli import jobs, main, sweep
from crossclass.cli.progress import ProgressDisplay
from crossclass.core.config import validated
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.core.trust import trusting
from crossclass.data import Folder, Npz, Shapes
from crossclass.models import PreActResNet
from crossclass.paper.published_curves import anchor, verify
from crossclass.paper.published_curves.conditions import Conditions, differing
from crossclass.paper.published_curves.curves import ANCHORS
from crossclass.report.run import RunView
from crossclass.training.averaging import refresh
from crossclass.training.labels import Mix
from crossclass.training.loop import iterate_epochs, train
from crossclass.training.recipes import AT, KnowledgeDistillation
from crossclass.training.run import Run, Validation
from measuring import measure
from run_file import TINY

CPU = Runtime(device="cpu")
SMALL = Run(
    data=Npz(),
    model=PreActResNet(width=4, stem_stride=2, blocks=(1,)),
    recipe=AT(attack=PGD(steps=1)),
    augment=None,
    epochs=1,
    lr_milestones=(),
    batch=16,
    validation=Validation(attack=PGD(steps=1), final=PGD(steps=1)),
)
NETS = """
import torch
from torch import nn

def net(**_):
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*pooled, nn.Linear(4, 3))
"""


def images(folder: Path, n: int = 24, classes: int = 3, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for part in ("train", "test"):
        pictures = rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
        np.savez(folder / f"{part}.npz", images=pictures, labels=np.arange(n) % classes)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with images and a file of networks, to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    images(tmp_path / "data")
    (tmp_path / "cornered_nets.py").write_text(NETS)
    yield tmp_path
    sys.modules.pop("cornered_nets", None)


def run_of(here: Path, out: str = "runs", **changes) -> RunFolder:
    return train(SMALL.replace(data=Npz(path=here / "data"), **changes), here / out, "r", CPU)


class TestTeachers:
    RUN = SMALL.replace(
        model=models.from_text("python:cornered_nets:net"), recipe=KnowledgeDistillation(inner=SMALL.recipe)
    )

    def test_a_network_of_ones_own_is_distilled_from_itself(self, here, trusted):
        folder = train(self.RUN.replace(data=Npz(path=here / "data")), here / "runs", "kd", CPU)
        assert folder.done

    def test_a_run_file_cannot_name_code_through_its_teachers(self, here, capsys):
        text = TINY.replace("{kind: at, attack: {kind: pgd, steps: 1}}", "KD")
        kd = "{kind: kd, inner: {kind: at}, teachers: [{changes: {model: 'python:cornered_nets:net'}}]}"
        (here / "run.yaml").write_text(text.replace("KD", kd))
        with pytest.raises(SystemExit):
            main(["train", "run.yaml"])
        assert "asks to import and run 'cornered_nets:net'" in capsys.readouterr().err
        assert "cornered_nets" not in sys.modules


class TestSweeps:
    def test_a_sweep_file_cannot_name_code_in_its_grid(self, here):
        (here / "grid.yaml").write_text("run: cifar10-mini\ngrid: {model: ['python:cornered_nets:net']}\n")
        with pytest.raises(UserError, match="asks to import"):
            sweep.expand("grid.yaml")
        with trusting("cornered_nets:net"):
            assert len(sweep.expand("grid.yaml")) == 1
            assert len(sweep.expand("cifar10-mini", ["model=python:cornered_nets:net"])) == 1

    def test_slurm_is_handed_what_can_be_queued_again(self, monkeypatch):
        submitit = pytest.importorskip("submitit")
        handed = []
        monkeypatch.setattr(submitit.AutoExecutor, "submit", lambda self, f: handed.append(f) or _Job())
        monkeypatch.setattr(submitit.AutoExecutor, "batch", lambda self: _nothing())
        (point,) = sweep.expand("shapes-demo")
        assert jobs.submit([point], [], Path("logs"), {"cluster": "local"}) == ["7"]
        assert all(hasattr(f, "checkpoint") for f in handed)  # submitit looks for it on the function itself


class _Job:
    job_id = "7"


def _nothing():
    import contextlib

    return contextlib.nullcontext()


def test_pieces_and_joined_batch_norm_are_refused_together():
    with pytest.raises(UserError, match="leave out micro_batch"):
        validated(Runtime, {"sync_batch_norm": True, "micro_batch": 8})


def test_the_time_left_after_a_resume_counts_what_the_rows_took(capsys):
    watch = ProgressDisplay("x", 200)
    for epoch in range(1, 101):  # a hundred rows that were there already, replayed in no time
        watch.row(EpochRow(epoch=epoch, lr=0.1, seconds=50.0, check_seconds=10.0, train_robust=0.5))
    assert capsys.readouterr().err.splitlines()[-1].endswith("1.7 h left")


class TestTargets:
    def test_data_given_whole_replace_those_of_a_run(self, here):
        folder = run_of(here)
        other = images(here / "other", seed=1)
        asked = [f"data={{kind: npz, path: {other}}}", "n=12"]
        (best, last) = measure([str(folder.path)], asked, CPU)[:2]
        (same, *_) = measure([str(folder.path)], ["n=12"], CPU)
        assert best["confusion"] != same["confusion"] or last["cas"] != same["cas"]

    def test_data_of_another_kind_can_be_named(self, here):
        run = SMALL.replace(data=Shapes(n_train=24, n_val=6, n_test=6, classes=3, size=16))
        folder = train(run, here / "runs", "s", CPU)
        found = measure([f"{folder.path}@last"], ["data.kind=npz", f"data.path={here / 'data'}"], CPU)
        assert found[0]["data"].startswith("npz")

    def test_a_path_may_hold_an_at_sign(self, here):
        folder = run_of(here, "me@example.org")
        for target in (str(folder.path), f"{folder.path}@last"):
            assert measure([target], ["n=6"], CPU)
        assert split_target(f"{folder.path}@last") == (folder.path, "last")
        assert split_target(str(folder.path)) == (folder.path, "")

    def test_a_stranger_beside_a_run_may_be_told_its_network(self, here, trusted):
        import cornered_nets

        torch.save(cornered_nets.net().state_dict(), here / "own.pth")
        folder, change = run_of(here), "model=python:cornered_nets:net"
        found = measure([f"{folder.path}@last", "own.pth"], [change, "data.path=data", "n=6"], CPU)
        assert len(found) == 3  # two, and their difference
        with pytest.raises(UserError, match="says itself which model it is"):
            measure([str(folder.path)], [change], CPU)

    def test_a_model_given_whole_keeps_its_normalisation(self, here, trusted):
        import cornered_nets

        torch.save(cornered_nets.net().state_dict(), here / "own.pth")
        whole = "model={kind: python, call: 'cornered_nets:net', normalise: {mean: [0.1], std: [0.7]}}"
        whole = whole.replace("[0.1]", "[0.1, 0.1, 0.1]").replace("[0.7]", "[0.7, 0.7, 0.7]")
        (found,) = measure(["own.pth"], [whole, "data.path=data", "n=6"], CPU)
        assert found["normalise"] == {"mean": [0.1] * 3, "std": [0.7] * 3}

    def test_another_ball_brings_its_own_step(self, here):
        folder = run_of(here, recipe=AT(attack=PGD(threat=L2(eps=0.5), steps=1)))

        def attack(*changes: str) -> dict:
            return measure([f"{folder.path}@last"], [*changes, "n=6"], CPU)[0]["conditions"]["attack"]

        assert attack("attack.steps=2")["step"] == 0.125
        assert attack("attack.threat.kind=linf", "attack.threat.eps=4/255", "attack.steps=2")["step"] == 0.25
        assert attack("attack.threat.eps=1.0", "attack.step=0.3", "attack.steps=2")["step"] == 0.3


def test_starts_that_break_everything_leave_nothing_to_attack():
    class View(nn.Module):
        """Cannot take an empty batch."""

        def forward(self, x: Tensor) -> Tensor:
            return x.view(x.size(0), -1)[:, :3]

    x = torch.rand(5, 3, 4, 4)
    wrong = (View()(x).argmax(dim=1) + 1) % 3
    found = PGD(threat=Linf(eps=0.0), restarts=3, return_iterate="first").search(View().eval(), x, wrong)
    assert found.success is not None
    assert found.success.all()


def test_mixup_and_cutmix_of_equal_strength_both_happen():
    x, y = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8) / 4, torch.arange(4)
    mix, kinds = Mix(mixup=1.0, cutmix=1.0, prob=1.0), set()
    for seed in range(40):
        mixed, _ = mix(x.clone(), y, 4, torch.Generator().manual_seed(seed))
        kinds.add(all(float(v) in {0.0, 0.25, 0.5, 0.75} for v in mixed.flatten()))
    assert kinds == {True, False}  # cut pixels are somebody's own, mixed ones are nobody's
    with pytest.raises(UserError, match="mixup"):
        validated(Mix, {"mixup": 20})  # a draw would take for ever


def test_the_uniform_start_of_either_ball_fills_it():
    x = torch.zeros(4000, 2)
    for threat in (Linf(eps=0.5), L2(eps=0.5)):
        delta = threat.sample(x, threat.uniform_start, torch.Generator().manual_seed(0))
        inner = (threat.norm(delta) <= 0.25).float().mean()  # half the radius: a quarter of the area
        assert abs(float(inner) - 0.25) < 0.03


def test_a_cyclic_rate_has_no_warm_up():
    with pytest.raises(UserError, match="leave out lr_warmup"):
        validated(Run, {"schedule": "cyclic", "lr_milestones": [], "lr_warmup": 5})


def test_batch_norm_keeps_its_momentum_when_a_refresh_fails():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4, momentum=0.3))

    def batches():
        yield torch.rand(5, 3, 2, 2)
        raise RuntimeError("out of images")

    with pytest.raises(RuntimeError):
        refresh(net, batches())
    assert net[2].momentum == 0.3


class TestData:
    def test_a_folder_of_test_images_is_enough_to_measure(self, tmp_path):
        for name in ("cat", "dog"):
            (tmp_path / "test" / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "test" / name / "a.png")
        splits = Folder(path=tmp_path)()
        assert (len(splits.train), len(splits.test)) == (0, 2)
        assert splits.class_names == ("cat", "dog")

    def test_one_class_is_none(self, tmp_path):
        with pytest.raises(UserError, match="there is one class"):
            Npz(path=images(tmp_path, classes=1))()

    def test_parts_need_pixels(self):
        star = tuple((0, i) for i in range(1, 6))
        with pytest.raises(UserError, match="take larger pictures"):
            validated(Shapes, {"size": 8, "classes": 6, "edges": star})

    def test_statistics_are_those_of_doubles(self):
        pixels = torch.randint(
            0, 256, (9, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        mean, std = models.channel_statistics(pixels, block=4)
        values = pixels.double() / 255
        assert torch.allclose(torch.tensor(mean).double(), values.mean(dim=(0, 2, 3)), atol=1e-7)
        expected = values.std(dim=(0, 2, 3), correction=0)
        assert torch.allclose(torch.tensor(std).double(), expected, atol=1e-7)
        assert models.channel_statistics(torch.full((2, 1, 3, 3), 7, dtype=torch.uint8))[1] == (1e-3,)


class TestWords:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["verify", "RUN", "tolerance=two"], "tolerance=two"),
            (["sweep", "shapes-demo", "jobs=["], "not valid YAML"),
            (["sweep", "shapes-demo", "slurm={a: b"], "not valid YAML"),
            (["doctor", "a.pth", "transfer=b.pth", "transfer=c.pth"], "transfer=FILE once"),
        ],
    )
    def test_a_mistake_is_a_sentence(self, here, capsys, arguments, said):
        with pytest.raises(SystemExit) as e:
            main(arguments)
        assert e.value.code == 2
        assert said in capsys.readouterr().err

    def test_a_result_says_how_often_its_attack_steps(self, here):
        folder = run_of(here)
        (plain, *_) = measure([f"{folder.path}@last"], ["attack.kind=fgsm", "n=6"], CPU)
        assert plain["conditions"]["steps"] == 1


class TestFirstUse:
    """What a newcomer typed."""

    def test_an_attack_may_be_named_by_its_kind(self, here):
        folder = run_of(here)
        (found,) = measure([f"{folder.path}@last"], ["attack=fgsm", "n=6"], CPU)
        assert found["conditions"]["attack"]["kind"] == "fgsm"
        assert found["conditions"]["eps"] == "8/255"
        (found,) = measure([f"{folder.path}@last"], ["attack=pgd", "attack.steps=2", "n=6"], CPU)
        assert found["conditions"]["steps"] == 2

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["measure", "RUN", "out=data"], "is a folder"),
            (["measure", "RUN", "out=file/x.json"], "is a file, not a folder"),
            (["measure", "RUN@last", "saliency=3"], "compares two checkpoints"),
            (
                ["measure", "RUN", "attack.step=2/255"],
                "a step is a fraction of eps; 2/255 at eps=8/255 is 0.25",
            ),
            (["report", "own.pth"], "crossclass measure own.pth"),
            (["report", "RUN", "out=file/page.html"], "is a file, not a folder"),
            (["sweep", "shapes-demo", "plan=maybe"], "give true or false"),
            (["doctor", "own.pth", "everything=maybe"], "give true or false"),
            (["train"], "missing argument 'NAME|FILE.yaml'; see crossclass train --help"),
            (["train", "cifar10-mini", "--epochs", "4"], "settings are path=value, as in epochs=4"),
            (["list", "models"], "see crossclass list --help"),
            (["measure", "own.pth", "data.path=123"], "123"),
        ],
    )
    def test_a_first_mistake_is_a_sentence_before_any_work(self, here, capsys, arguments, said):
        folder = run_of(here)
        Path("file").write_text("")
        torch.save({"w": torch.zeros(2)}, "own.pth")
        told = [a.replace("RUN", str(folder.path)) for a in arguments]
        capsys.readouterr()
        with pytest.raises(SystemExit) as e:
            main(told)
        out, err = capsys.readouterr()
        assert e.value.code == 2
        assert said in err
        assert len(err.splitlines()) == 1
        assert out == ""
        assert "Path" not in err

    def test_runs_that_differ_in_their_labels_are_told_apart_in_the_list(self, capsys):
        with pytest.raises(SystemExit):
            main(["list"])
        lines = [t.split(maxsplit=2) for t in capsys.readouterr().out.splitlines()]
        runs = [rest for _, kind, rest in lines if kind == "run"]
        (smoothed,) = (t[2] for t in lines if t[0] == "wei2025-ls-linf-8")
        assert "smoothing 0.2" in smoothed
        assert runs.count(smoothed) == 1

    def test_no_words_at_all_ask_for_help(self, capsys):
        with pytest.raises(SystemExit) as e:
            main([])
        assert not e.value.code
        assert capsys.readouterr().out.startswith("Usage: crossclass")

    def test_a_result_of_any_name_is_reported(self, here, capsys):
        folder = run_of(here)
        for arguments in (["measure", f"{folder.path}@last", "n=6", "out=plain"], ["report", "plain"]):
            with pytest.raises(SystemExit) as e:
                main(arguments)
            assert not e.value.code
        assert Path(capsys.readouterr().out.splitlines()[-1]).name == "plain.html"

    def test_a_checkpoint_is_not_compared_with_itself(self, here):
        folder = run_of(here)  # one epoch: best and last are the same
        found = measure([str(folder.path)], ["n=6"], CPU)
        assert not any("comparison" in entry for entry in found)

    def test_clean_images_have_no_robust_accuracy(self, here, capsys):
        folder = run_of(here)
        with pytest.raises(SystemExit):
            main(["measure", f"{folder.path}@last", "attack=none", "n=6"])
        line = next(t for t in capsys.readouterr().out.splitlines() if t.startswith("last"))
        assert line.split()[3] == "-"

    def test_a_busy_machine_is_said(self, here, monkeypatch):
        said = []
        monkeypatch.setattr("os.getloadavg", lambda: (50.0, 0.0, 0.0))
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        run = SMALL.replace(data=Npz(path=here / "data"))
        for _ in iterate_epochs(run, here / "runs", "r", Runtime(device="cpu"), log=said.append):
            pass
        assert any("runtime.threads=1" in text for text in said)


def test_a_collapse_is_warned_of_once():
    words = "predictor collapsed: 82% of the images go to one class, 2 of 6 classes are predicted at all"
    last = Measurement(checkpoint=CheckpointRef(name="last"), warnings=[words])
    for results, history, expected in (([], [1], 0), ([], [], 1), ([last], [1], 1)):
        rows = [EpochRow(epoch=1, warnings=[words])]
        run = RunRecord(Path("x"), {}, {}, rows, ResultFile(results=results), done=True)
        view = RunView(run, "x", 1, 1000)
        view.__dict__["history"] = history  # where an alarm of that name stands with its end
        assert len(view.warnings) == expected


def test_a_test_attack_in_another_ball_is_said():
    there = ANCHORS["rice2020"]
    assert there.test == "PGD-10, l_inf 8/255"
    assert ANCHORS["rice2020-l2"].test == "PGD-10, l_2 128/255"
    run = Conditions(200, (100, 150), "PGD-10, l_inf 4/255, step 0.25 eps", 10_000, None)
    assert any("l_inf 4/255" in note for note in differing(run, there))
    same = Conditions(200, (100, 150), "PGD-10, l_inf 8/255, step 0.25 eps", 10_000, None)
    assert not any("attack" in note for note in differing(same, there))
    assert verify(anchor("rice2020"), "rice2020", run=same).verdict == "holds"
