"""Every place where a name of code can be written, times every command that reads it: nothing of it runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import crossclass as cc
from conftest import pictures, tiny_net
from crossclass.checkpoints import load
from crossclass.checkpoints.card import load_tensors, save_tensors
from crossclass.cli import main, sweep
from crossclass.core.errors import UserError
from crossclass.training import loop
from run_file import TINY

MODULE = """
import pathlib
pathlib.Path("ran").touch()

def net(**_):
    pathlib.Path("ran").touch()

def attack(model, x, y, **_):
    pathlib.Path("ran").touch()
    return x
"""
SYSTEM = {"kind": "python", "call": "os:system", "arguments": {"command": "touch ran"}}
MODELS = {
    "a module": {"kind": "python", "call": "evil:net"},
    "a module as text": "python:evil:net",
    "os:system": SYSTEM,
}
ATTACK = {"kind": "external", "call": "evil:attack"}
CHANGES = {
    "a text": {"model": "python:evil:net"},
    "a mapping": {"model": SYSTEM},
    "a path": {"model.kind": "python", "model.call": "evil:net"},
    "an attack": {"recipe.attack.kind": "external", "recipe.attack.call": "evil:attack"},
}


def nested(depth: int, **inner: object) -> dict:
    """A recipe inside of `depth` times AWP."""
    recipe = dict(inner)
    for _ in range(depth):
        recipe = {"kind": "awp", "inner": recipe}
    return recipe


PLACES = {
    **{f"model: {name}": {"model": model} for name, model in MODELS.items()},
    **{
        f"attack of the recipe, depth {depth}": {"recipe": nested(depth, kind="at", attack=ATTACK)}
        for depth in range(4)
    },
    "attack of the recipe that a teacher shares": {
        "recipe": {"kind": "kd", "inner": {"kind": "at", "attack": ATTACK}}
    },
    "attack of the checks": {"validation": {"attack": ATTACK}},
    "attack of the full evaluation": {"validation": {"final": ATTACK}},
    **{
        f"a teacher's changes, {name}, depth {depth}": {
            "recipe": nested(depth, kind="kd", teachers=[{"changes": changes}])
        }
        for name, changes in CHANGES.items()
        for depth in (0, 1, 4)
    },
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with code in it that leaves a file `ran` when it is imported or called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("evil.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("evil", None)


@pytest.fixture
def gate_alone(monkeypatch):
    """Without the early questions, which only spare a person time."""
    for module in (loop, sweep, load):
        monkeypatch.setattr(module, "names_of_code", lambda plain: iter(()))


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as e:
        main(list(arguments))
    return int(e.value.code or 0)


def run_file(name: str, place: dict) -> str:
    run = yaml.safe_load(TINY)
    run["validation"] |= place.pop("validation", {}) if "validation" in place else {}
    Path(name).write_text(yaml.safe_dump(run | place))
    return name


def is_refused(capsys, *arguments: str) -> None:
    assert command(*arguments) == 2, arguments
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "asks to import and run" in said
    assert "evil:" in said or "os:system" in said
    assert "--trust" in said
    assert not Path("ran").exists()


@pytest.mark.parametrize("place", PLACES)
def test_a_run_file_is_no_consent(here, capsys, place):
    name = run_file("run.yaml", dict(PLACES[place]))
    assert command("show", name) == 0
    is_refused(capsys, "train", name)
    is_refused(capsys, "sweep", name, "seed=0,1")
    is_refused(capsys, "sweep", name, "seed=0,1", "plan=true")
    Path("grid.yaml").write_text(yaml.safe_dump({"run": name, "grid": {"seed": [0, 1]}}))
    is_refused(capsys, "sweep", "grid.yaml")


@pytest.mark.parametrize("place", PLACES)
def test_the_gate_alone_refuses(here, capsys, gate_alone, place):
    is_refused(capsys, "train", run_file("run.yaml", dict(PLACES[place])))


GRIDS = {
    "a model": {"model": ["python:evil:net"]},
    "its kind and call": {"model.kind": ["python"], "model.call": ["evil:net"]},
    "a model as a mapping": {"model": [SYSTEM]},
    "an attack": {"validation.final": [ATTACK]},
    "a list of teachers": {"recipe.kind": ["kd"], "recipe.teachers": [[{"changes": {"model": SYSTEM}}]]},
    "a list of teachers as text": {
        "recipe.kind": ["kd"],
        "recipe.teachers": ['[{changes: {model: "python:evil:net"}}]'],
    },
    "teachers, not in a list": {"recipe.kind": ["kd"], "recipe.teachers": [{"changes": {"model": SYSTEM}}]},
    "a wrapped recipe": {"recipe": [nested(2, kind="kd", teachers=[{"changes": {"model": SYSTEM}}])]},
}


@pytest.mark.parametrize("grid", GRIDS)
def test_the_grid_of_a_file_is_no_consent(here, capsys, grid):
    Path("tiny.yaml").write_text(TINY)
    Path("grid.yaml").write_text(yaml.safe_dump({"run": "tiny.yaml", "grid": GRIDS[grid]}))
    for more in ([], ["plan=true"]):
        assert command("sweep", "grid.yaml", *more) == 2
        assert not Path("ran").exists()
        assert "evil" not in sys.modules
    if "not in a list" not in grid:
        is_refused(capsys, "sweep", "grid.yaml")


def test_processes_of_a_sweep_have_the_consent_that_was_typed_and_no_other(here, capsys, gate_alone):
    """The grid's values stand among the arguments of the processes, where a person would have typed them."""
    Path("tiny.yaml").write_text(TINY)
    Path("grid.yaml").write_text(yaml.safe_dump({"run": "tiny.yaml", "grid": {"model": ["python:evil:net"]}}))
    assert command("sweep", "grid.yaml", "runtime.device=cpu") == 1
    assert "asks to import and run 'evil:net'" in capsys.readouterr().err
    assert not Path("ran").exists()
    assert command("sweep", "tiny.yaml", "model=python:evil:net", "runtime.device=cpu") == 1
    assert Path("ran").exists()  # typed


