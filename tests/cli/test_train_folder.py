"""`crossclass train RUN` goes on with a run from its folder."""

from pathlib import Path

import numpy as np
import pytest

from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.config import load_yaml
from crossclass.training.loop import iterate_epochs
from crossclass.training.run import Run
from run_file import TINY
from tiny_runs import CPU


@pytest.fixture
def begun(tmp_path, monkeypatch) -> Path:
    """A run on images in files that was stopped after its first epoch."""
    monkeypatch.chdir(tmp_path)
    Path("set #2").mkdir()
    for part in ("train", "test"):
        pictures = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
        np.savez(f"set #2/{part}.npz", images=pictures, labels=np.arange(24) % 3)
    rest = TINY.splitlines()[1:]
    run = load_yaml(Run, "\n".join(["data: {kind: npz, path: 'set #2', n_val: 8}", *rest]), "f")
    epochs = iterate_epochs(run, "runs", "r", CPU)
    folder, _ = next(epochs)
    epochs.close()
    return folder.path


def test_it_goes_on_where_the_images_lay(begun, call):
    code, out, err = call("train", str(begun), "runtime.threads=1")
    assert (code, Path(out.strip())) == (0, begun.absolute()), err
    assert RunFolder(begun).done
    assert [row["epoch"] for row in RunFolder(begun).rows()] == [1, 2]
    assert len(list(Path("runs").iterdir())) == 1
    code, out, err = call("train", str(begun))
    assert (code, Path(out.strip())) == (0, begun.absolute())
    assert "finished already" in err


def test_a_folder_may_have_been_renamed_and_the_images_moved(begun, call):
    Path("set #2").rename("elsewhere")
    renamed = begun.rename(Path("runs/mine"))
    assert call("train", "runs/mine")[0] == 2
    code, _, err = call("train", "runs/mine", "data.path=elsewhere", "epochs=2", "runtime.threads=1")
    assert code == 0, err
    assert RunFolder(renamed).done
    assert [p.name for p in Path("runs").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("change", "word"), [("epochs=3", "epochs"), ("seed=1", "seed"), ("out=other", "out")]
)
def test_a_change_of_what_it_computes_is_refused(begun, call, change, word):
    before = {p: p.stat().st_mtime_ns for p in Path().rglob("*")}
    code, out, err = call("train", str(begun), change)
    assert (code, out) == (2, "")
    assert word in err
    assert err.count("\n") == 1
    assert {p: p.stat().st_mtime_ns for p in Path().rglob("*")} == before


def test_other_images_are_refused(begun, call):
    other = np.zeros((24, 16, 16, 3), np.uint8)
    other[::2] = 90
    np.savez("set #2/train.npz", images=other, labels=np.arange(24) % 3)
    code, _, err = call("train", str(begun))
    assert code == 2
    assert "checksum" in err
    assert len(list(Path("runs").iterdir())) == 1
