"""Files and folders of other libraries: read where they are plain weights, else named for what they are."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from crossclass.checkpoints import file_formats
from crossclass.checkpoints.load import checkpoint_files
from crossclass.core.errors import UserError

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.tensor([1.0, 2.0])}


def complaint(path: Path) -> str:
    with pytest.raises(UserError) as e:
        file_formats.read(path)
    assert "\n" not in str(e.value)
    assert "damaged" not in str(e.value)
    return str(e.value)


BEGINNINGS: dict[str, tuple[bytes, str]] = {
    "net.gguf": (b"GGUF\x03\0\0\0" + bytes(200), "is a GGUF file"),
    "net.onnx": (b"\x08\x08\x12\x07pytorch" + bytes(range(256)) * 4, "is an ONNX file"),
    "renamed.pth": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\xff" + bytes(300), "is an ONNX file"),
    "net.tflite": (b"\x1c\0\0\0TFL3" + bytes(100), "is a TensorFlow Lite file"),
    "net.pb": (b"\x0a\x10\x0a\x05input" + bytes(100), "is a TensorFlow graph"),
    "net.caffemodel": (b"\x0a\x07CaffeNet" + bytes(100), "is a Caffe file"),
    "net.mlmodel": (b"\x08\x04\x12\xff" + bytes(100), "is a Core ML file"),
    "flax.msgpack": (b"\x81\xa6params\x82" + bytes(100), "is a msgpack file"),
    "net.zst": (b"\x28\xb5\x2f\xfd" + bytes(100), "is a zstandard archive"),
    "net.xz": (b"\xfd7zXZ\0" + bytes(100), "is an xz archive"),
    "net.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(100), "is a 7z archive"),
    "net.gz": (b"\x1f\x8b\x08\0" + bytes(100), "is a gzip archive"),
    "net.so": (b"\x7fELF" + bytes(100), "is a compiled program"),
    "net.params": (b"\x12\x01" + bytes(100), "is an MXNet file"),
    "net.mat": (b"MATLAB 5.0 MAT-file" + bytes(100), "is a MATLAB file"),
    "net.xml": (b'<?xml version="1.0"?>\n<net name="a" version="11">', "describes an OpenVINO network"),
    "config.json": (b'{"model_type": "resnet"}', "is a JSON file"),
    "net.png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a picture"),
    "net.h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_other_formats_are_named(tmp_path: Path, name: str) -> None:
    content, says = BEGINNINGS[name]
    (tmp_path / name).write_bytes(content)
    assert says in complaint(tmp_path / name)


def test_archives_are_named(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    torch.export.save(torch.export.export(net, (torch.rand(1, 3),)), tmp_path / "net.pt2")
    assert "is an exported program (torch.export)" in complaint(tmp_path / "net.pt2")
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "")
    assert "is a Keras file" in complaint(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("net.pth", "x")
    locked = bytearray((tmp_path / "a.zip").read_bytes())
    locked[locked.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(bytes(locked))
    assert "is an encrypted zip archive" in complaint(tmp_path / "a.zip")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_quantised_weights_are_named(tmp_path: Path, whole: bool) -> None:
    small = torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8)
    values: list[Any] = [
        {"net": {"weight": small, "bias": torch.ones(2)}},
        {"fc.qweight": torch.ones(2, dtype=torch.int32), "fc.scales": torch.ones(2)},
        {"fc.weight": torch.ones(2, dtype=torch.int8), "fc.SCB": torch.ones(2)},
        {"fc._packed_params._packed_params": (small, None), "fc.scale": torch.ones(1)},
    ]
    for value in values:
        torch.save({"a": value} if whole else value, tmp_path / "a.pth")
        assert "holds quantised tensors" in complaint(tmp_path / "a.pth")


def sharded(folder: Path, **weight_map: str) -> Path:
    folder.mkdir(exist_ok=True)
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name, key in zip(names, STATE, strict=True):
        save_file({key: STATE[key]}, folder / name)
    index = folder / "model.safetensors.index.json"
    whole = dict(zip(STATE, names, strict=True)) | {k.replace("_", "."): v for k, v in weight_map.items()}
    index.write_text(json.dumps({"metadata": {}, "weight_map": whole}), encoding="utf-8")
    return index


def is_state(tree: dict[str, Any]) -> bool:
    return tree.keys() == STATE.keys() and all(torch.equal(tree[k], STATE[k]) for k in STATE)


def test_shards_are_one_network(tmp_path: Path) -> None:
    index = sharded(tmp_path / "hf")
    assert is_state(file_formats.read(index))
    assert is_state(file_formats.read(tmp_path / "hf"))
    assert checkpoint_files([str(tmp_path / "hf")]) == [index]
    part = tmp_path / "hf" / "model-00001-of-00002.safetensors"
    assert f"is one of 2 shards; give {index}" in complaint(part)
    blob = tmp_path / "blob"  # as the cache of the Hub keeps files
    part.rename(blob)
    part.symlink_to(blob)
    assert is_state(file_formats.read(index))
    part.unlink()
    assert "lacks 1 of the 2 shards" in complaint(index)
    for outside in ("../blob", str(blob), "..", ""):
        assert "names a file outside its folder" in complaint(sharded(tmp_path / "hf", conv_bias=outside))
    more = sharded(tmp_path / "hf", other="model-00001-of-00002.safetensors")
    assert "names 1 tensors that its shards lack (other)" in complaint(more)
    index = sharded(tmp_path / "hf")
    save_file(STATE, part)
    assert "holds 'conv.bias' a second time" in complaint(index)
    for broken in ("{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 3}}'):
        index.write_text(broken, encoding="utf-8")
        assert str(index) in complaint(index)


def test_folders_of_one_file_are_read_and_others_named(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    assert is_state(file_formats.read(tmp_path))
    assert checkpoint_files([str(tmp_path)]) == [tmp_path / "pytorch_model.bin"]
    for name, says in (
        (".metadata", "torch.distributed.checkpoint"),
        ("__0_0.distcp", "torch.distributed.checkpoint"),
        ("zero_to_fp32.py", "DeepSpeed"),
        ("saved_model.pb", "TensorFlow"),
        ("_METADATA", "Orbax"),
        ("adapter_config.json", "adapter"),
        ("data.pkl", "was unpacked"),
    ):
        folder = tmp_path / says
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
        assert says in complaint(folder)
        with pytest.raises(UserError, match=says):
            checkpoint_files([str(folder)])


@pytest.mark.parametrize(
    "saved",
    [
        list(STATE.items()),
        [[n, t.numpy()] for n, t in STATE.items()],
        {n.encode(): t for n, t in STATE.items()},
    ],
    ids=["pairs", "pairs of arrays", "names of Python 2"],
)
def test_names_in_pairs_and_as_bytes_are_names(tmp_path: Path, saved: Any) -> None:
    torch.save({"state": saved}, tmp_path / "a.pth")
    assert is_state(file_formats.read(tmp_path / "a.pth")["state"])
    torch.save(saved, tmp_path / "b.pth")
    assert is_state(file_formats.read(tmp_path / "b.pth"))


def test_an_array_of_numbers_alone_has_no_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(2))
    assert "is one array without a name" in complaint(tmp_path / "a.npy")


@pytest.mark.parametrize("first", range(256))
def test_a_file_of_few_bytes_is_one_sentence(tmp_path: Path, first: int) -> None:
    for content in (bytes([first]), bytes([first, 0xBF])):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(UserError):
            file_formats.read(tmp_path / "a.pth")
