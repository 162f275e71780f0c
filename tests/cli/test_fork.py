"""`crossclass fork`: arms of one parent from the command line."""

import re
import shutil
from pathlib import Path

import pytest

from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.config import load_yaml
from crossclass.training.loop import iterate_epochs
from crossclass.training.run import Run
from run_file import TINY
from tiny_runs import CPU

MORE = ("runtime.threads=1", "runtime.device=cpu")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A folder with one finished run below `runs`, which kept its states."""
    place = tmp_path_factory.mktemp("place")
    run = load_yaml(Run, TINY, "tiny.yaml")
    *_, (folder, _) = iterate_epochs(run, place / "runs", "tiny-seed0", CPU, keep_state=[1, "best"])
    assert folder.done
    (place / "tiny.yaml").write_text(TINY)
    return place


@pytest.fixture
def parent(shared, tmp_path, monkeypatch) -> str:
    """The finished run, in a copy of that folder, as it is typed there."""
    shutil.copytree(shared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return str(next(Path("runs").glob("tiny-seed0-*")))


def test_arms_are_run_folders_that_the_same_command_finds_again(parent, call):
    words = ("fork", "runs/*-seed*@1", "label_smoothing=0,0.2", *MORE)
    code, out, err = call(*words)
    assert code == 0, err
    assert "going on from the parent after epoch 1" in err
    folders = [RunFolder(Path(line)) for line in out.split()]
    assert len({f.path for f in folders}) == 2
    assert all(f.done and f.path.parent == Path(parent).parent for f in folders)
    assert all(f.path.name.startswith("tiny-seed0-fork1-") for f in folders)
    assert [f"label_smoothing: {v}" in f.config() for f, v in zip(folders, ("0.0", "0.2"), strict=True)] == [
        True,
        True,
    ]
    code, out, err = call(*words)
    assert code == 0
    assert err.count("finished already") == 2
    assert out.split() == [str(f.path) for f in folders]


def test_another_kind_of_recipe_keeps_the_attack_of_its_parent(parent, call):
    """PGD-1 stays PGD-1 below kd and awp, and comes back from there; what differs is said."""
    for kind in ("kd", "awp", "at"):
        code, out, err = call("fork", f"{parent}@1", f"recipe.kind={kind}", *MORE)
        assert code == 0, err
        fork = load_yaml(Run, RunFolder(Path(out.strip())).config(), "config.yaml")
        assert fork.recipe.kind == kind
        assert fork.recipe.crafting_attack == load_yaml(Run, TINY, "").recipe.crafting_attack
        assert ("differs from its parent: in nothing" in err) == (kind == "at")
        assert "is trained first" not in err or kind == "kd"
    assert not list(Path("runs").glob("*teacher*"))  # the parent is the teacher


def test_train_goes_on_with_a_fork_and_the_table_names_what_differs(parent, call):
    code, out, err = call("fork", f"{parent}@1", "lr=0.01,0.02", *MORE)
    forks = out.split()
    code, again, err = call("train", forks[0], *MORE)
    assert code == 0, err
    assert Path(again.strip()).samefile(forks[0])
    code, table, err = call("table", *forks)
    assert code == 0, err
    assert table.splitlines()[0].split()[0] == "lr"
    assert [line.split()[0] for line in table.splitlines()[1:3]] == ["0.01", "0.02"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{parent}",), "name the epoch"),
        (("{parent}@0",), "name the epoch"),
        (("{parent}@nonsense",), "name the epoch"),
        (("{parent}@7",), r"kept no state of epoch 7 \(those kept: 1"),
        (("{parent}@1", "seed=3"), "seed"),
        (("{parent}@1", "model.width=8"), "width"),
        (("{parent}@1", "epochs=1", "lr_milestones=[]"), "epochs"),
        (("{parent}@1", "lr=0.1,0.1"), "the same run"),
        (("{parent}@1", "lr=-1"), "lr"),
        (("nowhere@1",), "no run folder"),
        (("nothing*@1",), "no run that kept a state"),
        ((), "name"),
    ],
)
def test_what_cannot_be_forked_is_one_sentence_and_trains_nothing(parent, call, words, said):
    before = sorted(Path("runs").iterdir())
    code, _, err = call("fork", *(w.format(parent=parent) for w in words), *MORE)
    assert code == 2
    assert re.search(said, err), err
    assert len(err.strip().splitlines()) <= 2
    assert sorted(Path("runs").iterdir()) == before


def test_a_finished_run_that_kept_no_such_state_says_what_to_do(parent, call):
    shutil.rmtree(Path(parent, "states"))
    code, out, err = call("train", "tiny.yaml", "keep_state=[best]", *MORE)
    assert (code, out) == (2, "")
    assert "no state of epoch best" in err
    code, out, err = call("train", "tiny.yaml", "keep_state=[1,2]", *MORE)
    assert (code, out) == (2, "")
    assert "another out=DIR" in err
