"""npz: every layout comes back exactly, and every fault is one sentence."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from crossclass.core.errors import UserError
from crossclass.data import Npz
from crossclass.data.arrays import read_npz
from dataset_files import LABELS, RGB, npz, refused, sound


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
    "names": ({"labels": np.array(list("abc"))[LABELS]}, ("<U1", "return_inverse")),
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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cifar-10-batches-py/x", "cifar10"),
        ("cifar-10-python.tar.gz", "cifar10"),
        ("train/cat/1.PNG", "folder"),
        ("cat/1.jpeg", "folder"),
    ],
)
def test_npz_missing_file_beside_another_data_set(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    refused(read_npz, tmp_path, "train", says=("train.npz", f"data.kind={kind}"))


def one_array() -> bytes:
    file = io.BytesIO()
    np.save(file, RGB)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"PK\x03\x04", one_array(), b"PK\x05\x06" + bytes(18), pickle.dumps({"images": RGB})],
    ids=["empty", "text", "zip's start", "npy", "empty zip", "pickle"],
)
def test_npz_of_other_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "train.npz").write_bytes(data)
    refused(read_npz, tmp_path, "train", says=(str(tmp_path / "train.npz"), "np.savez"))


def test_npz_truncated(tmp_path: Path) -> None:
    path = npz(tmp_path)
    data = path.read_bytes()
    for length in (1, 50, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        refused(read_npz, tmp_path, "train", says=(str(path), "damaged", "np.savez"))


def test_npz_whose_header_lies(tmp_path: Path) -> None:
    """A member that is no array, and one that claims 10^15 images, in zips that are themselves sound."""
    whole = one_array()
    claims = whole.replace(b"(5, 4, 6, 3), }            ", b"(1000000000000000, 4, 6, 3)}")
    for images in (b"hello", claims[: len(whole)]):
        assert images != whole
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


def test_one_class_is_none(tmp_path):
    for part in ("train", "test"):
        npz(tmp_path, part, images=RGB, labels=0 * LABELS)
    with pytest.raises(UserError, match="there is one class"):
        Npz(path=tmp_path)()


def test_labels_that_count_from_one_are_refused(tmp_path: Path) -> None:
    npz(tmp_path, labels=LABELS + 1)
    refused(read_npz, tmp_path, "train", says=("count from 1 to 3", "subtract 1"))
    npz(tmp_path, "test", labels=LABELS + 1)
    assert sound(read_npz(tmp_path, "test")).labels.min() == 1  # a test part may lack a class
    npz(tmp_path, labels=LABELS + 1, class_names=np.array(["a", "b", "c", "d"]))
    assert sound(read_npz(tmp_path, "train")).class_names == ("a", "b", "c", "d")


def test_arrays_that_are_not_read_are_named(tmp_path: Path) -> None:
    npz(tmp_path, weights=np.ones(5), ids=np.arange(5))
    assert sound(read_npz(tmp_path, "train")).left_out == (
        "of train.npz only images, labels and class_names were read, not 'weights', 'ids'"
    )
    npz(tmp_path)
    assert read_npz(tmp_path, "train").left_out == ""
