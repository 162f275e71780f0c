"""Checksums of arrays, batches of indices, bytes as numbers in [0, 1]."""

import hashlib
import struct

import numpy as np
import pytest
import torch

from crossclass.analysis.records import CheckpointRef, Measurement
from crossclass.data import Npz, as_float, batches
from crossclass.data.base import checksum
from dataset_files import LABELS, RGB


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


def test_names_of_classes_can_be_printed(tmp_path) -> None:
    odd = ["a\nb", "\x1b[31mred", "\udcff", "👩‍💻 <é>, \"'"]
    labels = np.arange(8) % 4
    np.savez(tmp_path / "test.npz", images=RGB[np.arange(8) % 5], labels=labels, class_names=np.array(odd))
    assert Npz(path=tmp_path)().class_names == ("a\\nb", "\\x1b[31mred", "\\udcff", odd[3])
    assert Measurement(checkpoint=CheckpointRef(name="a"), class_names=odd[:3]).class_names[2] == "\\udcff"


def test_batches_visit_every_image_once():
    for n, size in ((10, 3), (9, 3), (1, 4)):
        for g in (None, torch.Generator().manual_seed(0)):
            indices = torch.cat(batches(n, size, g))
            assert sorted(indices.tolist()) == list(range(n))
    assert torch.cat(batches(5, 2, None)).tolist() == [0, 1, 2, 3, 4]


def test_bytes_become_unit_range():
    assert as_float(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)).flatten().tolist() == [
        0.0,
        pytest.approx(0.2),
        1.0,
    ]
