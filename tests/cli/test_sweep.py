"""A sweep is a grid of run folders: each found again, none trained twice, one failure stops nothing."""

import json
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from crossclass.checkpoints.run_folder import RunFolder
from crossclass.cli import jobs, main
from crossclass.cli.arguments import split_values
from crossclass.cli.jobs import run_all
from crossclass.cli.sweep import expand, lines
from crossclass.core.errors import UserError
from crossclass.core.files import lock
from crossclass.training.loop import iterate_epochs, train
from run_file import TINY
from tiny_runs import CPU

MORE = ("out=runs", "runtime.threads=1", "runtime.device=cpu")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2/255,4/255", ["2/255", "4/255"]),
        ("1", ["1"]),
        ("[30,45],[15]", ["[30,45]", "[15]"]),
        ("{a: 1, b: 2}", ["{a: 1, b: 2}"]),
        ("'a,b', c", ["'a,b'", "c"]),
        ("null,0.1", ["null", "0.1"]),
    ],
)
def test_commas_outside_of_brackets_separate(text, values):
    assert split_values(text) == values


@pytest.mark.parametrize("text", ["", "1,", ",1", "1,,2"])
def test_empty_values_are_refused(text):
    with pytest.raises(UserError, match="empty value"):
        split_values(text)


def test_the_grid_is_the_product_in_the_order_of_the_axes(here):
    points = expand("tiny.yaml", ["seed=0,1", "lr=0.1,0.2,0.3"])
    assert [(p.run.seed, p.run.lr) for p in points] == [(s, lr) for s in (0, 1) for lr in (0.1, 0.2, 0.3)]
    assert points[0].label == "tiny.yaml seed=0 lr=0.1"
    assert len({p.run.digest() for p in points}) == 6


def test_a_sweep_file_says_the_same(here):
    Path("grid.yaml").write_text(
        "run: tiny.yaml\ngrid:\n  seed: [0, 1]\n  lr_milestones: [[1], []]\n  label_smoothing: 0.1\n"
    )
    found = [(p.run.seed, p.run.lr_milestones, p.run.label_smoothing) for p in expand("grid.yaml")]
    assert found == [(s, d, 0.1) for s in (0, 1) for d in ((1,), ())]
    # what is typed replaces or adds an axis
    assert [p.run.seed for p in expand("grid.yaml", ["seed=5", "lr_milestones=[]"])] == [5]


def test_values_of_a_grid_stay_as_they_are_written(here):
    Path("grid.yaml").write_text(
        "run: 007.yaml\ngrid:\n  seed: [008, 010]\n"
        "  recipe: [{kind: kd, teachers: [{file: 007}, {file: '08'}]}]\n"
        "  data: [{kind: npz, path: 'set #2'}]\n"
    )
    Path("007.yaml").write_text(TINY)
    points = expand("grid.yaml")
    assert [p.run.seed for p in points] == [8, 10]
    assert [t.file for t in points[0].run.recipe.teachers] == ["007", "08"]
    assert points[0].run.data.path == Path("set #2")
    for point in points:
        words = shlex.split(next(lines([point])))[2:]
        assert [again.run for again in expand(words[0], words[1:])] == [point.run]


def test_a_path_with_a_comma_is_one_value(here):
    Path("a,b").mkdir()
    data = [p.run.data.path for p in expand("cifar10-mini", ["data.path=a,b"])]
    assert data == [Path("a,b")]


def test_every_command_trains_its_point(here):
    points = expand("tiny.yaml", ["recipe.attack.threat.eps=2/255,4/255", "lr_milestones=[1],[]"])
    for point, line in zip(points, lines(points, MORE), strict=True):
        words = shlex.split(line)
        assert words[:3] == ["crossclass", "train", "tiny.yaml"]
        assert words[-3:] == list(MORE)
        (again,) = expand(words[2], [w for w in words[3:] if w not in MORE])
        assert again.run == point.run


@pytest.mark.parametrize(
    ("target", "changes", "words"),
    [
        ("tiny.yaml", ["seed"], "not of the form"),
        ("tiny.yaml", ["sed=0,1"], "did you mean 'seed'"),
        ("tiny.yaml", ["lr=0.1,-1"], r"lr=-1: "),
        ("tiny.yaml", ["lr=0.1,1e-1"], "are the same run"),
        ("tinny.yaml", ["seed=0,1"], "no run file"),
        ("cifar10-mni", ["seed=0,1"], "did you mean 'cifar10-mini'"),
        ("bad.yaml", [], "'run' and 'grid', not 'grids'"),
        ("worse.yaml", [], "'run' names a run"),
        ("worst.yaml", [], "correct the YAML"),
    ],
)
def test_mistakes_are_one_sentence(here, target, changes, words):
    Path("bad.yaml").write_text("run: tiny.yaml\ngrid: {}\ngrids: {}\n")
    Path("worse.yaml").write_text("grid: [1]\n")
    Path("worst.yaml").write_text("grid: [1\n")
    with pytest.raises(UserError, match=words) as e:
        expand(target, changes)
    assert "\n" not in str(e.value)


