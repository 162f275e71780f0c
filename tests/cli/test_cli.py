"""The command line as a user meets it: plain output, one sentence for a mistake, exit code 2."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crossclass.analysis.records import EpochRow
from crossclass.cli import main, names, progress
from crossclass.cli.progress import ProgressDisplay
from crossclass.cli.remaining_time import RemainingTime
from crossclass.core.launch_environment import is_main_process
from crossclass.paper.entries import ENTRIES
from crossclass.paper.runs import NAMED
from crossclass.training.run import Run
from run_file import TINY


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    return tmp_path


def test_help_and_version_answer_without_torch(call):
    code = (
        "import sys; from crossclass.cli import main\n"
        "try: main(['--help'])\nfinally: print('torch' in sys.modules, 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "False False"
    for command in names():
        (summary,) = [line for line in done.stdout.splitlines() if line.startswith(f"  {command} ")]
        assert not summary.endswith("..."), "cut off at 80 columns"
        code, out, _ = call(command, "--help")
        assert code == 0
        trusting = ("train", "sweep", "fork", "measure", "features", "ablate", "doctor")
        assert ("--trust" in out) == (command in trusting)
    assert call("--version")[1].startswith("crossclass 0.")


def test_list_prints_one_full_name_first_on_each_line(call):
    code, out, _ = call("list")
    assert code == 0
    named = {line.split()[0] for line in out.splitlines()}
    assert {*NAMED, "at", "standard", "pgd", "fgsm", "linf", "l2", "shapes", "npz", "preactresnet"} <= named
    lines = [line.split(maxsplit=2) for line in out.splitlines()]
    assert all(len(line) == 3 for line in lines)
    assert [name for name, kind, _ in lines if kind == "paper"] == list(ENTRIES)
    (smoothed,) = (about for name, _, about in lines if name == "wei2025-ls-linf-8")
    assert "smoothing 0.2" in smoothed
    assert [about for _, _, about in lines].count(smoothed) == 1


def test_show_prints_yaml_that_is_the_run(call, here):
    _, out, _ = call("show", "cifar10-mini", "seed=4")
    Path("again.yaml").write_text(out)
    assert call("show", "again.yaml")[1] == out
    assert "eps: 8/255" in out
    assert "steps: 3 " in call("show", "pgd", "steps=3")[1]
    assert "wei2025-at-linf-8" in call("show", "fig1")[1]
    _, out, _ = call("show", "cifar10-mini", "shapes-demo")
    assert 'data.kind: "npz" -> "shapes"' in out


def test_train_measure_report_end_to_end(call, here):
    code, out, err = call("train", "tiny.yaml", "out=runs", "seed=3")
    assert code == 0
    folder = Path(out.strip().splitlines()[-1])
    assert folder.parent == Path("runs")
    assert folder.name.startswith("tiny-seed3-")
    assert "epoch   2/2" in err
    assert "CAS" in err
    begin = err.partition("epoch   1/2")[0]
    assert all(words in begin for words in (str(folder), "pgd", "8/255", "PreActResNet", "2 epochs"))
    again = call("train", "tiny.yaml", "out=runs", "seed=3")
    assert again[:2] == (0, out)
    assert "finished already" in again[2]
    code, out, _ = call("measure", str(folder), "n=6", "out=m.json")
    assert code == 0
    assert out.splitlines()[-1] == "m.json"
    found = json.loads(Path("m.json").read_text())
    keys = "checkpoint data attack clean robust classwise_robust matrices cas cas_normalised"
    keys += " negative_mass pairs conditions icas intervals warnings"
    assert {"d_cas", "d_icas", "d_robust", "intervals"} <= set(found["comparisons"][0])
    for result in found["results"]:
        assert set(keys.split()) <= set(result)
    code, out, _ = call("report", str(folder))
    assert code == 0
    assert Path(out.strip()).is_file()
    for replaced in ("", "page.html is replaced\n"):
        assert call("report", str(folder), "out=page.html")[2] == replaced
    assert "m.json is replaced\n" in call("measure", str(folder), "out=m.json", "n=6")[2]


def test_checkpoints_of_one_name_are_told_apart(call, here):
    folders = [call("train", "tiny.yaml", "out=runs", f"seed={s}")[1].split()[-1] for s in (1, 2)]
    _, out, _ = call("measure", *(f"{f}@last" for f in folders), "n=6", "attack.steps=1")
    for folder in folders:
        assert re.search(rf"^last of {Path(folder).name} +2 ", out, flags=re.M)
    _, out, _ = call("measure", f"{folders[0]}@last", "n=6", "attack.steps=1")
    assert re.search(r"^last +2 ", out, flags=re.M)


def test_demo_ends_with_the_plain_path_of_the_page(call, here):
    small = ["data.n_train=16", "data.n_val=8", "data.n_test=8", "epochs=1", "out=d"]
    small += [
        "validation.attack.steps=1",
        "recipe.attack.steps=1",
        "validation.final.kind=fgsm",
        "model.width=4",
    ]
    code, out, err = call("demo", *small)
    assert code == 0, err
    assert "lr_milestones=[], at the same shares of 1 epochs" in err
    page = Path(out.splitlines()[-1])
    assert page.is_file()
    assert "<html" in page.read_text()
    assert (out + err).count(page.name) == 1


def test_settings_of_execution_are_no_part_of_the_run(call, here):
    one = call("train", "tiny.yaml", "out=a", "runtime.threads=1", "runtime.device=cpu")[1]
    two = call("train", "tiny.yaml", "out=b")[1]
    assert Path(one.strip()).name == Path(two.strip()).name


BAD = {
    "unknown run": (["train", "cifar10-mnii"], ["did you mean 'cifar10-mini'"]),
    "unknown setting": (["train", "tiny.yaml", "epoch=3"], ["epoch", "did you mean 'epochs'"]),
    "unknown runtime": (["train", "tiny.yaml", "runtime.thread=3"], ["thread", "threads"]),
    "eps=8": (["train", "tiny.yaml", "recipe.attack.threat.eps=8"], ["8/255"]),
    "no run file": (["train", "no.yaml"], ["there is no run file no.yaml"]),
    "no data path": (["train", "cifar10-mini"], ["data.path=DIR", "train.npz"]),
    "missing data": (["train", "cifar10-mini", "data.path=nowhere"], ["nowhere"]),
    "empty data folder": (["train", "cifar10-mini", "data.path=."], ["train.npz"]),
    "corrupt data": (["train", "cifar10-mini", "data.path=corrupt"], ["train.npz"]),
    "wrong shape": (["train", "cifar10-mini", "data.path=shape"], ["train.npz"]),
    "labels outside": (["train", "cifar10-mini", "data.path=labels"], ["train.npz"]),
    "images outside": (["train", "cifar10-mini", "data.path=range"], ["[0, 1]"]),
    "too few": (["train", "cifar10-mini", "data.path=few"], ["n_train"]),
    "out is a file": (["train", "tiny.yaml", "out=tiny.yaml"], ["out="]),
    "no target": (["measure", "n=3"], ["run folder"]),
    "an entry has no settings": (["show", "fig1", "steps=3"], ["steps"]),
    "no run folder": (["measure", "runs/none"], ["runs/none"]),
    "not a run folder": (["measure", "few"], ["few", "config.yaml"]),
    "bad report": (["report", "few"], ["few"]),
    "report setting": (["report", "few", "put=x"], ["put", "out"]),
    "unknown name": (["show", "pdg"], ["did you mean 'pgd'"]),
    "unknown command": (["trian", "x"], ["did you mean 'train'"]),
    "no equals": (["train", "tiny.yaml", "seed"], ["path.to.setting=value"]),
}


def test_a_file_that_is_named_like_an_option(call, here):
    Path("-odd.pth").write_bytes(b"")
    code, _, err = call("measure", "-odd.pth")
    assert code == 2
    assert "give './-odd.pth' for the file of this name" in err


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_sentence_and_leave_nothing(call, here, case):
    x, y = np.zeros((4, 8, 8, 3), dtype=np.uint8), np.arange(4)
    files = {
        "shape": (x[:, :, :, :2], y),
        "labels": (x, y - 1),
        "range": (x.astype(np.float32) + 3, y),
        "few": (x, y),
    }
    for name, (images, labels) in files.items():
        os.mkdir(name)
        for split in ("train", "test"):
            np.savez(f"{name}/{split}.npz", images=images, labels=labels)
    os.mkdir("corrupt")
    for split in ("train", "test"):
        content = Path(f"few/{split}.npz").read_bytes()
        Path(f"corrupt/{split}.npz").write_bytes(content[: len(content) // 2])
    before = sorted(here.rglob("*"))
    arguments, words = BAD[case]
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("crossclass: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["measure", "RUN", "out=."], "is a folder"),
        (["measure", "~nobody-has-this-name.pth"], "there is no checkpoint ~nobody"),
        (["measure", "RUN", "out=tiny.yaml/x.json"], "is a file, not a folder"),
        (["measure", "RUN@last", "saliency=3"], "compares two checkpoints"),
        (["measure", "RUN", "attack.rel_step=2/255"], "give step_size=2/255"),
        (["measure", "RUN", "attack.step=2/255"], "give rel_step=0.25, a share of eps, or step_size=2/255"),
        (["measure", "RUN", "attack.rel_step=0.2", "attack.step_size=2/255"], "give one"),
        (["measure", "own.pth", "data.path=123"], "123"),
        (["report", "own.pth"], "crossclass measure own.pth"),
        (["report", "RUN", "out=tiny.yaml/page.html"], "is a file, not a folder"),
        (["sweep", "shapes-demo", "plan=maybe"], "give true or false"),
        (["sweep", "shapes-demo", "jobs=["], "give a whole number"),
        (["sweep", "shapes-demo", "slurm={a: b"], "not valid YAML"),
        (["doctor", "own.pth", "everything=maybe"], "give true or false"),
        (["doctor", "a.pth", "transfer=b.pth", "transfer=c.pth"], "'transfer' is given twice"),
        (["verify", "RUN", "tolerance=two"], "tolerance=two"),
        (["verify", "RUN", "out=x.foo"], ".svg, .png or .pdf"),
        (["verify", "RUN", "out=tiny.yaml/x.svg"], "is a file, not a folder"),
        (["doctor", "RUN@last", "out=tiny.yaml/x.json"], "is a file, not a folder"),
        (["train", "shapes-demo", "out="], "'out=' has no value"),
        (["doctor", "RUN@last", "transfer="], "'transfer=' has no value"),
        (["measure"], "missing argument 'RUN|FILE...'"),
        (["train"], "missing argument 'NAME|FILE.yaml|RUN'; see crossclass train --help"),
        (["train", "cifar10-mini", "--epochs", "4"], "settings are path=value, as in epochs=4"),
        (["train", "cifar10-mini", "--allow-partial"], "no such option: --allow-partial"),
        (["list", "models"], "see crossclass list --help"),
    ],
)
def test_a_first_mistake_is_one_sentence_before_any_work(call, here, whole, arguments, said):
    torch.save({"w": torch.zeros(2)}, "own.pth")
    code, out, err = call(*(a.replace("RUN", str(whole.path)) for a in arguments))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert said in err
    assert "Path" not in err


def test_no_words_at_all_ask_for_help(call):
    code, out, _ = call()
    assert code == 0
    assert out.startswith("Usage: crossclass")


def test_a_result_of_any_name_is_reported(call, here, whole):
    assert call("measure", f"{whole.path}@last", "n=6", "out=plain")[0] == 0
    assert Path(call("report", "plain")[1].strip()).name == "plain.html"


def test_ctrl_c_says_how_to_go_on(call, here, monkeypatch):
    from crossclass.training import loop

    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train_epoch", stop)
    code, _, err = call("train", "tiny.yaml")
    assert code == 130
    assert "the same command goes on" in err


def test_verify_says_by_its_exit_code_whether_a_run_contradicts_a_curve(call, here):
    from crossclass.paper.published_curves import anchor

    def folder(name, rows):
        Path(name).mkdir()
        Path(name, "config.yaml").write_text(NAMED["rice2020"].yaml())
        Path(name, "events.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        Path(name, "env.json").write_text("{}")
        return name

    rows = [dict(r) for r in anchor("rice2020")]
    code, out, _ = call("verify", folder("same", rows), "against=rice2020", "out=both.svg")
    assert code == 0
    assert "holds" in out
    assert Path("both.svg").exists()
    never = [{**r, "test_robust": min(r["test_robust"], 0.2)} for r in rows]
    code, out, _ = call("verify", folder("other", never), "against=rice2020")
    assert code == 1
    assert "does not hold" in out
    code, _, err = call("verify", "same", "against=rise2020")
    assert code == 2
    assert "rice2020" in err


def test_of_several_processes_the_first_speaks_and_most_commands_are_for_one(monkeypatch, capsys):

    monkeypatch.setenv("RANK", "1")
    assert is_main_process(), "a rank without a world is somebody else's variable"
    monkeypatch.setenv("WORLD_SIZE", "2")
    stdout = sys.stdout
    try:
        for rank, said in (("0", "list is a command for one process; start it without torchrun"), ("1", "")):
            monkeypatch.setenv("RANK", rank)
            with pytest.raises(SystemExit) as e:
                main(["list"])
            assert e.value.code == 2
            ProgressDisplay("x").log("hello")
            err = capsys.readouterr().err
            assert said in err
            assert ("hello" in err) == (rank == "0")
    finally:
        sys.stdout.close()
        sys.stdout = stdout


def test_the_time_left_after_a_resume_counts_what_the_rows_took(capsys):
    watch = ProgressDisplay("x")
    watch.remaining = RemainingTime(Run(), 10000)
    took = {"lr": 0.1, "seconds": 50.0, "check_seconds": 10.0, "train_robust": 0.5}
    for epoch in range(1, 100):  # rows that were there already, replayed in no time
        watch.row(EpochRow(epoch=epoch, **took))
    watch.step("train", 1, 1)
    watch.row(EpochRow(epoch=100, **took))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("epoch 100")
    assert line.endswith("1.7 h left")


def test_without_a_terminal_a_line_now_and_then_says_how_far_the_work_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 30.0)
    monkeypatch.setattr(progress, "SHORT", 5.0)
    now = [0.0]
    watch = ProgressDisplay("doctor", clock=lambda: now[0])
    lines = []
    for seconds, what, done in ((0.0, "read", 0), (6.0, "losses", 1), (7.0, "radii", 2), (35.0, "radii", 3)):
        now[0] = seconds
        watch.step(what, done, 9)
        lines.append(capsys.readouterr().err)
    assert lines == ["", "doctor: losses 1 of 9, 6 s so far\n", "", ""]
    now[0] = 36.5
    watch.tick()  # nothing is reported by what takes long itself
    assert capsys.readouterr().err == "doctor: radii 3 of 9, 36 s so far\n"
    now[0] = 1e5
    watch.step("steps", 4, 9)
    assert len(capsys.readouterr().err.splitlines()) == 1
    for seconds in range(100_000, 200_000, 10):
        now[0] = seconds
        watch.step("steps", 4, 9)
    assert len(capsys.readouterr().err.splitlines()) == 34  # a fiftieth of the time lies between two