def test_a_file_beside_the_run_is_not_taken_for_a_library(here):
    Path("tiny.yaml").write_text(TINY)
    Path("yaml.py").write_text(MODULE)
    code = "from crossclass.cli import main; main(['sweep', 'tiny.yaml', 'seed=0'])"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
    assert not Path("ran").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of seconds, trained to its end, with its measurements and its page."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert command("train", "tiny.yaml") == 0
        place = next((folder / "runs").iterdir())
        assert command("measure", str(place), "n=9", "out=measure.json") == 0
    return folder


@pytest.fixture
def run(here, finished):
    """A copy of it that a test may change: its folder."""
    shutil.copytree(finished, here, dirs_exist_ok=True)
    return str(next(Path("runs").iterdir()))


def plant(run: str, model: object) -> None:
    """Name code in the card of every checkpoint."""
    for path in Path(run).rglob("*.safetensors"):
        if path.stem != "state":
            tensors, header = load_tensors(path)
            save_tensors(path, tensors, {**header, "model": model})


@pytest.mark.parametrize("name", ["x=python:evil:net", "x.call=evil:net", "model=python:evil:net"])
@pytest.mark.parametrize("behind", ["", "@last", "/"])
def test_the_name_of_a_folder_is_no_consent(here, run, capsys, name, behind):
    """A shell types it where a person typed `runs/*`."""
    plant(run, "python:evil:net")
    (Path(run) / "config.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(TINY) | {"model": "python:evil:net"})
    )
    Path(run).rename(name)
    capsys.readouterr()
    assert command("measure", name + behind, "n=9", "out=new.json") == 2
    assert not Path("ran").exists()
    assert "evil" not in sys.modules


