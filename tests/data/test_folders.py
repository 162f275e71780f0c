"""Folders of images: every format comes back, and every fault is one sentence."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crossclass.analysis.measure import Measure, measure
from crossclass.checkpoints.card import Card, save_checkpoint
from crossclass.checkpoints.load import Source
from crossclass.data import Folder
from crossclass.data.folders import read_folder
from crossclass.models import PreActResNet, build
from dataset_files import RGB, npz, refused, sound


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def folder_of_images(root: Path) -> Path:
    for i, name in enumerate(["train/b/2.png", "train/b/10.PNG", "train/a/x.bmp", "test/b/1.ppm"]):
        save(root / name, RGB[i])
    return root


def test_folder(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path)
    train, test = (sound(read_folder(root, split)) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("a", "b")
    np.testing.assert_array_equal(train.images, RGB[[2, 1, 0]])  # "10" sorts before "2"
    np.testing.assert_array_equal(train.labels, [0, 1, 1])
    np.testing.assert_array_equal(test.images, RGB[3:4])
    np.testing.assert_array_equal(test.labels, [1])  # though test has no folder of class a


def test_folder_of_every_format(tmp_path: Path) -> None:
    flat = np.full((4, 6, 3), 120, np.uint8)
    for suffix in ("png", "jpg", "JPEG", "webp", "bmp", "ppm", "tif", "TIFF"):
        save(tmp_path / f"train/a/{suffix}.{suffix}", flat)
    raw = sound(read_folder(tmp_path, "train"))
    assert len(raw.images) == 8
    assert np.abs(raw.images.astype(int) - 120).max() <= 2  # JPEG and WebP are lossy


def test_folder_of_every_mode(tmp_path: Path) -> None:
    """Gray is repeated, palettes are looked up, alpha is dropped; none of them warns."""
    gray = np.full((4, 6), 85, np.uint8)
    rgba = np.dstack([RGB[0], np.arange(24, dtype=np.uint8).reshape(4, 6)])
    save(tmp_path / "train/a/0.png", gray)
    save(tmp_path / "train/a/1.png", rgba)
    palette = Image.fromarray(gray // 85)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "train/a/2.png", transparency=bytes([7, 9]))
    Image.fromarray(gray > 0).save(tmp_path / "train/a/3.png")
    images = sound(read_folder(tmp_path, "train")).images
    np.testing.assert_array_equal(images[0], np.dstack([gray] * 3))
    np.testing.assert_array_equal(images[1], RGB[0])
    assert (images[2] == [10, 20, 30]).all()
    assert (images[3] == 255).all()


def test_folder_ignores_what_is_no_image(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path)
    for name in (".DS_Store", "a/.hidden.png", "a/notes.txt", "a/._x.bmp", "loose.png", ".git/x.png"):
        path = root / "train" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    (root / "train/a/folder.png").mkdir()
    raw = read_folder(root, "train")
    assert raw.class_names == ("a", "b")
    assert len(raw.images) == 3


def test_folder_without_train_takes_the_split_itself(tmp_path: Path) -> None:
    save(tmp_path / "test/z/1.png", RGB[0])
    assert read_folder(tmp_path, "test").class_names == ("z",)


def test_folder_missing(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    refused(read_folder, absent, "train", says=(str(absent), "no such folder", "data.path"))
    says = (str(tmp_path / "train"), "no such folder", "put images into train/<class>")
    refused(read_folder, tmp_path, "train", says=says)
    npz(tmp_path)
    refused(read_folder, tmp_path, "train", says=(*says, "data.kind=npz"))
    (tmp_path / "cifar-10-batches-py").mkdir()
    refused(read_folder, tmp_path, "train", says=(*says, "data.kind=cifar10"))


def test_folder_empty(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    says = (str(tmp_path / "train"), "no class folders", "put images into train/<class>")
    refused(read_folder, tmp_path, "train", says=says)
    save(tmp_path / "train/a/images/1.png", RGB[0])
    says = (str(tmp_path / "train" / "a"), "holds no images", "add some or remove it")
    refused(read_folder, tmp_path, "train", says=says)
    (tmp_path / "test/a").mkdir(parents=True)
    says = (str(tmp_path / "test"), "images", "put images into test/<class>")
    refused(read_folder, tmp_path, "test", says=says)


def test_folder_of_an_unknown_class(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path)
    save(root / "train/zebra/1.png", RGB[0])
    save(root / "test/zebras/1.png", RGB[0])
    says = (str(root / "test/zebras"), "no class of", str(root / "train"), "did you mean 'zebra'")
    refused(read_folder, root, "test", says=says)


def test_folder_of_unequal_sizes(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path)
    save(root / "train/b/15.png", RGB[0, :3])
    save(root / "train/b/16.png", RGB[0, :, :3])
    first, odd = root / "train/a/x.bmp", root / "train/b/15.png"
    says = (str(odd), "6 x 3", str(first), "6 x 4", "one size")
    assert refused(read_folder, root, "train", says=says).startswith(f"{odd}:")


def test_folder_of_unreadable_images(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path)
    bad = root / "train/b/2.png"
    whole = bad.read_bytes()
    for data in (b"", b"hello", whole[: len(whole) // 2], whole[:-40]):
        bad.write_bytes(data)
        refused(read_folder, root, "train", says=(str(bad), "no readable image", "save it again"))


def test_folder_of_more_bits_is_not_clipped(tmp_path: Path) -> None:
    save(tmp_path / "train/a/1.png", np.full((4, 6), 3000, np.uint16))
    says = (str(tmp_path / "train/a/1.png"), "I;16", "8 bits")
    refused(read_folder, tmp_path, "train", says=says)


@pytest.mark.parametrize("side", [10_000, 60_000], ids=["Pillow warns", "Pillow raises"])
def test_folder_with_a_decompression_bomb(tmp_path: Path, side: int) -> None:
    """A PNG of a hundred bytes whose header announces side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path = tmp_path / "train/a/bomb.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)
    refused(read_folder, tmp_path, "train", says=(str(path), "DecompressionBomb", "remove it"))


