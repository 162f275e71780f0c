"""Readers: made files of every layout come back exactly, and every fault is one sentence."""

import hashlib
import io
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from crossclass.errors import UserError
from crossclass.readers import (
    Raw,
    checksum,
    cifar,
    read_cifar10,
    read_cifar100,
    read_digits,
    read_folder,
    read_npz,
    read_tiny_imagenet,
    tiny_imagenet,
)
from crossclass.readers import (
    archive as archives,
)
from crossclass.readers.cifar import CIFAR10, CIFAR100

RGB = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 0])


def refused(call: Callable[..., Raw], *arguments: Any, says: tuple[str, ...]) -> str:
    """The message of the UserError that `call` must raise: one line that says all of `says`."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.isprintable()
    assert "\n" not in message
    assert len(message) < 1000
    for part in says:
        assert part in message, f"{part!r} is not in {message!r}"
    return message


def sound(raw: Raw) -> Raw:
    """What every reader promises about what it returns."""
    assert raw.images.dtype == np.uint8
    assert raw.images.ndim == 4
    assert raw.images.shape[3] in (1, 3)
    assert raw.images.flags.c_contiguous
    assert raw.labels.dtype == np.int64
    assert raw.labels.shape == raw.images.shape[:1]
    assert raw.labels.min() >= 0
    assert raw.labels.max() < len(raw.class_names)
    assert all(type(name) is str for name in raw.class_names)
    return raw


# npz


def npz(folder: Path, split: str = "train", **arrays: Any) -> Path:
    np.savez(folder / f"{split}.npz", **{"images": RGB, "labels": LABELS, **arrays})
    return folder / f"{split}.npz"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (RGB, RGB),
        (RGB[..., :1], RGB[..., :1]),
        (RGB[..., 0], RGB[..., :1]),
        (RGB.transpose(0, 3, 1, 2), RGB),
        (RGB[..., :1].transpose(0, 3, 1, 2), RGB[..., :1]),
        (np.asfortranarray(RGB), RGB),
        (RGB.astype(np.int64), RGB),
        (RGB.astype(">u4"), RGB),
        (RGB / 255, RGB),
        (RGB.astype(np.float32) / 255, RGB),
        ((RGB / 255).astype(np.float16), RGB),
        ((RGB / 255).transpose(0, 3, 1, 2), RGB),
        (np.clip(RGB / 255, 5e-7, 1) + 5e-7, RGB),
        (np.where(RGB == 0, -9e-7, RGB / 255), RGB),
    ],
    ids=str,
)
def test_npz_layouts(tmp_path: Path, images: np.ndarray, expected: np.ndarray) -> None:
    npz(tmp_path, images=images)
    raw = sound(read_npz(tmp_path, "train"))
    np.testing.assert_array_equal(raw.images, expected)
    np.testing.assert_array_equal(raw.labels, LABELS)
    assert raw.class_names == ("0", "1", "2")


def test_npz_floats_go_to_the_nearest_level(tmp_path: Path) -> None:
    npz(tmp_path, images=np.repeat([50.51, 51.49], 10).reshape(5, 2, 2) / 255)
    assert (read_npz(tmp_path, "train").images == 51).all()


def test_npz_channels_last_wins_where_both_would_do(tmp_path: Path) -> None:
    images = np.arange(5 * 3 * 7 * 3, dtype=np.uint8).reshape(5, 3, 7, 3)
    npz(tmp_path, images=images)
    np.testing.assert_array_equal(read_npz(tmp_path, "train").images, images)


def test_npz_names_and_labels(tmp_path: Path) -> None:
    npz(tmp_path, "test", class_names=np.array(["kö", "b", "c", "d"]), labels=LABELS.astype(">u2"))
    raw = sound(read_npz(tmp_path, "test"))
    assert raw.class_names == ("kö", "b", "c", "d")
    np.testing.assert_array_equal(raw.labels, LABELS)


def test_npz_compressed(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "train.npz", images=RGB, labels=LABELS, other=np.zeros(3))
    np.testing.assert_array_equal(sound(read_npz(tmp_path, "train")).images, RGB)


NPZ_FAULTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "four channels": ({"images": np.zeros((5, 4, 6, 4), np.uint8)}, ("[5, 4, 6, 4]", "[n, h, w")),
    "two axes": ({"images": np.zeros((5, 24), np.uint8)}, ("[5, 24]", "[n, c, h, w]")),
    "no image": ({"images": RGB[:0], "labels": LABELS[:0]}, ("[0, 4, 6, 3]", "non-empty")),
    "no pixel": ({"images": np.zeros((5, 0, 6), np.uint8)}, ("[5, 0, 6]", "non-empty")),
    "text": ({"images": np.full((5, 2, 2), "x")}, ("<U1", "save uint8")),
    "complex": ({"images": np.zeros((5, 2, 2), complex)}, ("complex128", "save uint8")),
    "bool": ({"images": np.zeros((5, 2, 2), bool)}, ("bool", "save uint8")),
    "0..255 floats": ({"images": RGB.astype(float)}, ("from 0 to 255", "divide by 255")),
    "normalised": ({"images": RGB / 127.5 - 1}, ("from -1 to 1", "undo a normalisation")),
    "just above": ({"images": np.full((5, 2, 2), 1.00001)}, ("to 1.00001", "divide by 255")),
    "just below": ({"images": np.full((5, 2, 2), -2e-6)}, ("from -2e-06", "divide by 255")),
    "NaN": ({"images": np.where(RGB == 0, np.nan, 0.5)}, ("nan", "[0, 1]")),
    "infinite": ({"images": np.where(RGB == 0, np.inf, 0.5)}, ("inf", "[0, 1]")),
    "16 bits": ({"images": RGB.astype(int) * 257}, ("to 65535", "0..255")),
    "below 0": ({"images": RGB.astype(int) - 128}, ("from -128", "0..255")),
    "lengths": ({"labels": LABELS[:4]}, ("5", "4", "one label per image")),
    "no labels": ({"labels": LABELS[:0]}, ("5", "0", "one label per image")),
    "one-hot": ({"labels": np.eye(3, dtype=int)[LABELS]}, ("[5, 3]", "class index per image")),
    "float labels": ({"labels": LABELS / 1.0}, ("float64", "save integers")),
    "text labels": ({"labels": np.array(list("abcde"))}, ("<U1", "save integers")),
    "negative": ({"labels": LABELS - 1}, ("from -1", "number them 0, 1")),
    "huge": ({"labels": LABELS + 10**12}, ("1000000000002", "number them 0, 1")),
    "uint64": ({"labels": np.full(5, 2**64 - 1, np.uint64)}, (str(2**64 - 1), "number them")),
    "unnamed": ({"class_names": np.array(["a", "b"])}, ("0 to 2", "at most 2", "'class_names'")),
    "no names": ({"class_names": np.array([], dtype=str)}, ("at most 0", "'class_names'")),
    "names of bytes": ({"class_names": np.array([b"a", b"b", b"c"])}, ("|S1", "dtype=str")),
    "names in rows": ({"class_names": np.full((1, 3), "a")}, ("[1, 3]", "dtype=str")),
    "pickled names": ({"class_names": np.array(["a", None])}, ("allow_pickle", "not Python objects")),
    "pickled images": ({"images": np.array([0, None])}, ("allow_pickle", "not Python objects")),
}


@pytest.mark.parametrize(("arrays", "says"), NPZ_FAULTS.values(), ids=NPZ_FAULTS)
def test_npz_faults(tmp_path: Path, arrays: dict[str, Any], says: tuple[str, ...]) -> None:
    path = npz(tmp_path, **arrays)
    refused(read_npz, tmp_path, "train", says=(str(path), *says))


def test_npz_missing_array_lists_what_was_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=RGB, labels=LABELS)
    path = str(tmp_path / "train.npz")
    refused(read_npz, tmp_path, "train", says=(path, "'images'", "x, labels", "np.savez"))
    np.savez(tmp_path / "train.npz", images=RGB, **{"la\nbel\x1b[31m": LABELS})
    refused(read_npz, tmp_path, "train", says=(path, "'labels'", "la bel [31m", "np.savez"))
    np.savez(tmp_path / "train.npz")
    refused(read_npz, tmp_path, "train", says=(path, "found: none", "np.savez"))


def test_npz_missing_folder_and_file(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    refused(read_npz, absent, "train", says=(str(absent), "no such folder", "data.path"))
    path = npz(tmp_path)
    refused(read_npz, path, "train", says=(str(path), "no such folder", "data.path"))
    says = (str(tmp_path / "test.npz"), "no such file", "np.savez")
    assert "data.kind" not in refused(read_npz, tmp_path, "test", says=says)


@pytest.mark.parametrize("name", ["cifar-10-batches-py/x", "cifar-10-python.tar.gz"])
def test_npz_missing_file_beside_cifar10(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    refused(read_npz, tmp_path, "train", says=("train.npz", "data.kind=cifar10"))


@pytest.mark.parametrize("name", ["train/cat/1.PNG", "cat/1.jpeg"])
def test_npz_missing_file_beside_class_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    refused(read_npz, tmp_path, "train", says=("train.npz", "data.kind=folder"))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"PK\x05\x06" + bytes(18)],
    ids=["empty", "text", "zip's start", "npy", "empty zip"],
)
def test_npz_of_other_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "train.npz").write_bytes(data)
    refused(read_npz, tmp_path, "train", says=(str(tmp_path / "train.npz"), "np.savez"))


def test_npz_that_is_a_pickle_or_a_single_array(tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    path.write_bytes(pickle.dumps({"images": RGB}))
    refused(read_npz, tmp_path, "train", says=(str(path), "no npz archive", "np.savez"))
    with path.open("wb") as file:
        np.save(file, RGB)
    refused(read_npz, tmp_path, "train", says=(str(path), "no npz archive", "np.savez"))


def test_npz_truncated(tmp_path: Path) -> None:
    path = npz(tmp_path)
    data = path.read_bytes()
    for length in (1, 50, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        refused(read_npz, tmp_path, "train", says=(str(path), "damaged", "np.savez"))


def test_npz_whose_header_lies(tmp_path: Path) -> None:
    """A member that is no array, and one that claims 10^15 images, in zips that are themselves sound."""
    npy = io.BytesIO()
    np.save(npy, RGB)
    claims = npy.getvalue().replace(b"(5, 4, 6, 3), }            ", b"(1000000000000000, 4, 6, 3)}")
    for images in (b"hello", claims[: len(npy.getvalue())]):
        assert images != npy.getvalue()
        path = npz(tmp_path)
        with zipfile.ZipFile(path) as sound_zip:
            labels = sound_zip.read("labels.npy")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", images)
            archive.writestr("labels.npy", labels)
        refused(read_npz, tmp_path, "train", says=(str(path),))


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_npz_of_any_damage_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    small = {"images": RGB[:, :2, :2], "class_names": np.array(["a", "b", "c"])}
    path = npz(tmp_path, **small)
    damaged = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    path.write_bytes(damaged[:end])
    try:
        sound(read_npz(tmp_path, "train"))
    except UserError:
        refused(read_npz, tmp_path, "train", says=(str(path),))


# folders


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


# digits


def test_digits() -> None:
    raw = sound(read_digits())
    assert raw.images.shape == (1797, 8, 8, 1)
    assert raw.class_names == tuple("0123456789")
    assert set(np.unique(raw.images)) == {round(v * 255 / 16) for v in range(17)}
    np.testing.assert_array_equal(raw.labels[:10], range(10))
    # The first scan, a zero, as scikit-learn's documentation prints it.
    np.testing.assert_array_equal(
        raw.images[0, 0, :, 0], [round(v * 255 / 16) for v in (0, 0, 5, 13, 9, 1, 0, 0)]
    )


# CIFAR-10

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 2, 3, 32, 32), dtype=np.uint8)


def batch(i: int) -> bytes:
    """Two images as a batch, in the protocol of the files and with keys in bytes."""
    rows, labels = PIXELS[i].reshape(2, 3072), [i, 9 - i]
    return pickle.dumps({b"batch_label": b"made", b"labels": labels, b"data": rows}, protocol=2)


def python2_batch() -> bytes:
    """One image, opcode by opcode as Python 2 and the numpy of 2009 wrote it: `str`, align=0."""

    def text(b: bytes) -> bytes:
        return b"U" + bytes([len(b)]) + b

    row = bytes(range(256)) * 12
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNN"
    dtype += (b"J" + struct.pack("<i", -1)) * 2 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    array += b"(K\x01(K\x01M\x00\x0ct" + dtype + b"\x89T" + struct.pack("<i", len(row)) + row + b"tb"
    items = text(b"data") + array + text(b"labels") + b"](K\x07e" + text(b"batch_label")
    return b"\x80\x02}(" + items + text(b"testing batch 1 of 1") + b"u."


def contents() -> dict[str, bytes]:
    data = [*(batch(i) for i in range(6)), pickle.dumps({}, protocol=2)]
    return dict(zip(NAMES, data, strict=True))


def tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Any:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def members(**replaced: Any) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The members of a sound archive, some of them replaced, or left out where None is given."""
    inside = {**contents(), "readme.html": b"<html>"}
    sound_ones = {n: member(f"cifar-10-batches-py/{n}", data) for n, data in inside.items()}
    kept = [m for m in {**sound_ones, **replaced}.values() if m is not None]
    return [member("cifar-10-batches-py", kind=tarfile.DIRTYPE), *kept]


