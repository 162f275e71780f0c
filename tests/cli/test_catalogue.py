"""`list`, `show`, help and wrong names answer without torch, from a file that says what the code says."""

import json
import subprocess
import sys

import pytest
import yaml

from crossclass.cli import catalogue, main, names
from crossclass.cli.write_catalogue import compute
from crossclass.core.config import load_yaml
from crossclass.paper.runs import NAMED
from crossclass.training.run import Run


def test_the_file_is_what_the_code_says():
    # if not: python -m crossclass.cli.write_catalogue
    assert json.loads(catalogue.PATH.read_text(encoding="utf-8")) == json.loads(
        json.dumps(compute()._asdict())
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list"], "cifar10-mini"),
        (["show", "cifar10-mini"], "steps: 7"),
        (["show", "fig1"], "wei2025-at-linf-8"),
        (["show", "pgdd"], "did you mean 'pgd'"),
        (["train", "cifar10-mimi"], "did you mean 'cifar10-mini'"),
        (["sweep", "cifar10-mimi", "seed=0,1"], "did you mean 'cifar10-mini'"),
        (["help", "train"], "epochs=200"),
    ],
)
def test_it_answers_without_torch(arguments, words):
    code = (
        "import sys; from crossclass.cli import main\n"
        f"try: main({arguments})\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False"
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMED)
def test_what_show_prints_is_the_run(name, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")  # as at the start of a command
    found = catalogue.catalogue()
    monkeypatch.undo()
    text = "\n".join(catalogue.commented(found.settings[name], found.class_of[name]))
    assert load_yaml(Run, text, name) == NAMED[name]
    comments = [line for line in text.splitlines() if "  # " in line]
    assert len(comments) == len(text.splitlines()), "a setting without its meaning"


def test_settings_of_a_kind_are_explained_by_its_own_class():
    found = compute()
    for name in ("shapes", "folder", "kd"):
        text = "\n".join(catalogue.commented(found.settings[name], found.class_of[name]))
        assert "  # " in text
        assert yaml.safe_load(text)["kind"] == name
    text = "\n".join(
        catalogue.commented([["arguments.depth", "20"], ["call", "a:b"]], found.class_of["python"])
    )
    assert "  depth: 20" in text.splitlines()  # an argument of somebody's function has no docstring


@pytest.mark.parametrize("command", names())
def test_help_has_examples_and_lists_settings(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["help", command])
    out = capsys.readouterr().out
    assert out.count(f"  crossclass {command}") >= (3 if command not in ("list", "schema") else 2)
    assert ("Settings (path=value)" in out) == (command in compute().commands)
    assert max(len(line) for line in out.splitlines() if "crossclass" not in line) <= 80
