"""The public names: the same for type checkers and at run time, and typed for whoever uses them."""

import ast
import subprocess
import sys
from pathlib import Path

import crossclass

SCRIPT = """\
from pathlib import Path
import crossclass as cc

attack = cc.PGD(threat=cc.Linf(eps=8 / 255), steps=20)
run = cc.Run(recipe=cc.AT(attack=attack), seed=1)
folder = cc.train(run, out="runs")
results = cc.measure(["a.pt"], cc.Measure(n=500), runtime=cc.Runtime(device="cpu"))
record = cc.load_run(Path("runs/a"))
reveal_type(attack)
reveal_type(run.recipe)
reveal_type(folder)
reveal_type(results)
reveal_type(record)
reveal_type(cc.override(run, {"seed": 2}))
"""
WRONG = """\
import crossclass as cc

cc.PGD(steps="many", loss=3)
cc.measure(5)
cc.train(cc.PGD())
cc.no_such_name
"""


def test_type_checkers_and_run_time_see_the_same_names():
    tree = ast.parse(Path(crossclass.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {name: f"crossclass.{module}" for name, module in crossclass._WHERE.items()}
    assert all(getattr(crossclass, name) is not None for name in typed)


def mypy(tmp_path: Path, script: str) -> list[str]:
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if line.startswith("script.py")]


def test_a_script_is_checked_by_the_types(tmp_path):
    lines = mypy(tmp_path, SCRIPT)
    assert not [line for line in lines if "error" in line]
    revealed = [line.partition('"')[2] for line in lines if "Revealed type" in line]
    assert len(revealed) == 6
    assert not [text for text in revealed if text.startswith("Any")]


def test_wrong_arguments_are_errors(tmp_path):
    wrong = {line.split(":")[1] for line in mypy(tmp_path, WRONG) if "error" in line}
    assert {"3", "4", "5", "6"} <= wrong