def trust(monkeypatch: pytest.MonkeyPatch, path: Path, kind: str = "CIFAR10") -> None:
    """Let the checksum of a made file, or of a made archive, stand in the table of published ones."""
    digest, known = hashlib.md5(path.read_bytes()).hexdigest(), getattr(cifar, kind)
    if path.name in known.md5:
        monkeypatch.setitem(known.md5, path.name, digest)
    else:
        monkeypatch.setattr(cifar, kind, known._replace(archive=known.archive._replace(md5=digest)))


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made CIFAR-10, unpacked, with its checksums in the table."""
    home = tmp_path / "data" / "cifar-10-batches-py"
    home.mkdir(parents=True)
    for name, data in contents().items():
        (home / name).write_bytes(data)
        trust(monkeypatch, home / name)
    return home


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made CIFAR-10 as an archive, with all checksums in the table."""
    for name, data in contents().items():
        monkeypatch.setitem(CIFAR10.md5, name, hashlib.md5(data).hexdigest())
    (tmp_path / "data").mkdir()
    path = tar(tmp_path / "data" / "cifar-10-python.tar.gz", members())
    trust(monkeypatch, path)
    return path


def is_made_cifar10(train: Raw, test: Raw) -> None:
    expected = PIXELS.transpose(0, 1, 3, 4, 2)
    np.testing.assert_array_equal(sound(train).images, expected[:5].reshape(10, 32, 32, 3))
    np.testing.assert_array_equal(train.labels, [0, 9, 1, 8, 2, 7, 3, 6, 4, 5])
    np.testing.assert_array_equal(sound(test).images, expected[5])
    np.testing.assert_array_equal(test.labels, [5, 4])
    assert train.class_names == test.class_names == CIFAR10.class_names
    assert len(train.class_names) == 10
    assert train.class_names[3] == "cat"


