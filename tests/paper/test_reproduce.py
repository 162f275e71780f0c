"""From runs to verdicts: what is finished is never done twice, and what is missing is named first."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossclass import models
from crossclass.analysis.records import CheckpointRef, Comparison, DataRef, EpochRow, Measurement, ResultFile
from crossclass.analysis.result_files import load_results
from crossclass.attacks import FGSM, PGD
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.cli import main
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.data import Shapes
from crossclass.paper import evidence, plan, reproduce as reproducing
from crossclass.paper.entries import ENTRIES, chosen
from crossclass.paper.plan import jobs, with_data_path
from crossclass.paper.reproduce import Callbacks, Study, reproduce
from crossclass.paper.runs.paper import PAPER
from crossclass.paper.sizes import shrink, with_crafting_precision
from crossclass.report.plots.paper_figures import draw, draw_maps
from crossclass.report.study import write_study
from crossclass.training import loop
from crossclass.training.recipes import KnowledgeDistillation

CPU = Runtime(device="cpu", threads=1)
TRAINED = [e.id for e in ENTRIES.values() if e.runs]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Every entry at size smoke, one seed of each run."""
    here = tmp_path_factory.mktemp("study")
    study = Study(size="smoke", seeds=1, out=here / "results", runs=here / "runs")
    heard = []
    files = [
        r.path
        for r in reproduce(["all"], study, CPU, Callbacks(log=heard.append, draw=draw, draw_maps=draw_maps))
    ]
    return study, files, heard


@pytest.fixture
def copy(done, tmp_path):
    """A copy that a test may harm."""
    study = Study(size="smoke", seeds=1, out=tmp_path / "results", runs=tmp_path / "runs")
    shutil.copytree(done[0].out, study.out)
    shutil.copytree(done[0].runs, study.runs)
    return study


def untrained(monkeypatch):
    def never(*arguments, **more):
        raise AssertionError("something was trained again")

    monkeypatch.setattr(loop, "train", never)


def test_every_entry_is_written_with_a_verdict_for_every_claim(done):
    _, files, heard = done
    assert [f.stem for f in files] == list(ENTRIES)
    for file in files:
        result = json.loads(file.read_text())
        assert result["size"] == "smoke"
        assert result["verdicts"], file
        assert {v["verdict"] for v in result["verdicts"]} <= {"holds", "does not hold", "undecided"}
        assert all(v["reason"] or v["verdict"] == "holds" for v in result["verdicts"])
        assert "NaN" not in file.read_text()
        assert file.with_suffix(".svg").read_text().count("<svg") == 1
        with file.with_suffix(".csv").open() as f:
            rows = list(csv.reader(f))
        assert rows[0] == ["path", "value"]
        assert len(rows) > 10
        assert f"{file.stem}: {result['verdict'] or 'beyond the paper'}" in heard


def test_runs_are_shared_and_trained_once(done):
    study = done[0]
    folders = [p.name for p in study.runs.iterdir()]
    configs = [(p / "config.yaml").read_text() for p in study.runs.iterdir()]
    assert len(configs) == len(set(configs)) == len(folders)
    kd = next(p for p in study.runs.iterdir() if "-kd-" in p.name)
    assert "teacher" not in " ".join(folders)  # it is the AT run of the same seed
    assert RunFolder(kd).done


def test_a_second_call_only_draws_again(done, monkeypatch):
    study = done[0]
    before = {f: f.read_bytes() for f in study.folder.iterdir() if f.is_file()}
    untrained(monkeypatch)
    heard = []
    reproduce(["all"], study, CPU, Callbacks(log=heard.append, draw=draw, draw_maps=draw_maps))
    assert heard[0].endswith("done")
    for file, content in before.items():
        assert file.read_bytes() == content, file


def test_numbers_alone_are_enough_without_weights(copy, monkeypatch):
    shutil.rmtree(copy.runs)
    untrained(monkeypatch)
    assert len(reproduce(["fig2", "fig9", "fig3c"], copy, CPU)) == 3


def test_lost_numbers_are_made_again_from_the_run(copy, monkeypatch):
    before = json.loads((copy.folder / "fig9.json").read_text())
    shutil.rmtree(copy.folder / "runs")
    reproduce(["fig9"], copy, CPU)
    assert json.loads((copy.folder / "fig9.json").read_text()) == before


