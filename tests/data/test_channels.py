"""Gray pictures for networks of one channel, and colour for them only on request."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crossclass import models
from crossclass.analysis.measure import Measure, measure
from crossclass.attacks import PGD
from crossclass.checkpoints.card import load_checkpoint
from crossclass.checkpoints.load import Source
from crossclass.core.errors import UserError
from crossclass.data import Folder, as_float
from crossclass.data.folders import read_folder
from crossclass.models import Python
from crossclass.training.loop import iterate_epochs
from crossclass.training.recipes import AT
from networks import THIN
from odd_states import OneChannel
from tiny_runs import CPU, TINY

pytestmark = pytest.mark.usefixtures("trusted")
NETWORK = Python(call="odd_states:OneChannel", normalise="none")
COLOURS = ("RGB", "RGBA", "CMYK", "P")


def pictures(root: Path, colour: str | None = None, sides: tuple[int, int] = (16, 16)) -> Path:
    """Gray pictures of three classes in all modes that are gray, of which some are in colour if so told."""
    for part, n in (("train", 12), ("test", 9)):
        for i in range(n):
            folder = root / part / "abc"[i % 3]
            folder.mkdir(parents=True, exist_ok=True)
            levels = np.random.default_rng(i).integers(0, 120, sides) + 60 * (i % 3)
            gray = Image.fromarray(levels.astype(np.uint8))
            image = gray.convert(("L", "LA", "P", "RGB", "RGBA")[i % 5])
            if colour is not None and i == n - 1:
                tinted = np.dstack([levels, levels // 2, levels]).astype(np.uint8)
                image = Image.fromarray(tinted).convert(colour)
            image.save(folder / (f"{i}.tif" if image.mode == "CMYK" else f"{i}.png"))
    return root


def weights_file(path: Path) -> tuple[Path, OneChannel]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = OneChannel(3).eval()
    torch.save(net.state_dict(), path / "a.pth")
    return path / "a.pth", net


def test_a_network_of_one_channel_is_measured_on_gray_pictures(tmp_path: Path) -> None:
    data = Folder(path=pictures(tmp_path / "data"))
    file, net = weights_file(tmp_path)
    source = Source(data=data, model=NETWORK)
    found = measure([str(file)], Measure(attack=PGD(steps=1), check_inputs=False), source).results[0]
    test = data().test
    right = (net(as_float(test.images[:, :1])).argmax(1) == test.labels).double().mean()
    assert found["clean"] == pytest.approx(float(right))
    assert any("one channel" in note for note in found.loaded)
    same = Source(data=data.replace(channels=1), model=NETWORK)
    again = measure([str(file)], Measure(attack=PGD(steps=1), check_inputs=False), same).results[0]
    assert again["clean"] == found["clean"]
    assert not any("one channel" in note for note in again.loaded)


@pytest.mark.parametrize("colour", COLOURS)
def test_pictures_in_colour_are_converted_on_request_only(colour: str, tmp_path: Path) -> None:
    data = Folder(path=pictures(tmp_path / "data", colour))
    file, net = weights_file(tmp_path)
    settings = Measure(clean=True, check_inputs=False)
    for asked in (data, data.replace(channels=1)):
        with pytest.raises(UserError, match="in colour") as e:
            measure([str(file)], settings, Source(data=asked, model=NETWORK))
        assert "data.to_gray=true" in str(e.value)
        assert str(e.value).isprintable()
    gray = data.replace(channels=1, to_gray=True)
    found = measure([str(file)], settings, Source(data=gray, model=NETWORK)).results[0]
    test = gray().test
    assert test.images.shape[1] == 1
    right = (net(as_float(test.images)).argmax(1) == test.labels).double().mean()
    assert found["clean"] == pytest.approx(float(right))


def test_a_network_of_three_channels_gets_gray_repeated(tmp_path: Path) -> None:
    images = Folder(path=pictures(tmp_path))().test.images
    assert images.shape[1] == 3
    assert torch.equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize("model", [NETWORK, THIN.replace(normalise="none")], ids=["python", "built in"])
def test_training_on_gray_pictures(model: models.AnyModel, tmp_path: Path) -> None:
    built_in = model is not NETWORK
    data = Folder(path=pictures(tmp_path / "data"), channels=1 if built_in else None)
    short = {"epochs": 1, "lr_milestones": (), "batch": 6, "checkpoint_every": 0}
    run, log = TINY.replace(data=data, model=model, recipe=AT(attack=PGD(steps=1)), **short), list[str]()
    *_, (folder, _) = iterate_epochs(run, tmp_path / "runs", "x", CPU, log=log.append)
    assert load_checkpoint(folder.checkpoint("last"))[1].channels == 1
    assert any("one channel" in line for line in log) != built_in
    found = measure([f"{folder.path}@last"], Measure(clean=True)).results[0]
    final = [
        r for r in folder.read("measure.json")["results"] if r.get("checkpoint", {}).get("name") == "last"
    ]
    assert found["clean"] == pytest.approx(final[0]["clean"])


def test_more_than_eight_bits_and_several_frames_are_refused(tmp_path: Path) -> None:
    root = pictures(tmp_path)
    extra = root / "test/a/x.tif"
    Image.fromarray(np.full((16, 16), 3000, np.uint16)).save(extra)
    with pytest.raises(UserError, match="8 bits"):
        read_folder(root, "test")
    frames = [Image.new("L", (16, 16), v) for v in (0, 99)]
    for name in ("x.tif", "x.gif"):
        extra.unlink()
        extra = extra.with_name(name)
        frames[0].save(extra, save_all=True, append_images=frames[1:])
        with pytest.raises(UserError, match="holds 2 frames"):
            read_folder(root, "test")


def test_to_gray_is_for_one_channel() -> None:
    with pytest.raises(ValueError, match="channels=1"):
        Folder(to_gray=True)


def test_links_to_nothing_among_the_classes_are_no_class_less(tmp_path: Path) -> None:
    root = pictures(tmp_path)
    (root / "train/d").symlink_to("gone")
    with pytest.raises(UserError, match="link to nothing"):
        read_folder(root, "train")


def test_classes_that_differ_in_case_only_are_asked_about(tmp_path: Path) -> None:
    root = pictures(tmp_path)
    (root / "train/A").mkdir()
    Image.new("L", (16, 16)).save(root / "train/A/1.png")
    with pytest.raises(UserError, match="differ in case only"):
        read_folder(root, "train")