def test_cifar_tables_are_whole() -> None:
    """Names, addresses and checksums as published (and as in torchvision/datasets/cifar.py)."""
    assert set(CIFAR10.md5) == set(NAMES)
    assert set(CIFAR100.md5) == {"train", "test", "meta"}
    assert CIFAR10.archive.url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert CIFAR100.archive.url == "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    assert (CIFAR10.archive.name, CIFAR100.archive.name) == (
        "cifar-10-python.tar.gz",
        "cifar-100-python.tar.gz",
    )
    digests = [*CIFAR10.md5.values(), *CIFAR100.md5.values(), CIFAR10.archive.md5, CIFAR100.archive.md5]
    assert {len(digest) for digest in digests} == {32}
    assert len(set(digests)) == len(digests)
    published = (
        "16019d7e3df5f24257cddd939b257f8d f0ef6b0ae62326f3e7ffdfab6717acfc 7973b15100ade9c7d40fb424638fde48"
    )
    assert " ".join(CIFAR100.md5[name] for name in ("train", "test", "meta")) == published
    assert CIFAR100.archive.md5 == "eb9058c3a382ffc7106e4002c42a8d85"
    assert CIFAR10.archive.md5 == "c58f30108f718f92721af3b95e74349a"


def test_cifar10_unpacked(batches: Path) -> None:
    for folder in (batches, batches.parent):
        is_made_cifar10(read_cifar10(folder, "train"), read_cifar10(folder, "test"))


