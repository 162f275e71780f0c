"""Made data sets: arrays and published sets as small files and archives, and what every reader promises."""

import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossclass.core.errors import UserError
from crossclass.data import tiny_imagenet
from crossclass.data.base import ArraySplit
from crossclass.data.cifar import Cifar, read_cifar
from crossclass.data.tiny_imagenet import read_tiny_imagenet

# What every reader promises: sound arrays, or a refusal in one sentence


def refused(call: Callable[..., ArraySplit], *arguments: Any, says: tuple[str, ...]) -> str:
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


def sound(raw: ArraySplit) -> ArraySplit:
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

RGB = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 0])


def npz(folder: Path, split: str = "train", **arrays: Any) -> Path:
    np.savez(folder / f"{split}.npz", **{"images": RGB, "labels": LABELS, **arrays})
    return folder / f"{split}.npz"


def numbered_npz(folder: Path, n_train=20, n_test=8, classes=4, size=6, seed=0, names=None) -> Path:
    """`train.npz` and `test.npz` whose images carry their number in the first pixel."""
    g = np.random.default_rng(seed)
    for split, n in (("train", n_train), ("test", n_test)):
        images = g.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        images[:, 0, 0, 0] = np.arange(n)
        extra = {"class_names": np.array(names)} if names else {}
        npz(folder, split, images=images, labels=np.arange(n) % classes, **extra)
    return folder


# CIFAR-10 and CIFAR-100: six images in each file

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 6, 3, 32, 32), dtype=np.uint8)
FINE = tuple(f"class {i}" for i in range(100))


def batch(images: np.ndarray, labels: dict[bytes, list[int]]) -> bytes:
    """Images as a batch, in the protocol of the files and with keys in bytes."""
    return pickle.dumps({b"batch_label": b"made", **labels, b"data": images.reshape(-1, 3072)}, protocol=2)


def cifar10_files() -> dict[str, bytes]:
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    made = {n: batch(PIXELS[i], {b"labels": [i, 9 - i, 0, 1, 2, 3]}) for i, n in enumerate(names)}
    return made | {"batches.meta": pickle.dumps({}, protocol=2)}


def cifar100_files() -> dict[str, bytes]:
    fine = {"train": [99, 0, 42, 7, 7, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6], "test": [3, 98, 0, 1, 2, 4]}
    pixels = {"train": PIXELS[:3], "test": PIXELS[5]}
    meta = {b"coarse_label_names": [b"fish"] * 20, b"fine_label_names": [name.encode() for name in FINE]}
    made = {
        name: batch(pixels[name], {b"fine_labels": labels, b"coarse_labels": [0] * len(labels)})
        for name, labels in fine.items()
    }
    return made | {"meta": pickle.dumps(meta, protocol=2)}


def is_made_cifar(kind: type[Cifar], folder: Path) -> None:
    """Both parts of a made CIFAR come back, with their fine labels and the names of the classes."""
    train, test = (sound(read_cifar(kind.layout, folder, split)) for split in ("train", "test"))
    ten = len(train.class_names) == 10
    expected = PIXELS.transpose(0, 1, 3, 4, 2)
    np.testing.assert_array_equal(train.images, expected[: 5 if ten else 3].reshape(-1, 32, 32, 3))
    np.testing.assert_array_equal(test.images, expected[5])
    assert train.labels[:8].tolist() == ([0, 9, 0, 1, 2, 3, 1, 8] if ten else [99, 0, 42, 7, 7, 1, 2, 3])
    assert test.labels.tolist() == ([5, 4, 0, 1, 2, 3] if ten else [3, 98, 0, 1, 2, 4])
    assert train.class_names == test.class_names
    assert train.class_names[3] == ("cat" if ten else "class 3")
    assert ten or train.class_names == FINE


def put_cifar(
    monkeypatch: pytest.MonkeyPatch, kind: type[Cifar], folder: Path, files: dict[str, bytes]
) -> Path:
    """Unpacked files, with their checksums in the table of the published ones."""
    home = folder / kind.layout.archive.folder
    home.mkdir(parents=True)
    for name, data in files.items():
        (home / name).write_bytes(data)
        trust(monkeypatch, home / name, kind)
    return home


def trust(monkeypatch: pytest.MonkeyPatch, path: Path, kind: type[Cifar]) -> None:
    """Let the checksum of a made file, or of a made archive, stand in the table of published ones."""
    digest, layout = hashlib.md5(path.read_bytes()).hexdigest(), kind.layout
    if path.name in layout.md5:
        monkeypatch.setitem(layout.md5, path.name, digest)
    else:
        monkeypatch.setattr(kind, "layout", layout._replace(archive=layout.archive._replace(md5=digest)))


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Any:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def serve(monkeypatch: pytest.MonkeyPatch, file: Path) -> list[str]:
    """pooch itself, with a file of this disk in place of the network; lists what was asked for."""
    import pooch

    asked: list[str] = []

    def copy(url: str, output_file: str, _: Any) -> None:
        asked.append(url)
        Path(output_file).write_bytes(file.read_bytes())

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar=False: copy)
    return asked


# Tiny-ImageNet: 3 classes, not 200, of 11 and 2 images, not 500 and 50

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
    """The files; the gray is 80 * class + 4 * number in training images, and 40 * row in the others."""
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


def put_tiny(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Unpacked files, with the sizes that the reader expects."""
    monkeypatch.setattr(tiny_imagenet, "CLASSES", 3)
    monkeypatch.setattr(tiny_imagenet, "PER_CLASS", {"train": 11, "test": 2})
    home = folder / "tiny-imagenet-200"
    for name, data in tiny_contents().items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(data)
    return home


def levels(raw: ArraySplit) -> list[int]:
    """The gray of each image, which must be one gray in all channels."""
    assert (np.ptp(raw.images.astype(int), axis=(1, 2, 3)) <= 3).all()
    return np.median(raw.images.reshape(len(raw.images), -1), axis=1).astype(int).tolist()


def is_made_tiny(folder: Path) -> None:
    train, test = (sound(read_tiny_imagenet(folder, split)) for split in ("train", "test"))
    expected = [80 * label + 4 * i for i in range(11) for label in range(3)]  # turn by turn: 0, 1, 2, ..., 10
    np.testing.assert_allclose(levels(train), expected, atol=2)
    assert train.labels.tolist() == [0, 1, 2] * 11
    assert train.images.shape == (33, 64, 64, 3)
    np.testing.assert_allclose(levels(test), [40 * i for i in range(6)], atol=2)
    assert test.labels.tolist() == [2, 0, 0, 1, 2, 1]
    # wnids.txt's order; two cranes, told apart by their wnids; the first word only
    assert train.class_names == test.class_names == ("crane (n00000009)", "crane (n00000001)", "goldfish")