PLANTED = [m for name, m in MODELS.items() if name != "a module as text"]


@pytest.mark.parametrize("model", PLANTED)
@pytest.mark.parametrize("early", [True, False])
def test_the_card_of_a_checkpoint_is_no_consent(run, capsys, request, model, early):
    plant(run, model)
    if not early:
        request.getfixturevalue("gate_alone")
    for target in (run, f"{run}@last", str(next(Path(run).rglob("last*.safetensors")))):
        is_refused(capsys, "measure", target, "n=9")
        is_refused(capsys, "doctor", f"{run}@last", "n=9")
    is_refused(capsys, "doctor", f"{run}@last", f"transfer={run}@last")
    taught = run_file("taught.yaml", {"recipe": {"kind": "kd", "teachers": [{"file": f"{run}@last"}]}})
    is_refused(capsys, "train", taught)
    for arguments in (["report", run], ["verify", run], ["show", "tiny.yaml"]):
        command(*arguments)
        assert not Path("ran").exists()
    with pytest.raises(UserError, match="--trust"):
        cc.load_model(Path(run) / "last.safetensors")


def test_the_settings_of_a_run_folder_and_of_results_are_no_consent(run, capsys):
    path = Path(run) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    kd = {"kind": "kd", "teachers": [{"changes": {"model": SYSTEM}}]}
    config |= {"model": SYSTEM, "recipe": kd}
    config["validation"] |= {"attack": ATTACK, "final": ATTACK}
    path.write_text(yaml.safe_dump(config))
    results = json.loads(Path("measure.json").read_text())
    for result in results["results"]:
        result |= {"model": SYSTEM, "attack": ATTACK, "conditions": {"attack": ATTACK}}
    Path("measure.json").write_text(json.dumps(results))
    for arguments in (
        ["measure", run, "n=9"],
        ["doctor", f"{run}@last"],
        ["report", run],
        ["report", "measure.json"],
        ["verify", run],
        ["train", "tiny.yaml"],
        ["show", str(path)],
    ):
        command(*arguments)
        assert not Path("ran").exists(), arguments
    is_refused(capsys, "train", str(path))


def test_a_study_reads_no_code_out_of_its_runs(here, capsys):
    study = ["reproduce", "fig3c", "size=smoke", "seeds=1"]
    assert command(*study) == 0
    capsys.readouterr()
    for run in Path("runs").iterdir():
        plant(str(run), MODELS["a module"])
    shutil.rmtree("results")
    is_refused(capsys, *study)


class TestConsent:
    """What a person can do to have code run."""

    def test_a_name_that_is_typed_is_consent_to_that_name_alone(self, here, capsys):
        name = run_file("run.yaml", {"validation": {"final": {"kind": "external", "call": "evil:attack"}}})
        is_refused(capsys, "train", name, "model=python:other:net")
        assert command("train", name, "validation.final.call=evil:attack") == 0
        assert Path("ran").exists()

    def test_trust_is_consent_to_all(self, here):
        run_file("run.yaml", dict(PLACES["attack of the checks"]))
        assert command("train", "run.yaml", "--trust") == 0
        assert Path("ran").exists()

    def test_in_python_it_is_given_by_name_or_wholly(self, here):
        attack, x, y = cc.External(call="evil:attack"), pictures(2), torch.tensor([0, 1])
        with pytest.raises(UserError, match="the attack asks to import and run 'evil:attack'"):
            attack(tiny_net(), x, y)
        with cc.trusting("evil:net"), pytest.raises(UserError, match="--trust"):
            attack(tiny_net(), x, y)
        assert not Path("ran").exists()
        with cc.trusting("evil:attack"):
            assert torch.equal(attack(tiny_net(), x, y), x)
        with pytest.raises(UserError, match="--trust"):
            attack(tiny_net(), x, y)
        with cc.trusting(everything=True):
            attack(tiny_net(), x, y)
