"""The documentation is true: every command and every block of Python in docs/ runs, on made images.

A page is run from its top to its end in a folder of its own. `crossclass train` and `demo` get the run that
the command names, made small; `sweep` is planned, but for that of its own page; what wants another machine, a
cluster or minutes is only checked for its names.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import torch

import crossclass
from crossclass import cli
from crossclass.core.config import replace_everywhere
from crossclass.data import Digits, Npz, Shapes
from crossclass.models import PreActResNet
from crossclass.paper import runs
from crossclass.training.run import Run, Validation

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.S | re.M)
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
DIGEST = "1a2b3c4d5e6f"
ELSEWHERE = ("pip", "torchrun", "make", "python", "sh")
ATTACK = "def noise(model, x, y, size):\n    return (x + size * (2 * (x > 0.5) - 1)).clamp(0, 1)\n"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """What the pages take for granted: images, checkpoints, a file of networks, a sweep file."""
    place = tmp_path_factory.mktemp("shelf")
    rng = np.random.default_rng(0)
    (place / "DIR").mkdir()
    for split, n in (("train", 120), ("test", 60)):
        images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        labels = {"labels": np.arange(n) % 10, "class_names": np.array(NAMES)}
        np.savez(place / "DIR" / f"{split}.npz", images=images, **labels)
    shutil.copy(ROOT / "examples" / "my_nets.py", place)
    (place / "my_attack.py").write_text(ATTACK)
    (run_file,) = (code for kind, code in blocks(ROOT / "docs" / "sweeps.md") if kind == "yaml")
    (place / "tiny.yaml").write_text(run_file.replace("24\nlr_milestones: [12, 18]", "2\nlr_milestones: [1]"))
    (place / "grid.yaml").write_text("run: cifar10-mini\ngrid: {lr: [0.1, 0.01]}\n")
    net = PreActResNet(width=4, normalise="cifar10")(10, 3, (0.5,) * 3, (0.25,) * 3)
    for i, name in enumerate(("best.pth", "last.pth", "official.pth")):
        torch.manual_seed(i)
        state = {k: v + 0.01 * torch.randn(v.shape) if v.ndim > 1 else v for k, v in net.state_dict().items()}
        state = {k: v for k, v in state.items() if k not in ("mean", "std")}
        if name == "official.pth":
            state = {k.replace("head.", "linear."): v for k, v in state.items()}
        torch.save(state, place / name)
    sys.path.insert(0, str(place))
    try:
        import my_nets

        for make, name in ((my_nets.resnet4b, "resnet4b"), (my_nets.resnet20, "resnet20-12fca82f")):
            state = make().state_dict()
            np.savez(place / f"{name}.npz", **{k: v.numpy() for k, v in state.items()})
    finally:
        sys.path.remove(str(place))
        sys.modules.pop("my_nets", None)
    return place


@pytest.fixture
def place(shelf, tmp_path, monkeypatch):
    """A copy of the shelf to work in, where runs that commands name are small."""
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "resolve", lambda *a, **k: small(*real(*a, **k)))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_nets", "my_attack"):
        sys.modules.pop(name, None)


real = runs.resolve


def small(label: str, run: Run) -> tuple[str, Run]:
    """The same run, done in a second or two."""
    run = replace_everywhere(run, steps=1)
    if isinstance(run.model, PreActResNet):
        run = run.replace(model=run.model.replace(width=4, stem_stride=2, blocks=(1, 1)))
    data = run.data
    if isinstance(data, Shapes):
        data = data.replace(n_train=60, n_val=20, n_test=20)
    elif not isinstance(data, Digits):  # archives are not at hand; their images come as npz here
        data = Npz(path=data.path, n_val=30)  # below 100 images nobody asks what a teacher knows
    check = Validation(n=20, attack=run.validation_attack(), final=run.final_attack())
    past = run.ensembling and run.ensembling.replace(start=1, ramp=1)
    return label, run.replace(
        ensembling=past, data=data, epochs=2, lr_milestones=(), batch=32, validation=check, checkpoint_every=0
    )


def blocks(path: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(path.read_text())


def lines(code: str) -> list[list[str]]:
    """The words of every command of a block."""
    every = (shlex.split(line, comments=True) for line in code.splitlines())
    return [list(takewhile(lambda word: word not in (">", ">>"), words)) for words in every if words]


def named(word: str) -> str:
    """The word with the digest of the run that is there in place of the one shown."""
    for shown in re.findall(rf"[\w./-]+-{DIGEST}", word):
        (there,) = Path().glob(shown.replace(DIGEST, "*"))
        word = word.replace(shown, str(there))
    return word


def run_command(words: list[str]) -> None:
    words = [named(w) for w in words]
    arguments = [a for w in words for a in (sorted(map(str, Path().glob(w))) if "*" in w else [w])]
    assert len(arguments) >= len(words), f"nothing is called {words}"
    if arguments[0] == "sweep" and arguments[1] != "tiny.yaml":  # that one is trained
        arguments = [a for a in arguments if not a.startswith(("jobs=", "slurm=", "plan="))] + ["plan=true"]
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(arguments)
        except SystemExit as e:
            code = e.code or 0
    allowed = (0, 1) if arguments[0] in ("verify", "doctor") else (0,)
    assert code in allowed, f"crossclass {' '.join(arguments)}: {err.getvalue()}{out.getvalue()}"
    assert out.getvalue(), f"crossclass {' '.join(arguments)} printed nothing"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_what_a_page_shows_runs(page, place):
    for kind, code in blocks(page):
        if kind == "python":
            told = io.StringIO()
            with contextlib.redirect_stdout(told):
                exec(compile(code, str(page), "exec"), {"__name__": "page"})
            assert told.getvalue(), f"this prints nothing:\n{code}"
        elif kind == "bash":
            for words in lines(code):
                if words[0] == "crossclass":
                    run_command(words[1:])
                else:
                    assert words[0] in ELSEWHERE, words


def test_pages_show_only_what_a_test_can_read():
    for page in PAGES:
        fences = re.findall(r"^```(\S*)", page.read_text(), flags=re.M)[::2]
        known = {"python", "bash", "text", "yaml", "{toctree}", "{code-block}"}
        assert set(fences) <= known, f"{page.name}: {set(fences) - known}"


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs"]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    commands, api = ((tmp_path / f"{name}.html").read_text() for name in ("cli", "api"))
    for command in cli.names():
        assert f"crossclass {command}" in commands
    for name in crossclass.__all__:
        assert f".{name}" in api or f">{name}<" in api, name


def example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ENV)


ENV = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def test_a_plain_loop_measures_and_leaves_a_checkpoint_to_measure(place):
    done = example("plain_loop.py", "DIR", "1")
    assert re.fullmatch(r"epoch 1: robust accuracy \d+\.\d%, CAS \d+\.\d\d\n", done.stdout), done.stderr
    shutil.copy(ROOT / "examples" / "plain_loop.py", place)
    told = "model=python:plain_loop:network model.normalise=none data.path=DIR n=20 attack.steps=1"
    run_command(["measure", "net.safetensors", *told.split()])


def test_the_notebook_runs_as_a_script():
    done = example("first_look.py")
    assert done.returncode == 0, done.stderr
    assert "95 % interval of CAS: (" in done.stdout
    assert "finished, epoch=12" in done.stdout


def test_lightning_is_served_by_the_same_objects(place):
    pytest.importorskip("lightning")
    done = example("lightning_module.py", "DIR", "1")
    assert done.returncode == 0, done.stderr
    assert "robust accuracy per class: [" in done.stdout
