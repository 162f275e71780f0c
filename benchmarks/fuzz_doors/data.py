"""Data sets: arrays, pictures and archives."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from crossclass.data import arrays, cifar, folders, tiny_imagenet

from .door import Door, of_bytes, written


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """What numpy.savez writes."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def picture(form: str, side: int = 8) -> bytes:
    """A small picture in a format."""
    file = io.BytesIO()
    pixels = np.arange(side * side * 3).astype(np.uint8)
    Image.fromarray(pixels.reshape(side, side, 3)).save(file, form)
    return file.getvalue()


def data_npz() -> list[bytes]:
    """Data in npz."""
    images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    names = np.array(["a", "b"])
    gray = npz_bytes(images=images[..., 0] / 255.0, labels=np.arange(4) % 2)
    return [npz_bytes(images=images, labels=np.arange(4) % 2, class_names=names), gray]


def tar_bytes() -> list[bytes]:
    """CIFAR-10's archive, in small."""
    batch = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, protocol=2)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name in cifar.CIFAR10.layout.md5:
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(batch)
            tar.addfile(info, io.BytesIO(batch))
    return [file.getvalue()]


def zip_bytes() -> list[bytes]:
    """Tiny-ImageNet's archive, in small, and one with a member that wants to be elsewhere."""
    wnids, image = ("n01443537", "n01629819"), picture("JPEG", 64)
    files: dict[str, bytes | str] = {
        "wnids.txt": "\n".join(wnids),
        "words.txt": "n01443537\tgoldfish, Carassius auratus\nn01629819\tEuropean fire salamander\n",
        **{f"train/{wnid}/images/{wnid}_0.JPEG": image for wnid in wnids},
    }
    archives = []
    for outside in ({}, {"../../outside.txt": "no"}):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, content in {**files, **outside}.items():
                bundle.writestr(f"tiny-imagenet-200/{name}", content)
        archives.append(file.getvalue())
    return archives


def unpacked(place: Path, data: bytes) -> object:
    """An archive whose checksum is, for once, believed."""
    (place / cifar.CIFAR10.layout.archive.name).write_bytes(data)
    return cifar.read_cifar(cifar.CIFAR10.layout, place, "train")


def unzipped(place: Path, data: bytes) -> object:
    """The same for the other one, of two classes with one image each."""
    (place / tiny_imagenet.ARCHIVE.name).write_bytes(data)
    whole = tiny_imagenet.CLASSES, tiny_imagenet.PER_CLASS
    try:
        tiny_imagenet.CLASSES, tiny_imagenet.PER_CLASS = 2, {"train": 1, "test": 1}
        return tiny_imagenet.read_tiny_imagenet(place, "train")
    finally:
        tiny_imagenet.CLASSES, tiny_imagenet.PER_CLASS = whole


def folder(place: Path, data: bytes) -> object:
    """A picture in a folder of classes."""
    for name in ("train/a/1.png", "train/b/1.jpg"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return folders.read_folder(place, "train")


def npz() -> Door:
    """Arrays."""
    return of_bytes(data_npz, written("train.npz", lambda path: arrays.read_npz(path.parent, "train")))


def pictures() -> Door:
    """Pictures in folders of classes."""
    return of_bytes(lambda: [picture(f) for f in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")], folder)


def tar() -> Door:
    """CIFAR-10's archive."""
    return of_bytes(tar_bytes, unpacked)


def zipped() -> Door:
    """Tiny-ImageNet's archive."""
    return of_bytes(zip_bytes, unzipped)


DOORS = {"npz": npz(), "pictures": pictures(), "tar": tar(), "zip": zipped()}