def test_folder_that_does_not_fit_or_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder_of_images(tmp_path)

    def no_memory(*_: Any, **__: Any) -> np.ndarray:
        raise MemoryError("Unable to allocate 193 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", no_memory)
        refused(read_folder, root, "train", says=("3 images", "6 x 4", "193 GiB", "use fewer"))

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    says = (str(root / "train"), "Permission denied", "check its permissions")
    refused(read_folder, root, "train", says=says)


def test_a_folder_of_test_images_is_enough_to_measure(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "test" / name / "a.png")
    splits = Folder(path=tmp_path)()
    assert (len(splits.train), len(splits.test)) == (0, 2)
    assert splits.class_names == ("cat", "dog")


def half_odd(root: Path, odd: str) -> Path:
    """Eight images of two classes, every second of another kind."""
    for i in range(8):
        folder = root / "test" / "ab"[i // 4]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8))
        if i % 2 == 0:
            image.save(folder / f"{i}.png")
        elif odd == "pgm":
            image.convert("L").save(folder / f"{i}.pgm")
        elif odd == "jfif":
            image.save(folder / f"{i}.jfif", "JPEG")
        elif odd == "no ending":
            image.save(folder / f"{i}", "PNG")
        elif odd == "sub-folder":
            (folder / "more").mkdir(exist_ok=True)
            image.save(folder / "more" / f"{i}.png")
        elif odd == "other files":
            (folder / f"{i}.txt").write_text("no image")
        else:
            (folder / f"{i}.png").symlink_to("gone.png")
    return root


@pytest.mark.parametrize("odd", ["pgm", "jfif", "no ending"])
def test_images_are_read_whatever_their_names(tmp_path: Path, odd: str) -> None:
    """Half of them was left out without a word."""
    read = sound(read_folder(half_odd(tmp_path, odd), "test"))
    assert (len(read.images), read.left_out) == (8, "")


@pytest.mark.parametrize(("odd", "why"), [("sub-folder", "sub-folder"), ("other files", "no images")])
def test_what_is_left_out_is_counted_beside_the_number(tmp_path: Path, odd: str, why: str) -> None:
    splits = Folder(path=half_odd(tmp_path, odd))()
    (said,) = splits.left_out_of("test")
    assert said.startswith("4 of 8 files in test/ were left out: 4")
    assert why in said
    assert str(tmp_path) not in said
    assert splits.left_out_of("train") == splits.left_out_of("val") == []
    assert splits.to(torch.device("cpu")).left_out == splits.left_out
    network = PreActResNet(width=4, stem_stride=2, blocks=(1,))
    save_checkpoint(
        tmp_path / "a.safetensors",
        build(network, splits.test.images, 2, 0).state_dict(),
        Card(checkpoint="a", epoch=1, model=network, classes=2, channels=3, size=16),
    )
    settings, source = Measure(clean=True, check_inputs=False), Source(data=Folder(path=tmp_path))
    (result,) = measure([str(tmp_path / "a.safetensors")], settings, source).results
    assert said in result.warnings


def test_hidden_files_are_not_counted(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path)
    for name in ("test/b/.DS_Store", "test/.notes"):
        (root / name).write_text("x")
    assert read_folder(root, "test").left_out == ""


def test_a_link_to_nothing_is_a_sentence(tmp_path: Path) -> None:
    refused(read_folder, half_odd(tmp_path, "links"), "test", says=("link to nothing", "1.png"))