def test_images_are_loaded_again_for_extras_alone(copy, monkeypatch):
    loaded, load = [], Shapes.__call__
    monkeypatch.setattr(Shapes, "__call__", lambda data: loaded.append(data) or load(data))
    shutil.rmtree(copy.folder / "runs")
    reproduce(["fig2"], copy, CPU)
    assert len(loaded) == 1  # by training, which finds its run finished
    shutil.rmtree(copy.folder / "runs")
    reproduce(["fig9"], copy, CPU)
    assert len(loaded) == 1 + 4  # two runs, each measured on clean images


def test_a_figure_that_needs_more_of_a_run_has_it_measured(tmp_path):
    study = Study(size="smoke", seeds=1, out=tmp_path / "results", runs=tmp_path / "runs")
    reproduce(["fig2"], study, CPU)
    (place,) = (study.folder / "runs").iterdir()
    assert not (place / "clean.json").exists()
    heard = []
    reproduce(["fig9"], study, CPU, Callbacks(log=heard.append))
    assert (place / "clean.json").exists()
    assert any("to be measured" in h and "at-linf-8" in h for h in heard)


def test_a_deleted_run_folder_says_what_to_do_when_a_figure_needs_it(copy, monkeypatch):
    at = next(p for p in copy.runs.iterdir() if "wei2025-at-linf-8-smoke" in p.name)
    for weights in at.glob("epoch_*.safetensors"):
        weights.unlink()
    shutil.rmtree(copy.folder / "runs")
    with pytest.raises(UserError, match="is gone, and a figure needs it"):
        reproduce(["fig9"], copy, CPU)


def test_numbers_of_other_settings_are_named_and_not_used(copy):
    place = next(p for p in (copy.folder / "runs").iterdir() if "wei2025-at-linf-8-smoke" in p.name)
    shutil.rmtree(copy.runs / place.name)
    text = (place / "config.yaml").read_text()
    (place / "config.yaml").write_text(text.replace("epochs: 4", "epochs: 5"))
    heard = []
    reproduce(["fig2"], copy, CPU, Callbacks(log=heard.append))
    assert any("to be trained" in h and "(epochs differs) and is not used" in h for h in heard)


@pytest.mark.parametrize("changes", [{"seeds": 1}, {"crafting": "bf16"}])
def test_an_entry_of_more_seeds_or_other_crafting_is_not_replaced(tmp_path, changes):
    stored = tmp_path / "smoke" / "fig2.json"
    content = {
        "id": "fig2",
        "title": "",
        "claim": "",
        "size": "smoke",
        "seeds": 2,
        "verdicts": [],
        "numbers": {},
    }
    stored.parent.mkdir()
    stored.write_text(json.dumps(content))
    before = stored.read_bytes()
    study = Study(size="smoke", seeds=2, out=tmp_path, runs=tmp_path / "runs").replace(**changes)
    with pytest.raises(UserError, match=r"fig2\.json was made with seeds=2"):
        reproduce(["fig2"], study, CPU)
    assert stored.read_bytes() == before
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_study_goes_on(done, tmp_path, monkeypatch):
    study = Study(size="smoke", seeds=1, out=tmp_path / "results", runs=tmp_path / "runs")
    seen = []

    def stop(row):
        seen.append(row)
        if len(seen) == 6:  # in the middle of the second run
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(["fig6"], study, CPU, Callbacks(row=stop))
    heard = []
    reproduce(["fig6"], study, CPU, Callbacks(log=heard.append))
    assert any("to be continued" in h and "of 4 epochs" in h for h in heard)
    mine, whole = (json.loads((s.folder / "fig6.json").read_text()) for s in (study, done[0]))
    assert mine["numbers"] == whole["numbers"]


