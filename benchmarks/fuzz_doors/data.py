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


def picture(form: str) -> bytes:
    """A small picture in a format."""
    file = io.BytesIO()
    Image.fromarray(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)).save(file, form)
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
    """Tiny-ImageNet's archive, in small, with a member that wants to be elsewhere."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("tiny-imagenet-200/wnids.txt", "n01443537\n")
        bundle.writestr("tiny-imagenet-200/words.txt", "n01443537\tgoldfish\n")
        bundle.writestr("tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG", picture("JPEG"))
        bundle.writestr("../../outside.txt", "no")
    return [file.getvalue()]


def unpacked(place: Path, data: bytes) -> object:
    """An archive whose checksum is, for once, believed."""
    (place / cifar.CIFAR10.layout.archive.name).write_bytes(data)
    return cifar.read_cifar(cifar.CIFAR10.layout, place, "train")


def unzipped(place: Path, data: bytes) -> object:
    """The same for the other one."""
    (place / tiny_imagenet.ARCHIVE.name).write_bytes(data)
    return tiny_imagenet.read_tiny_imagenet(place, "train")


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
