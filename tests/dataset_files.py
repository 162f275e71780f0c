"""Published data sets, made small: CIFAR-10, CIFAR-100 and Tiny-ImageNet as files and as archives."""

import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossclass.data import cifar
from crossclass.data.base import ArraySplit
from crossclass.data.cifar import CIFAR10, read_cifar100
from crossclass.data.tiny_imagenet import read_tiny_imagenet
from reader_contract import sound

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
    digest, known = hashlib.md5(path.read_bytes()).hexdigest(), getattr(cifar, kind).layout
    if path.name in known.md5:
        monkeypatch.setitem(known.md5, path.name, digest)
    else:
        monkeypatch.setattr(
            getattr(cifar, kind), "layout", known._replace(archive=known.archive._replace(md5=digest))
        )


def is_made_cifar10(train: ArraySplit, test: ArraySplit) -> None:
    expected = PIXELS.transpose(0, 1, 3, 4, 2)
    np.testing.assert_array_equal(sound(train).images, expected[:5].reshape(10, 32, 32, 3))
    np.testing.assert_array_equal(train.labels, [0, 9, 1, 8, 2, 7, 3, 6, 4, 5])
    np.testing.assert_array_equal(sound(test).images, expected[5])
    np.testing.assert_array_equal(test.labels, [5, 4])
    assert train.class_names == test.class_names == CIFAR10.layout.class_names
    assert len(train.class_names) == 10
    assert train.class_names[3] == "cat"


class Runs:
    """Unpickling this calls `command(argument)`."""

    def __init__(self, command: Callable[..., Any], *arguments: Any) -> None:
        self.call = (command, arguments)

    def __reduce__(self) -> Any:
        return self.call


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


def is_made_cifar100(folder: Path) -> None:
    for split in ("train", "test"):
        raw = sound(read_cifar100(folder, split))
        np.testing.assert_array_equal(raw.images, PIXELS100[split].transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(raw.labels, LABELS100[split])  # not the coarse ones, all 0
        assert raw.class_names == tuple(FINE)


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


def levels(raw: ArraySplit) -> list[int]:
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