def test_runs_are_trained_and_found_again(here):
    points, heard = expand("tiny.yaml", ["seed=0,1", "label_smoothing=0,0.1"]), []
    assert not any(one.failure for one in run_all(points, MORE, 2, heard.append))
    folders = sorted(Path("runs").iterdir())
    assert len(folders) == 4
    assert all(RunFolder(f).done for f in folders)
    before = {f: f.stat().st_mtime_ns for f in Path("runs").rglob("*.safetensors")}
    outcomes = run_all(points, MORE, 2, heard.append)
    assert [one.point for one in outcomes] == points
    assert sorted(one.folder for one in outcomes) == folders
    assert {f: f.stat().st_mtime_ns for f in Path("runs").rglob("*.safetensors")} == before
    assert sum(h.startswith("finished") for h in heard) == 8


def test_one_failure_stops_nothing_else_and_says_why(here):
    points = expand("tiny.yaml", ["data.n_train=16", "lr=1e9,0.1", "grad_clip_norm=null"])
    heard = []
    outcomes = run_all(points, MORE, 1, heard.append)
    assert [one.point.run.lr for one in outcomes if one.failure] == [1e9]
    assert any(h.startswith("FAILED") and "not a number" in h for h in heard)
    assert sum("warning: training: the attack is too short" in h for h in heard) == 1  # of the other
    assert sum(RunFolder(f).done for f in Path("runs").iterdir()) == 1


def test_a_run_that_another_process_trains_is_waited_for(here, monkeypatch):
    monkeypatch.setattr(jobs, "WAIT", 0.05)
    points, heard = expand("tiny.yaml", ["seed=0,1"]), []
    folder = RunFolder.of(Path("runs"), "tiny-seed0", points[0].run).path

    def log(text):
        heard.append(text)
        if text.startswith("finished") and held:
            held.pop().close()

    held_now = lock(folder / ".lock", "it")
    held_now.__enter__()

    class Release:
        def close(self):
            held_now.__exit__(None, None, None)

    held = [Release()]
    assert not any(one.failure for one in run_all(points, MORE, 1, log))
    order = [h.split()[2] for h in heard if h.startswith("finished")]
    assert order == ["seed=1", "seed=0"]


