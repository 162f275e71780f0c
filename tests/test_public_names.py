"""The public names are typed for whoever uses them (that they exist, test_layers says)."""

import subprocess
import sys

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
cc.PGD(steps="many", loss=3)  # wrong
cc.measure(5)  # wrong
cc.train(cc.PGD())  # wrong
cc.no_such_name  # wrong
"""


def test_a_script_is_checked_by_the_types(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    wrong = {int(line.split(":")[1]) for line in lines if "error" in line}
    assert wrong == {n for n, line in enumerate(SCRIPT.splitlines(), 1) if "# wrong" in line}
    revealed = [line.partition('"')[2] for line in lines if "Revealed type" in line]
    assert len(revealed) == 6
    assert not [text for text in revealed if text.startswith("Any")]
