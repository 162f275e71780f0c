"""Tiny-ImageNet: a made one comes back in order, its pixels are kept, every fault is one sentence."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossclass.data import CIFAR10, TinyImageNet, tiny_imagenet
from crossclass.data.arrays import read_npz
from crossclass.data.cifar import read_cifar
from crossclass.data.folders import read_folder
from crossclass.data.tiny_imagenet import read_tiny_imagenet
from dataset_files import WNIDS, is_made_tiny, jpeg, levels, npz, put_tiny, refused, serve, tiny_contents


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made Tiny-ImageNet, unpacked."""
    return put_tiny(monkeypatch, tmp_path / "data")


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


def test_tiny_imagenet_is_described_as_published() -> None:
    assert (tiny_imagenet.CLASSES, tiny_imagenet.PER_CLASS) == (200, {"train": 500, "test": 50})
    archive = tiny_imagenet.ARCHIVE
    assert archive.url == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert archive.md5 == "90528d7ca1a48142e341f4ef8d21d0de"


def test_tiny_imagenet(tiny: Path) -> None:
    is_made_tiny(tiny.parent)
    is_made_tiny(tiny)


def test_classes_may_be_sorted_as_in_image_folders(tiny: Path) -> None:
    """The same images in the same order; only what the classes are called changes."""
    by_file, by_name = TinyImageNet(path=tiny), TinyImageNet(path=tiny, class_order="sorted")
    assert by_file.digest() != by_name.digest()
    usual, splits = by_file(), by_name()
    assert splits.class_names == ("crane (n00000001)", "goldfish", "crane (n00000009)")
    for name in ("train", "test"):
        a, b = usual.part(name), splits.part(name)
        assert a.images.equal(b.images)
        assert [usual.class_names[i] for i in a.labels] == [splits.class_names[i] for i in b.labels]


def test_what_is_held_out_has_equally_many_of_each_class(tiny: Path) -> None:
    splits = TinyImageNet(path=tiny, n_val=9)()
    assert splits.val.labels.bincount().tolist() == [3, 3, 3]
    assert splits.train.labels.bincount().tolist() == [8, 8, 8]


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
    opened = open

    def denied(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if {"w", "x"} & set(mode):
            raise PermissionError(13, "Permission denied")
        return opened(file, mode, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", denied)
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


def test_tiny_imagenet_and_other_folders(tiny: Path, tmp_path: Path) -> None:
    says = ("tiny-imagenet-200", "tiny-imagenet-200.zip", "data.path", "248 MB")
    refused(read_tiny_imagenet, tmp_path / "absent", "train", says=says)
    npz(tmp_path)
    refused(read_tiny_imagenet, tmp_path, "train", says=(*says, "data.kind=npz"))
    for read in (read_npz, partial(read_cifar, CIFAR10.layout), read_folder):
        refused(read, tiny.parent, "train", says=("data.kind=tiny_imagenet",))
    refused(read_npz, tiny, "train", says=("data.kind=tiny_imagenet",))
    refused(read_folder, tiny, "train", says=("holds no images", "data.kind=tiny_imagenet"))