def test_an_interrupted_sweep_is_finished_by_the_same_call(here):
    command = [
        sys.executable,
        "-m",
        "crossclass",
        "sweep",
        "tiny.yaml",
        "seed=0,1,2",
        "epochs=12",
        "lr_milestones=[6]",
    ]
    with subprocess.Popen([*command, *MORE], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("finished"):
                process.kill()  # its child may go on or not: both must be harmless
                break
    done = subprocess.run([*command, *MORE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for folder in Path("runs").iterdir():
        assert RunFolder(folder).done
        assert [r["epoch"] for r in RunFolder(folder).rows()] == list(range(1, 13))


def test_a_table_ends_an_interrupted_sweep_too(here, monkeypatch, capsys):
    def interrupted(points, *args):
        """Trains the first; of the second all epochs without the evaluation."""
        train(points[0].run, "runs", "tiny", CPU)
        for _, row in iterate_epochs(points[1].run, "runs", "tiny", CPU):
            if row.epoch == 2:
                break
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run_all", interrupted)
    with pytest.raises(SystemExit) as e:
        main(["sweep", "tiny.yaml", "seed=0,1,2", *MORE])
    out, err = capsys.readouterr()
    assert e.value.code == 130
    assert "the same command goes on" in err
    of = {seed: [line for line in out.splitlines() if f"seed {seed}:" in line] for seed in (1, 2)}
    assert "all 2 epochs are trained" in of[1][0]
    assert "not started" in of[2][0]
    assert len(out.splitlines()) > 4  # the row of the first, too


def test_from_the_command_line(here, capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as e:
            main(["sweep", *arguments])
        out, err = capsys.readouterr()
        return int(e.value.code or 0), out, err

    code, out, _ = call("tiny.yaml", "seed=0,1", "plan=true", "out=there")
    assert code == 0
    assert out.splitlines() == [f"crossclass train tiny.yaml seed={s} out=there" for s in (0, 1)]
    assert not Path("there").exists()
    code, out, err = call("tiny.yaml", "seed=0", *MORE)
    assert code == 0, err
    assert "finished  tiny.yaml seed=0 (1 of 1)" in err
    assert out.splitlines()[0].split()[-2:] == ["CAS", "last"]
    table = out.splitlines()
    code, out, err = call("tiny.yaml", "seed=0", *MORE)  # again: no process is started, the table is the same
    assert (code, out.splitlines()) == (0, table)
    assert "started" not in err
    code, out, _ = call("tiny.yaml", "lr=0.1,1e9", *MORE)
    assert code == 1
    assert "Not in the table: lr 1" in out
    assert "not a number" in out
    for arguments, words in (
        (["tiny.yaml", "jobs=0"], "jobs=0: "),
        (["tiny.yaml", "jobs=two"], "jobs=two"),
        (["tiny.yaml", "runtime.thread=1"], "did you mean 'threads'"),
    ):
        code, _, err = call(*arguments)
        assert code == 2
        assert words in err


def test_a_busy_run_has_an_exit_code_of_its_own(here, capsys):
    (point,) = expand("tiny.yaml", ["seed=0"])
    folder = RunFolder.of(Path("runs"), "tiny-seed0", point.run)
    with lock(folder.path / ".lock", "it"), pytest.raises(SystemExit) as e:
        main(["train", "tiny.yaml", "seed=0", "out=runs", "runtime.threads=1"])
    assert e.value.code == jobs.BUSY
    assert "is being trained by process" in capsys.readouterr().err


def test_slurm_jobs_train_and_can_be_requeued(here):
    submitit = pytest.importorskip("submitit")
    (point,) = expand("tiny.yaml", ["seed=0"])
    job = jobs.SlurmJob(point, MORE)
    again = job.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    job()
    (folder,) = Path("runs").iterdir()
    assert RunFolder(folder).done
    assert json.loads((folder / "measure.json").read_text())
    (wrong,) = expand("tiny.yaml", ["lr=1e9"])
    with pytest.raises(RuntimeError, match="not a number"):
        jobs.SlurmJob(wrong, MORE)()
    with pytest.raises(UserError, match="submitit refused"):
        jobs.submit([point], MORE, Path("logs"), {"cluster": "local", "no_such_setting": 1})


def test_without_slurm_no_job_is_started(here, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="there is no SLURM here"):
        jobs.submit(expand("tiny.yaml", ["seed=0"]), MORE, Path("logs"), {})
    assert not Path("logs").exists()


def test_each_job_has_its_gpu_and_its_share_of_the_cores(monkeypatch):
    from crossclass.cli.jobs import _environments

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    gpus = [{"CUDA_VISIBLE_DEVICES": i} for i in ("0", "1", "0")]
    assert list(_environments(3, False)) == [gpu | {"OMP_NUM_THREADS": "2"} for gpu in gpus]
    assert list(_environments(3, True)) == gpus
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [p["CUDA_VISIBLE_DEVICES"] for p in _environments(3, True)] == ["3", "5", "3"]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert list(_environments(2, False)) == [{}, {}]


def test_slurm_is_handed_what_can_be_queued_again(monkeypatch):
    submitit = pytest.importorskip("submitit")
    handed = []

    class Job:
        job_id = "7"

    monkeypatch.setattr(submitit.AutoExecutor, "submit", lambda self, f: handed.append(f) or Job())
    monkeypatch.setattr(submitit.AutoExecutor, "batch", lambda self: nullcontext())
    (point,) = expand("shapes-demo")
    assert jobs.submit([point], [], Path("logs"), {"cluster": "local"}) == ["7"]
    assert all(hasattr(f, "checkpoint") for f in handed)  # submitit looks for it on the function itself


def test_what_a_program_has_registered_is_trained_by_itself(here, capsys):
    script = """
import sys
from typing import Literal
import crossclass as cc
from crossclass.cli import main
from crossclass.training.recipes import AnyRecipe

class Mine(cc.AT):
    kind: Literal["mine"] = "mine"
    "Which it is."

cc.register(AnyRecipe, Mine)
main(["sweep", "tiny.yaml", "recipe.kind=mine", "seed=0,1", *sys.argv[1:]])
"""
    Path("program.py").write_text(script)
    command = [sys.executable, "program.py", *MORE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mine is registered in this program" in done.stderr
    assert done.stdout.splitlines()[0].startswith("run   seeds")
    assert len(list(Path("runs").glob("*/DONE"))) == 2
    done = subprocess.run([*command, "plan=true"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "mine" in done.stderr