def test_two_processes_share_the_runs_out(done, tmp_path):
    code = (
        "import sys; from pathlib import Path; from crossclass.core.runtime import Runtime\n"
        "from crossclass.paper import reproduce as r; r.WAIT = 0.2\n"
        "study = r.Study(size='smoke', seeds=1, out=Path('results'), runs=Path('runs'))\n"
        "r.reproduce(['fig1', 'fig6'], study, Runtime(device='cpu', threads=1), r.Callbacks(log=print))\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    heard = [p.communicate()[0] for p in both]
    assert [p.returncode for p in both] == [0, 0], heard
    for run in (tmp_path / "runs").iterdir():
        assert [r["epoch"] for r in RunFolder(run).rows()] == [1, 2, 3, 4]
    for id_ in ("fig1", "fig6"):
        mine, whole = (
            json.loads((p / f"{id_}.json").read_text()) for p in (tmp_path / "results/smoke", done[0].folder)
        )
        assert mine["numbers"] == whole["numbers"]


class TestEvidence:
    def test_it_holds_the_run_s_numbers(self, done):
        study = done[0]
        folder = next(p for p in study.runs.iterdir() if "wei2025-at-linf-8-smoke" in p.name)
        proof = evidence.read(study.folder / "runs" / folder.name)
        rows = RunFolder(folder).rows()
        assert [r.epoch for r in proof.rows] == [r["epoch"] for r in rows]
        for mine, logged in zip(proof.rows, rows, strict=True):
            assert mine["test_robust"] == pytest.approx(logged["test_robust"], rel=1e-5)
            assert mine["cas"] == pytest.approx(logged["cas"], rel=1e-5)
            C, D = (np.array(r["C"], dtype=float) for r in (mine.to_dict(), logged))
            assert np.allclose(C, D, atol=1e-4, equal_nan=True)
        assert proof.last["cas"] == load_results(folder / "measure.json").of("last")["cas"]
        assert proof.best.checkpoint.name == "best.val"

    def test_it_says_no_path_of_this_machine(self, done):
        study = done[0]
        for file in (study.folder / "runs").rglob("*"):
            if file.suffix in (".json", ".yaml", ".csv"):
                assert str(study.runs.parent) not in file.read_text()
                assert "data_path" not in file.read_text()

    def test_no_weights_are_kept(self, done):
        kinds = {f.suffix for f in (done[0].folder / "runs").rglob("*") if f.is_file()}
        assert kinds <= {".json", ".yaml", ".csv", ".png"}

    def test_matrices_of_many_classes_are_kept_for_best_and_last_alone(self):
        C = [[0.12345] * 30] * 30
        last, data = CheckpointRef(name="last"), DataRef(name="toy")
        large = {"C": C, "icas_matrix": C, "all_pairs_matrix": C, "confusion": C}
        one = Measurement(checkpoint=last, data=data, attack="PGD-20", matrices=large, cas=1.0)
        pair = Comparison(a="best", b="last", data=data, matrices={"C_difference": C}, d_cas=1.0)
        slim = evidence._slim(ResultFile(results=[one], comparisons=[pair]))
        assert slim.results[0].matrices == {"C": [[0.12] * 30] * 30}
        assert slim.results[0]["cas"] == slim.comparisons[0]["d_cas"] == 1.0
        assert slim.comparisons[0].matrices == {}
        few = ResultFile(results=[one.model_copy(update={"matrices": {"C": [[0.12345]]}})])
        assert evidence._slim(few) == few

    def test_the_nearest_check_stands_for_a_share_of_the_schedule(self):
        rows = [EpochRow(epoch=e, test_robust=0.1 if e % 3 == 0 else None) for e in range(1, 31)]
        proof = evidence.Evidence(Path(), {"seed": 0}, rows, ResultFile())
        assert [proof.at(s).epoch for s in (0.05, 0.35, 0.95, 1.0)] == [3, 9, 27, 30]
        # with drops at 20 and 80 % a share is counted within its phase: 35 % is at 70 % of the first
        early = replace(proof, lr_milestones=(6, 24))
        assert [early.at(s).epoch for s in (0.35, 0.5, 0.625, 0.75, 1.0)] == [3, 6, 15, 24, 30]
        assert replace(proof, lr_milestones=(15,)).at(0.5).epoch == 15

    def test_an_unfinished_run_is_no_evidence(self, copy, tmp_path):
        folder = RunFolder(next(copy.runs.iterdir()))
        (folder.path / "DONE").unlink()
        with pytest.raises(UserError, match="is not finished"):
            evidence.keep(folder, tmp_path / "kept", {})

    @pytest.mark.parametrize("name", ["measure.json", "env.json", "matrices.json"])
    def test_damage_is_one_sentence(self, copy, name):
        place = next((copy.folder / "runs").iterdir())
        (place / name).write_text("{")
        with pytest.raises(UserError, match=f"{name} is damaged"):
            evidence.read(place)
        (place / name).unlink()
        with pytest.raises(UserError, match=f"{name} is missing"):
            evidence.read(place)


class TestPlan:
    def test_every_run_once_per_seed_and_teachers_first(self):
        wanted = jobs(chosen(["all"]), "mini", 2)
        digests = [j.run.digest() for j in wanted]
        assert len(digests) == len(set(digests))
        names = [j.name for j in wanted]
        assert names.index("wei2025-at-linf-8") < names.index("wei2025-kd-linf-8")
        (at,) = (j for j in wanted if j.name == "wei2025-at-linf-8" and j.run.seed == 0)
        assert at.extras == ("clean", "saliency")

    @pytest.mark.parametrize("name", PAPER)
    def test_paper_size_is_the_run_as_it_is(self, name):
        assert shrink(PAPER[name], "paper") == PAPER[name]

    @pytest.mark.parametrize("name", PAPER)
    def test_a_run_crafted_in_bf16_is_judged_as_before_and_finds_its_teacher(self, name):
        run = PAPER[name]
        low = with_crafting_precision(run, "bf16")
        assert low.final_attack() == run.final_attack()
        assert low.validation_attack() == run.validation_attack().replace(precision="bf16")
        assert low.precision == "fp32"  # of the step
        assert (low == run) == (
            run.recipe.threat is None and run.validation_attack() == low.validation_attack()
        )
        if isinstance(run.recipe, KnowledgeDistillation):
            inner = run.replace(recipe=run.recipe.inner)
            assert low.replace(recipe=low.recipe.inner) == with_crafting_precision(inner, "bf16")
        elif run.recipe.threat is not None:
            assert "bf16" in str(low.recipe.attack)
        (job,) = (j for j in jobs(chosen(["fig2"]), "paper", 1, "bf16") if j.name == "wei2025-at-linf-8")
        assert job.run == with_crafting_precision(PAPER["wei2025-at-linf-8"], "bf16")

    @pytest.mark.parametrize("name", PAPER)
    def test_mini_keeps_what_a_run_is_about(self, name):
        run = PAPER[name]
        mini = shrink(run, "mini")
        assert (mini.recipe.kind, mini.threat, mini.label_smoothing) == (
            run.recipe.kind,
            run.threat,
            run.label_smoothing,
        )
        assert (mini.data.kind, mini.model.normalise) == (run.data.kind, run.model.normalise)
        assert len(mini.lr_milestones) == len(run.lr_milestones)
        assert (mini.ensembling is None) == (run.ensembling is None)
        assert mini.validation_attack().threat == mini.final_attack().threat == run.threat

    def test_a_pupil_s_teacher_is_the_at_run_of_the_study(self):
        kd = shrink(PAPER["wei2025-kd-linf-8"], "mini")
        assert isinstance(kd.recipe, KnowledgeDistillation)
        assert kd.replace(recipe=kd.recipe.inner) == shrink(PAPER["wei2025-at-linf-8"], "mini")

    def test_images_are_looked_for_by_their_name(self, tmp_path):
        run = PAPER["wei2025-at-linf-8"]
        with pytest.raises(UserError, match="data_root=DIR"):
            with_data_path(run, None)
        with pytest.raises(UserError, match=r"there is no .*cifar10"):
            with_data_path(run, tmp_path)
        (tmp_path / "cifar10").mkdir()
        assert with_data_path(run, tmp_path).digest() == run.digest()
        assert with_data_path(run, tmp_path).data.path == tmp_path / "cifar10"
        np.savez(tmp_path / "cifar10" / "test.npz", images=np.zeros((1, 4, 4, 3), np.uint8), labels=[0])
        found = with_data_path(run, tmp_path).data
        assert (found.kind, found.n_val, found.path) == ("npz", run.data.n_val, tmp_path / "cifar10")
        assert with_data_path(shrink(run, "smoke"), None) == shrink(run, "smoke")

    def test_a_full_disk_is_said_before_training(self, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
        monkeypatch.setattr(plan.shutil, "disk_usage", lambda place: usage)
        study = Study(size="smoke", seeds=3, out=tmp_path / "results", runs=tmp_path / "runs")
        plan.check_disk_space(tmp_path / "not" / "there", 2**19)
        with pytest.raises(UserError, match=r"need about 2 MiB .* has 1 free"):
            plan.check_disk_space(tmp_path, 2**21)
        monkeypatch.setattr(plan.shutil, "disk_usage", lambda place: usage._replace(free=2**10))
        untrained(monkeypatch)
        with pytest.raises(UserError, match="choose another disk"):
            reproduce(["fig2"], study, CPU)
        assert not study.runs.exists()

    def test_what_is_left_costs_its_epochs_and_the_whole_evaluation(self, monkeypatch):
        monkeypatch.setattr(
            plan, "_seconds_of_step", lambda run, model, part: float(len(part))
        )  # a second per image
        run = shrink(PAPER["wei2025-at-linf-8"], "smoke")
        splits = run.data()

        def cost(attack, final):
            return plan.cost(
                run.replace(validation=run.validation.replace(attack=attack, final=final)), splits, CPU
            )

        ten = cost(PGD(steps=10), PGD(steps=20))
        assert ten.seconds(0) == ten.final == pytest.approx(2 * len(splits.test) * 21 / 2)
        assert ten.seconds(3) == pytest.approx(3 * ten.epoch + ten.final)
        checked = (len(splits.test) + len(splits.val)) / 2  # a step of training is two gradients here
        assert ten.epoch == pytest.approx(len(splits.train) + checked * (10 + plan.CHECK_GRADIENTS))
        for attack, gradients in ((FGSM(), 1), (PGD(steps=10, restarts=3), 30)):
            other = cost(attack, PGD(steps=20, restarts=2))
            assert other.epoch - ten.epoch == pytest.approx(checked * (gradients - 10))
            assert other.final - ten.final == pytest.approx(2 * len(splits.test) * 20 / 2)

    def test_a_step_costs_every_forward_pass_of_it(self):
        forwards = {}
        for name in ("wei2025-at-linf-8", "wei2025-te-linf-8", "wei2025-standard"):
            run, count = shrink(PAPER[name], "smoke"), []
            splits = run.data()
            model = models.build(run.model, splits.train.images, len(splits.class_names), 0)
            model.register_forward_hook(lambda *a, count=count: count.append(1))
            plan._seconds_of_step(run, model, splits.train.first(8))
            forwards[name] = len(count) / 2  # two steps
        # PGD-1 and the loss; what temporal ensembling remembers; the loss
        assert list(forwards.values()) == [2, 3, 1]

    def test_seeds_of_a_run_are_tried_out_once(self, tmp_path, monkeypatch):
        tried = []
        one = plan.Cost(2.0, 5.0, 2**20)
        monkeypatch.setattr(reproducing, "cost", lambda run, splits, runtime: tried.append(run) or one)
        heard = []
        study = Study(size="smoke", seeds=3, out=tmp_path / "o", runs=tmp_path / "r", plan=True)
        reproduce(["fig2"], study, CPU, Callbacks(log=heard.append))
        assert len(tried) == 1
        assert [h.split(", about ")[1] for h in heard[1:4]] == ["13 s"] * 3  # four epochs and the end
        assert heard[-1].startswith("about 39 s of this machine, 3 MiB")

    def test_plan_true_does_nothing(self, tmp_path, monkeypatch):
        untrained(monkeypatch)
        heard = []
        study = Study(size="smoke", seeds=2, out=tmp_path / "o", runs=tmp_path / "r", plan=True)
        assert reproduce(["fig2", "fig10", "fig9"], study, CPU, Callbacks(log=heard.append)) == []
        assert heard[0] == "4 runs: 4 to be trained"
        assert not list(tmp_path.iterdir())


class TestPage:
    def test_it_shows_every_claim_and_carries_everything(self, done):
        study = done[0]
        text = write_study(study.folder).read_text()
        for entry in ENTRIES.values():
            assert f'id="{entry.id}"' in text
            for claim in entry.claims:
                assert claim.text.replace("'", "&#39;") in text
        assert "://" not in text.replace("http://www.w3.org", "")
        assert "Smoke runs are a few dozen generated pictures" in text
        assert "a classifier that always gives the same answer" in text
        ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
        assert len(ids) == len(set(ids))

    def test_names_are_escaped(self, copy):
        file = copy.folder / "fig2.json"
        result = json.loads(file.read_text())
        result["title"] = result["verdicts"][0]["claim"] = "<script>alert(1)</script>"
        file.write_text(json.dumps(result))
        (copy.folder / "fig2.svg").write_text("<svg onload='alert(1)'></svg>")
        text = write_study(copy.folder).read_text()
        assert "<script>alert" not in text
        assert "onload='" not in text

    def test_what_is_no_result_is_one_sentence(self, tmp_path):
        with pytest.raises(UserError, match="holds no results"):
            write_study(tmp_path)
        (tmp_path / "fig2.json").write_text("[]")
        with pytest.raises(UserError, match="is not a result of reproduce"):
            write_study(tmp_path)


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as e:
            main(["reproduce", *arguments])
        out, err = capsys.readouterr()
        return int(e.value.code or 0), out, err

    code, out, err = call("fig2", "size=smoke", "seeds=1", "runtime.threads=1")
    assert code == 0, err
    assert out.strip() == str(tmp_path / "results" / "smoke" / "index.html")
    for arguments, words in (
        (["fig22"], "did you mean 'fig2'"),
        ([], "missing argument"),
        (["size=smoke"], "needs an id"),
        (["fig2", "size=large"], "size"),
        (["fig2", "seeds=0"], "seeds"),
        (["fig2", "size=mini"], "data_root=DIR"),
        (["fig2", "sizes=smoke"], "did you mean 'size'"),
    ):
        code, out, err = call(*arguments)
        assert code == 2, (arguments, out, err)
        assert words in err
        assert "Traceback" not in err