def test_cifar10_as_python_2_wrote_it(batches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (batches / "test_batch").write_bytes(python2_batch())
    trust(monkeypatch, batches / "test_batch")
    raw = sound(read_cifar10(batches, "test"))
    row = np.tile(np.arange(256, dtype=np.uint8), 12)
    np.testing.assert_array_equal(raw.images[0], row.reshape(3, 32, 32).transpose(1, 2, 0))
    np.testing.assert_array_equal(raw.labels, [7])


def test_cifar10_archive_is_unpacked_once(archive: Path) -> None:
    train = read_cifar10(archive.parent, "train")
    archive.unlink()
    is_made_cifar10(train, read_cifar10(archive.parent, "test"))
    assert [p.name for p in archive.parent.iterdir()] == ["cifar-10-batches-py"]
    assert {p.name for p in (archive.parent / "cifar-10-batches-py").iterdir()} == set(NAMES)


def test_cifar10_unpacked_by_another_process_meanwhile(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        target.mkdir()
        for name, data in contents().items():
            (target / name).write_bytes(data)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    train = read_cifar10(archive.parent, "train")
    is_made_cifar10(train, read_cifar10(archive.parent, "test"))
    assert len(list(archive.parent.iterdir())) == 2


def test_cifar10_unknown_split(batches: Path) -> None:
    refused(read_cifar10, batches, "val", says=("'val'", "test, train"))


def test_cifar10_not_found(tmp_path: Path) -> None:
    says = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "data.download=true", "170 MB")
    for folder in (tmp_path, tmp_path / "absent"):
        message = refused(read_cifar10, folder, "train", says=(str(folder), *says))
        assert "data.kind" not in message
    path = npz(tmp_path)
    refused(read_cifar10, tmp_path, "train", says=(*says, "data.kind=npz"))
    refused(read_cifar10, path, "train", says=(str(path), *says))


def test_cifar10_with_a_missing_batch(batches: Path) -> None:
    (batches / "data_batch_3").unlink()
    says = (str(batches / "data_batch_3"), "No such file", "data.download=true")
    refused(read_cifar10, batches, "train", says=says)
    read_cifar10(batches, "test")


def test_cifar10_checksum_comes_before_unpickling(batches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = batches / "data_batch_5"
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    def unpickled(*_: Any, **__: Any) -> None:
        raise AssertionError("data_batch_5 was unpickled")

    monkeypatch.setitem(CIFAR10.splits, "train", ("data_batch_5",))
    monkeypatch.setattr(cifar, "ArraysOnly", unpickled)
    says = (str(path), "wrong checksum", "data.download=true")
    refused(read_cifar10, batches, "train", says=says)


class Runs:
    """Unpickling this calls `command(argument)`."""

    def __init__(self, command: Callable[..., Any], *arguments: Any) -> None:
        self.call = (command, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_cifar10_malicious_pickle_is_not_executed(
    batches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksum is right, so that only the unpickler stands between it and the machine."""
    path, touched = batches / "test_batch", tmp_path / "touched"
    attacks = {
        "system": Runs(os.system, f"touch {touched}"),
        "eval": Runs(eval, f"open({str(touched)!r}, 'w').close()"),
        "getattr": Runs(getattr, "x", "upper"),
        "load": Runs(np.load, str(touched)),
    }
    for name, attack in attacks.items():
        for protocol in (0, 2, 5):
            path.write_bytes(pickle.dumps({b"data": attack}, protocol=protocol))
            trust(monkeypatch, path)
            says = (str(path), f"{name} is refused", "data.download=true")
            refused(read_cifar10, batches, "test", says=says)
    assert not touched.exists()
    pickle.loads(pickle.dumps(attacks["system"]))
    assert touched.exists()  # so it would have been


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        batch(5)[:-100],
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps({b"data": b"x", b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.int32), b"labels": [1, 2]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 99), np.uint8), b"labels": [1, 2]}, protocol=2),
    ],
)
def test_cifar10_batch_of_other_contents(batches: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    path = batches / "test_batch"
    path.write_bytes(data)
    trust(monkeypatch, path)
    says = (str(path), "no CIFAR-10 batch", "data.download=true")
    refused(read_cifar10, batches, "test", says=says)


def test_cifar10_archive_with_a_wrong_checksum(archive: Path) -> None:
    with archive.open("ab") as file:
        file.write(b"!")
    says = (str(archive), "wrong checksum", f"delete {archive}", "data.download=true")
    refused(read_cifar10, archive.parent, "train", says=says)
    assert list(archive.parent.iterdir()) == [archive]


def test_cifar10_archive_with_strange_members_writes_nothing_outside(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else it holds is left in it, so that what it lacks can only be refused or ignored."""
    evil = tmp_path / "evil"
    strange = {
        "up": member("../evil", b"x"),
        "deep": member("cifar-10-batches-py/../../evil", b"x"),
        "root": member(str(evil), b"x"),
        "link": member("cifar-10-batches-py/link", kind=tarfile.SYMTYPE, link=str(tmp_path)),
        "through": member("cifar-10-batches-py/link/evil", b"x"),
        "folder": member("cifar-10-batches-py/folder", kind=tarfile.DIRTYPE),
        "other": member("cifar-10-batches-py/other", b"x"),
        "device": member("cifar-10-batches-py/device", kind=tarfile.CHRTYPE),
    }
    trust(monkeypatch, tar(archive, members(**strange)))
    is_made_cifar10(read_cifar10(archive.parent, "train"), read_cifar10(archive.parent, "test"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
    home = archive.parent / "cifar-10-batches-py"
    assert sorted(archive.parent.iterdir()) == sorted([home, archive])
    assert {p.name for p in home.iterdir()} == set(NAMES)


@pytest.mark.parametrize(
    "replaced",
    [
        None,
        member("cifar-10-batches-py/test_batch", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("cifar-10-batches-py/test_batch", kind=tarfile.LNKTYPE, link="/etc/passwd"),
        member("cifar-10-batches-py/test_batch", kind=tarfile.DIRTYPE),
        member("cifar-10-batches-py/test_batch", bytes(50_001)),
        member("test_batch", b"x"),
    ],
    ids=["absent", "symlink", "hard link", "folder", "too big", "elsewhere"],
)
def test_cifar10_archive_without_a_plain_member(
    archive: Path, monkeypatch: pytest.MonkeyPatch, replaced: Any
) -> None:
    monkeypatch.setattr(cifar, "MEMBER_BYTES", 50_000)
    trust(monkeypatch, tar(archive, members(test_batch=replaced)))
    says = (str(archive), "lacks test_batch", "data.download=true")
    refused(read_cifar10, archive.parent, "train", says=says)
    assert list(archive.parent.iterdir()) == [archive]  # nothing half-written


def test_cifar10_archive_that_cannot_be_unpacked(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = (str(archive), "cannot be unpacked", "writable")
    archive.write_bytes(archive.read_bytes()[:-300])
    trust(monkeypatch, archive)
    refused(read_cifar10, archive.parent, "train", says=says)
    archive.write_bytes(b"no archive")
    trust(monkeypatch, archive)
    refused(read_cifar10, archive.parent, "train", says=says)

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(archives, "TemporaryDirectory", denied)
    refused(read_cifar10, archive.parent, "train", says=(*says, "Permission denied"))
    assert list(archive.parent.iterdir()) == [archive]


# downloading


def serve(monkeypatch: pytest.MonkeyPatch, file: Path) -> list[str]:
    """pooch itself, with a file of this disk in place of the network; lists what was asked for."""
    import pooch

    asked: list[str] = []

    def copy(url: str, output_file: str, _: Any) -> None:
        asked.append(url)
        Path(output_file).write_bytes(file.read_bytes())

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar=False: copy)
    return asked


def test_cifar10_download(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, folder = archive.rename(tmp_path / "served"), tmp_path / "new" / "data"
    asked = serve(monkeypatch, served)
    train = read_cifar10(folder, "train", True)
    is_made_cifar10(train, read_cifar10(folder, "test", True))
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]

    served.write_bytes(b"the page of a hotel's network")
    says = (str(tmp_path / "cifar-10-python.tar.gz"), "cannot be downloaded", "hash", "retry")
    refused(read_cifar10, tmp_path, "train", True, says=says)
    assert not (tmp_path / "cifar-10-python.tar.gz").exists()


def test_cifar10_download_replaces_a_damaged_archive(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    whole = archive.read_bytes()
    archive.write_bytes(whole[:100])

    def copy(_: str, output_file: str, __: Any) -> None:
        Path(output_file).write_bytes(whole)

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar=False: copy)
    folder = archive.parent
    is_made_cifar10(read_cifar10(folder, "train", True), read_cifar10(folder, "test"))


def test_cifar10_download_asks_nothing_of_the_network_if_all_is_here(
    batches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    monkeypatch.setattr(pooch, "retrieve", None)
    read_cifar10(batches.parent, "train", True)


def test_cifar10_download_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch
    import requests

    def offline(*_: Any) -> None:
        raise requests.ConnectionError("HTTPSConnectionPool(host='...'): Max\nretries exceeded.")

    monkeypatch.setattr(pooch, "retrieve", offline)
    says = (
        str(tmp_path / "cifar-10-python.tar.gz"),
        "cannot be downloaded (ConnectionError",
        "retry, or put https://www.cs.toronto.edu",
    )
    refused(read_cifar10, tmp_path, "train", True, says=says)


# CIFAR-100

FINE = [f"class {i}" for i in range(100)]
PIXELS100 = {"train": PIXELS[:3].reshape(6, 3, 32, 32), "test": PIXELS[3]}
LABELS100 = {"train": [99, 0, 42, 7, 7, 1], "test": [3, 98]}


def contents100() -> dict[str, bytes]:
    """Six and two images with fine and coarse labels, and the names, keys in bytes as in the files."""
    batches = {
        split: {
            b"fine_labels": LABELS100[split],
            b"coarse_labels": [0] * len(rows),
            b"data": rows.reshape(-1, 3072),
        }
        for split, rows in PIXELS100.items()
    }
    meta = {b"coarse_label_names": [b"fish"] * 20, b"fine_label_names": [name.encode() for name in FINE]}
    return {name: pickle.dumps(data, protocol=2) for name, data in {**batches, "meta": meta}.items()}


@pytest.fixture
def fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made CIFAR-100, unpacked, with its checksums in the table."""
    home = tmp_path / "data" / "cifar-100-python"
    home.mkdir(parents=True)
    for name, data in contents100().items():
        (home / name).write_bytes(data)
        trust(monkeypatch, home / name, "CIFAR100")
    return home


@pytest.fixture
def fine_archive(fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as an archive, with members beside that must stay in it."""
    inside = [member(f"cifar-100-python/{name}", data) for name, data in contents100().items()]
    strange = [member("../evil", b"x"), member("cifar-100-python/file.txt~", b"x"), member("train", b"x")]
    path = tar(tmp_path / "data" / "cifar-100-python.tar.gz", [*strange, *inside])
    trust(monkeypatch, path, "CIFAR100")
    for name in contents100():
        (fine / name).unlink()
    fine.rmdir()
    return path


def is_made_cifar100(folder: Path) -> None:
    for split in ("train", "test"):
        raw = sound(read_cifar100(folder, split))
        np.testing.assert_array_equal(raw.images, PIXELS100[split].transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(raw.labels, LABELS100[split])  # not the coarse ones, all 0
        assert raw.class_names == tuple(FINE)


def test_cifar100_unpacked(fine: Path) -> None:
    is_made_cifar100(fine)
    is_made_cifar100(fine.parent)


def test_cifar100_archive_is_unpacked_once(fine_archive: Path, tmp_path: Path) -> None:
    is_made_cifar100(fine_archive.parent)
    fine_archive.unlink()
    is_made_cifar100(fine_archive.parent)
    assert {path.name for path in tmp_path.rglob("*")} == {
        "data",
        "cifar-100-python",
        "train",
        "test",
        "meta",
    }


def test_cifar100_download(fine_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = fine_archive.rename(tmp_path / "served")
    asked = serve(monkeypatch, served)
    read_cifar100(tmp_path / "new", "train", True)
    is_made_cifar100(tmp_path / "new")
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"]


def test_cifar100_faults(fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(read_cifar100, fine, "val", says=("CIFAR-100", "'val'", "test, train"))
    says = ("cifar-100-python", "cifar-100-python.tar.gz", "data.download=true", "169 MB")
    refused(read_cifar100, tmp_path, "train", says=says)
    touched = tmp_path / "touched"
    (fine / "meta").write_bytes(pickle.dumps({b"fine_label_names": Runs(os.system, f"touch {touched}")}))
    says = (str(fine / "meta"), "wrong checksum", f"delete {fine} and use data.download=true")
    refused(read_cifar100, fine, "train", says=says)
    trust(monkeypatch, fine / "meta", "CIFAR100")
    says = (str(fine / "meta"), "names no CIFAR-100 classes", "is refused", f"delete {fine}")
    refused(read_cifar100, fine, "train", says=says)
    assert not touched.exists()
    (fine / "test").write_bytes(pickle.dumps({b"labels": [1, 2], b"data": np.zeros((2, 3072), np.uint8)}))
    trust(monkeypatch, fine / "test", "CIFAR100")
    refused(read_cifar100, fine, "test", says=(str(fine / "test"), "no CIFAR-100 batch", "fine_labels"))
    (fine / "train").unlink()
    refused(read_cifar100, fine, "train", says=(str(fine / "train"), "No such file", f"delete {fine}"))


def test_the_two_cifars_are_told_apart(fine: Path, tmp_path: Path) -> None:
    refused(read_cifar10, fine.parent, "train", says=("cifar-10-batches-py", "data.kind=cifar100"))
    (tmp_path / "ten" / "cifar-10-batches-py").mkdir(parents=True)
    refused(read_cifar100, tmp_path / "ten", "train", says=("cifar-100-python", "data.kind=cifar10,"))


# Tiny-ImageNet

WNIDS = ["n00000009", "n00000001", "n00000004"]
WORDS = {
    "n00000001": "crane",
    "n00000004": "goldfish, Carassius auratus",
    "n00000009": "crane, lifting device",
}


def jpeg(value: int, side: int = 64, mode: str = "RGB") -> bytes:
    """An image of one gray, which JPEG keeps to within a level or two."""
    out = io.BytesIO()
    Image.new(mode, (side, side), value if mode == "L" else (value,) * 3).save(out, "JPEG", quality=95)
    return out.getvalue()


def tiny_contents() -> dict[str, bytes]:
    """Three classes of 11 training and 2 validation images; gray = 20 * class + number, or 200 + row."""
    files = {"wnids.txt": "\n".join(WNIDS).encode() + b"\n"}
    files["words.txt"] = "".join(f"{wnid}\t{words}\n" for wnid, words in WORDS.items()).encode()
    for label, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"boxes"
        for i in range(11):
            mode = "L" if i == 4 else "RGB"
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(80 * label + 4 * i, mode=mode)
    rows = [f"val_{i}.JPEG\t{WNIDS[label]}\t0\t0\t9\t9\n" for i, label in enumerate([2, 0, 0, 1, 2, 1])]
    files["val/val_annotations.txt"] = "".join(rows).encode()
    files |= {f"val/images/val_{i}.JPEG": jpeg(40 * i) for i in range(6)}
    return files | {f"test/images/test_{i}.JPEG": jpeg(1) for i in range(2)}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made Tiny-ImageNet, unpacked: 3 classes, not 200, of 11 and 2 images, not 500 and 50."""
    monkeypatch.setattr(tiny_imagenet, "CLASSES", 3)
    monkeypatch.setattr(tiny_imagenet, "PER_CLASS", {"train": 11, "test": 2})
    home = tmp_path / "data" / "tiny-imagenet-200"
    for name, data in tiny_contents().items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(data)
    return home


@pytest.fixture
def tiny_zip(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as an archive with its checksum in place, and with members that must stay inside."""
    shutil.rmtree(tiny)
    path = tmp_path / "data" / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        absolute = str(tmp_path / "evil")
        for name in ("../evil", absolute, "tiny-imagenet-200/../evil", "tiny-imagenet-200/train/../../evil"):
            bundle.writestr(zipfile.ZipInfo(name), b"x")
        bundle.writestr("tiny-imagenet-200/train/n00000001/images/../../evil.JPEG", jpeg(0))
        bundle.writestr("tiny-imagenet-200/evil.JPEG", jpeg(0))
        bundle.writestr("tiny-imagenet-200/words.txt~", b"x")
        bundle.writestr("tiny-imagenet-200/val/images/", b"")
        for name, data in tiny_contents().items():
            bundle.writestr(f"tiny-imagenet-200/{name}", data)
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE", tiny_imagenet.ARCHIVE._replace(md5=digest))
    return path


def levels(raw: Raw) -> list[int]:
    """The gray of each image, which must be one gray in all channels."""
    assert (np.ptp(raw.images.astype(int), axis=(1, 2, 3)) <= 3).all()
    return np.median(raw.images.reshape(len(raw.images), -1), axis=1).astype(int).tolist()


def is_made_tiny(folder: Path, **options: Any) -> None:
    train, test = (sound(read_tiny_imagenet(folder, split, **options)) for split in ("train", "test"))
    expected = [80 * label + 4 * i for i in range(11) for label in range(3)]  # turn by turn: 0, 1, 2, ..., 10
    np.testing.assert_allclose(levels(train), expected, atol=2)
    assert train.labels.tolist() == [0, 1, 2] * 11
    assert train.images.shape == (33, 64, 64, 3)
    np.testing.assert_allclose(levels(test), [40 * i for i in range(6)], atol=2)
    assert test.labels.tolist() == [2, 0, 0, 1, 2, 1]
    # wnids.txt's order; two cranes, told apart by their wnids; the first word only
    assert train.class_names == test.class_names == ("crane (n00000009)", "crane (n00000001)", "goldfish")


def test_tiny_imagenet_is_described_as_published() -> None:
    assert (tiny_imagenet.CLASSES, tiny_imagenet.PER_CLASS) == (200, {"train": 500, "test": 50})
    archive = tiny_imagenet.ARCHIVE
    assert archive.url == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert archive.md5 == "90528d7ca1a48142e341f4ef8d21d0de"


def test_tiny_imagenet(tiny: Path) -> None:
    is_made_tiny(tiny.parent)
    is_made_tiny(tiny)


def test_tiny_imagenet_in_sorted_order(tiny: Path) -> None:
    """The same images in the same order; only what the classes are called changes."""
    for split in ("train", "test"):
        usual = read_tiny_imagenet(tiny, split)
        raw = sound(read_tiny_imagenet(tiny, split, class_order="sorted"))
        np.testing.assert_array_equal(raw.images, usual.images)
        assert raw.class_names == ("crane (n00000001)", "goldfish", "crane (n00000009)")
        assert [raw.class_names[i] for i in raw.labels] == [usual.class_names[i] for i in usual.labels]


def test_tiny_imagenet_is_decoded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_made_tiny(tiny)
    assert not [path for path in tiny.iterdir() if path.name.startswith(".")]
    with monkeypatch.context() as patch:
        patch.setattr(tiny_imagenet, "stack", None)
        is_made_tiny(tiny)
        # labels and names are read each time, so that only pixels can come from the file
        words = (tiny / "words.txt").read_text()
        (tiny / "words.txt").write_text(words.replace("goldfish", "carp"))
        assert read_tiny_imagenet(tiny, "test").class_names[2] == "carp"


@pytest.mark.parametrize("split", ["train", "test"])
def test_tiny_imagenet_does_not_believe_stale_pixels(tiny: Path, split: str) -> None:
    before = read_tiny_imagenet(tiny, split)
    place = f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG" if split == "train" else "val/images/val_0.JPEG"
    image, now = tiny / place, (tiny / place).stat()
    image.write_bytes(jpeg(250))
    os.utime(image, ns=(now.st_atime_ns, now.st_mtime_ns + 1))  # a time is enough
    after = read_tiny_imagenet(tiny, split)
    assert levels(after)[0] >= 248
    np.testing.assert_array_equal(after.images[1:], before.images[1:])
    data = jpeg(10)
    image.write_bytes(data + b"  ")
    os.utime(image, ns=(now.st_atime_ns, now.st_mtime_ns + 1))  # a size is enough
    assert levels(read_tiny_imagenet(tiny, split))[0] <= 12
    assert (tiny / f"decoded-{split}.npz").is_file()


def test_tiny_imagenet_survives_any_damage_to_its_kept_pixels(tiny: Path) -> None:
    is_made_tiny(tiny)
    cache = tiny / "decoded-test.npz"
    whole = cache.read_bytes()
    with np.load(cache) as kept:
        key, images = kept["key"], kept["images"]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255  # one bit pattern of one pixel: the zip's checksum knows
    for damaged in (b"", b"hello", whole[: len(whole) // 2], bytes(flipped)):
        cache.write_bytes(damaged)
        is_made_tiny(tiny)
        assert cache.read_bytes() == whole
    others = {"key": key, "images": images[:5]}, {"key": key, "images": images / 255}, {"images": images}
    for other in (*others, {"key": np.array(["x", None]), "images": images}):
        np.savez(cache, **other)
        is_made_tiny(tiny)


def test_tiny_imagenet_without_a_place_for_pixels(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def denied(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if "w" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(self, mode, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        is_made_tiny(tiny)

    def full(file: Any, **_: Any) -> None:
        file.write(b"the beginning")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    is_made_tiny(tiny)
    assert {path.name for path in tiny.iterdir()} == {"train", "val", "test", "wnids.txt", "words.txt"}


def test_tiny_imagenet_archive_is_unpacked_once_and_nothing_lies_outside(
    tiny_zip: Path, tmp_path: Path
) -> None:
    is_made_tiny(tiny_zip.parent)
    tiny_zip.unlink()
    is_made_tiny(tiny_zip.parent)
    wanted = {name for name in tiny_contents() if not name.startswith("test") and "boxes" not in name}
    home = tmp_path / "data" / "tiny-imagenet-200"
    there = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert there == wanted | {"decoded-train.npz", "decoded-test.npz"}
    assert [path for path in tmp_path.rglob("*") if path.is_file() and home not in path.parents] == []


def test_tiny_imagenet_archive_with_a_huge_member_leaves_it(
    tiny_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_imagenet, "MEMBER_BYTES", 10)
    home = tiny_zip.parent / "tiny-imagenet-200"
    says = (str(home / "wnids.txt"), "no such file", f"delete {home} and use data.download=true")
    refused(read_tiny_imagenet, tiny_zip.parent, "train", says=says)


def test_tiny_imagenet_archive_that_is_damaged(tiny_zip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_zip.write_bytes(tiny_zip.read_bytes()[:-30])
    says = (str(tiny_zip), "wrong checksum", f"delete {tiny_zip}", "data.download=true")
    refused(read_tiny_imagenet, tiny_zip.parent, "train", says=says)
    digest = hashlib.md5(tiny_zip.read_bytes()).hexdigest()
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE", tiny_imagenet.ARCHIVE._replace(md5=digest))
    refused(read_tiny_imagenet, tiny_zip.parent, "train", says=(str(tiny_zip), "cannot be unpacked"))
    assert list(tiny_zip.parent.iterdir()) == [tiny_zip]


def test_tiny_imagenet_download(tiny_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, tiny_zip.rename(tmp_path / "served"))
    refused(read_tiny_imagenet, tmp_path / "new", "test", says=("tiny-imagenet-200.zip", "248 MB"))
    read_tiny_imagenet(tmp_path / "new", "test", True)
    is_made_tiny(tmp_path / "new")
    assert asked == ["http://cs231n.stanford.edu/tiny-imagenet-200.zip"]


def drop(name: str) -> Callable[[Path], None]:
    return lambda home: (home / name).unlink()


def text(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda home: (home / name).write_text(change((home / name).read_text())) and None


VAL = "val/val_annotations.txt"
TINY_FAULTS: dict[str, tuple[str, Callable[[Path], Any], tuple[str, ...]]] = {
    "no wnids": ("train", drop("wnids.txt"), ("wnids.txt", "no such file")),
    "no words": ("train", drop("words.txt"), ("words.txt", "no such file")),
    "no annotations": ("test", drop(VAL), ("val_annotations.txt", "no such file")),
    "no class folder": (
        "train",
        lambda home: shutil.rmtree(home / "train" / WNIDS[1]),
        (f"train/{WNIDS[1]}/images", "holds 0 images, not 11"),
    ),
    "no training folder": (
        "train",
        lambda home: shutil.rmtree(home / "train"),
        (f"train/{WNIDS[0]}/images", "holds 0 images, not 11"),
    ),
    "too few": (
        "train",
        drop(f"train/{WNIDS[2]}/images/{WNIDS[2]}_7.JPEG"),
        (f"train/{WNIDS[2]}/images", "holds 10 images, not 11"),
    ),
    "too many": (
        "train",
        lambda home: (home / f"train/{WNIDS[2]}/images/more.JPEG").write_bytes(jpeg(0)),
        (f"train/{WNIDS[2]}/images", "holds 12 images, not 11"),
    ),
    "few wnids": (
        "test",
        text("wnids.txt", lambda t: t[:20]),
        ("2 different WordNet ids in 2 lines, not 3",),
    ),
    "wnid twice": (
        "test",
        text("wnids.txt", lambda t: t + WNIDS[0]),
        ("wnids.txt", "3 different WordNet ids in 4 lines, not 3"),
    ),
    "no wnid": (
        "test",
        text("wnids.txt", lambda t: t.replace(WNIDS[0], "../../x")),
        ("2 different", "3 lines"),
    ),
    "unknown wnid": (
        "test",
        text(VAL, lambda t: t.replace(f"val_3.JPEG\t{WNIDS[1]}", "val_3.JPEG\tn12345678")),
        ("val_annotations.txt", "line 4", "val_3.JPEG", "'n12345678'", "not in wnids.txt"),
    ),
    "no columns": (
        "test",
        text(VAL, lambda t: t.replace(f"val_3.JPEG\t{WNIDS[1]}\t0\t0\t9\t9", "val_3.JPEG")),
        ("val_annotations.txt", "line 4", "no image and class", "'val_3.JPEG'"),
    ),
    "cut off": (
        "test",
        text(VAL, lambda t: "".join(t.splitlines(keepends=True)[:4])),
        ("annotates 4 images, 4 of which are among the 6", "val/images"),
    ),
    "image missing": (
        "test",
        drop("val/images/val_5.JPEG"),
        ("annotates 6 images, 5 of which are among the 5",),
    ),
    "another image": (
        "test",
        text(VAL, lambda t: t.replace("val_5.JPEG", "../../x.JPEG")),
        ("annotates 6 images, 5 of which are among the 6",),
    ),
    "image twice": (
        "test",
        text(VAL, lambda t: t + t.splitlines()[0]),
        ("annotates 7 images, 6 of which are among the 6",),
    ),
    "uneven": (
        "test",
        text(VAL, lambda t: t.replace(f"val_3.JPEG\t{WNIDS[1]}", f"val_3.JPEG\t{WNIDS[0]}")),
        ("every class 2 images", f"see {WNIDS[0]}, {WNIDS[1]})"),
    ),
    "annotations of other bytes": (
        "test",
        lambda home: (home / VAL).write_bytes(b"\xff\xfe\x00"),
        ("val_annotations.txt", "cannot be read as text"),
    ),
    "unreadable image": (
        "train",
        lambda home: (home / f"train/{WNIDS[0]}/images/{WNIDS[0]}_10.JPEG").write_bytes(jpeg(3)[:300]),
        (f"{WNIDS[0]}_10.JPEG", "no readable image"),
    ),
    "another size": (
        "test",
        lambda home: (home / "val/images/val_0.JPEG").write_bytes(jpeg(3, side=32)),
        ("val_0.JPEG", "is 32 x 32 pixels, not 64 x 64"),
    ),
}


@pytest.mark.parametrize(("split", "spoil", "says"), TINY_FAULTS.values(), ids=TINY_FAULTS)
def test_tiny_imagenet_faults(
    tiny: Path, split: str, spoil: Callable[[Path], Any], says: tuple[str, ...]
) -> None:
    read_tiny_imagenet(tiny, split)  # kept pixels hide nothing of what is spoiled afterwards
    spoil(tiny)
    for folder in (tiny, tiny.parent):
        refused(read_tiny_imagenet, folder, split, says=(*says, f"delete {tiny} and use data.download=true"))


def test_tiny_imagenet_unknown_split_and_other_folders(tiny: Path, tmp_path: Path) -> None:
    refused(read_tiny_imagenet, tiny, "val", says=("Tiny-ImageNet", "'val'", "test, train"))
    says = ("tiny-imagenet-200", "tiny-imagenet-200.zip", "data.path", "248 MB")
    refused(read_tiny_imagenet, tmp_path / "absent", "train", says=says)
    npz(tmp_path)
    refused(read_tiny_imagenet, tmp_path, "train", says=(*says, "data.kind=npz"))
    for read in (read_npz, read_cifar10, read_folder):
        refused(read, tiny.parent, "train", says=("data.kind=tiny_imagenet",))
    refused(read_npz, tiny, "train", says=("data.kind=tiny_imagenet",))
    refused(read_folder, tiny, "train", says=("holds no images", "data.kind=tiny_imagenet"))


# checksum


def test_checksum() -> None:
    known = hashlib.sha256(b"|u1(2,)\x01\x02" + b"<i8(1,)" + struct.pack("<q", 3)).hexdigest()[:16]
    assert checksum(np.array([1, 2], np.uint8), np.array([3])) == known
    rows = np.array([[1, 2], [3, 4]], np.uint8)
    assert checksum(rows) == hashlib.sha256(b"|u1(2, 2)\x01\x02\x03\x04").hexdigest()[:16]
    different = [
        (RGB,),
        (RGB[:4],),
        (RGB.reshape(5, 6, 4, 3),),
        (RGB.view(np.int8),),
        (RGB, LABELS),
        (LABELS, RGB),
        (RGB ^ np.eye(4, 6, dtype=np.uint8)[..., None],),
        (RGB[:0],),
        (),
    ]
    assert len({checksum(*arrays) for arrays in different}) == len(different)
    assert all(len(checksum(*a)) == 16 and int(checksum(*a), 16) >= 0 for a in different)
    # What counts is the values, not how they lie in memory.
    assert checksum(np.asfortranarray(RGB)) == checksum(RGB)
    assert checksum(RGB[:, ::-1][:, ::-1]) == checksum(RGB)
