"""What the Tab key offers, and that the shells take it."""

import shutil
import subprocess
import sys

import pytest

from crossclass.cli import main, names
from crossclass.cli.completion import offers

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a run, a checkpoint and a run file."""
    run = tmp_path / "runs" / "demo-seed0-1234"
    run.mkdir(parents=True)
    for name in ("config.yaml", "last.safetensors", "best.val.safetensors"):
        (run / name).touch()
    for name in ("robust.pt", "mine.yaml", "a b.pt", ".hidden"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(line):
    return [word for word, _ in offers(line.split(" "))]


def test_commands():
    assert {*names(), "help"} <= set(offered(""))
    assert offered("tra") == offered("help tra") == ["train"]
    assert offered("nothing x") == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train shapes", ["shapes-demo"]),
        ("show cor", ["cor1"]),
        ("reproduce thm", ["thm1", "thm2", "thm3"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("train cifar10-mini epo", ["epochs="]),
        ("train cifar10-mini recipe.att", ["recipe.attack=", "recipe.attack."]),
        ("train cifar10-mini runtime.thr", ["runtime.threads="]),
        ("measure attack=", ["attack=pgd", "attack=fgsm", "attack=autoattack", "attack=external"]),
        ("measure model.kind=wide", ["model.kind=wideresnet"]),
        ("train cifar10-mini norm=", ["norm=linf", "norm=l2"]),
        ("train cifar10-mini stop_on_alarms=", []),
        ("measure clean=", ["clean=true", "clean=false"]),
        ("measure --tr", ["--trust"]),
        ("demo seed=1 see", []),  # it is given already
        ("measure cha", []),  # only in Python
        ("verify x y", []),
    ],
)
def test_names_settings_and_values(line, words, folder):
    assert [word for word in offered(line) if not word.endswith("=null")] == words


def test_the_settings_are_those_of_the_kind_that_is_typed_or_of_the_run():
    assert "recipe.beta=" not in offered("train cifar10-mini recipe.")
    assert "recipe.beta=" in offered("train cifar10-mini recipe.kind=trades recipe.")
    assert "recipe.beta=" in offered("train trades recipe.")
    assert "recipe.beta=" in offered("train mine.yaml recipe.")  # it may be any
    assert "steps=" in offered("show pgd ")
    assert "epochs=" not in offered("show pgd ")


def test_a_sweep_goes_on_behind_a_comma():
    assert offered("sweep cifar10-mini recipe.kind=at,tr") == ["recipe.kind=at,trades"]
    assert offered("train cifar10-mini recipe.kind=at,tr") == []


def test_files_runs_and_checkpoints(folder):
    assert offered("measure ro") == ["robust.pt"]
    assert "robust.pt" not in offered("train ")
    assert {"mine.yaml", "runs/", "cifar10-mini"} <= set(offered("train "))
    assert ".hidden" not in offered("measure ")
    assert offered("measure runs/") == ["runs/demo-seed0-1234"]
    run = "runs/demo-seed0-1234"
    assert offered(f"measure {run}@") == [f"{run}@best.val", f"{run}@last"]
    assert offered("measure data.path=ru") == ["data.path=runs/"]
    assert offered("measure nowhere/x") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed(shell, call):
    code, out, _ = call("completion", shell)
    assert code == 0
    assert f"completion {shell} --" in out
    if path := shutil.which(shell):
        subprocess.run([path, "-n"], input=out, text=True, check=True)


def test_an_unknown_shell_is_refused(call):
    code, _, err = call("completion", "tcsh")
    assert code == 2
    assert "tcsh" in err


def test_it_needs_no_torch():
    code = (
        "import sys; from crossclass.cli import main\n"
        "try: main(['completion', 'zsh', '--', 'train', 'cifar10-mini', 'norm='])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[0].startswith("norm=linf\t")
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("crossclass tra", ["train "]),
        ("crossclass measure attack=auto", ["autoattack "]),
        ("crossclass train cifar10-mini recipe.kind=tr", ["trades "]),
        ("crossclass measure data.path=ru", ["runs/"]),
        ("crossclass measure runs/demo-seed0-1234@l", ["@last "]),
        ("crossclass measure a", ["a\\ b.pt ", "attribution_subset=", "attack=", "attack."]),
        ("crossclass measure a\\ b", ["a\\ b.pt "]),
    ],
)
def test_bash_replaces_only_what_stands_behind_its_word_break(line, replies, folder):
    program = folder / "crossclass"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m crossclass "$@"\n')
    program.chmod(0o755)
    script = subprocess.run([program, "completion", "bash"], capture_output=True, text=True, check=True)
    call = f"COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _crossclass {program}"
    breaks = "COMP_WORDBREAKS=$' \\t\\n\"\\'@><=;|&(:'"
    code = f"{script.stdout}\n{breaks}\n{call}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "--norc"], input=code, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == sorted(replies)


def test_a_word_with_a_dash_is_a_word(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "fish", "--", "measure", "--he"])
    assert capsys.readouterr().out.startswith("--help\t")
