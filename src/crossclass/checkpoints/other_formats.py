"""Files and folders that hold no weights that are read, named for what they are, with what to do instead."""

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossclass.core.errors import UserError

_TORCH = "save the network's state_dict() with torch.save where its framework runs"
_PICTURE = "a picture; give the file of weights"
_BEGINNINGS = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!": "a rar archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstandard archive; unpack it first (unzstd)",
    b"\x04\x22\x4d\x18": "an lz4 archive; unpack it first",
    b"\x89HDF": "an HDF5 file, as Keras writes them; export its arrays to npz",
    b"%PDF": "a PDF saved as weights; download the file itself",
    b"GGUF": f"a GGUF file of llama.cpp, which holds quantised weights; {_TORCH}",
    b"ggml": f"a GGML file of llama.cpp, which holds quantised weights; {_TORCH}",
    b"lmgg": f"a GGML file of llama.cpp, which holds quantised weights; {_TORCH}",
    b"ftrt": f"a TensorRT engine, compiled for one GPU; {_TORCH}",
    b"\x7fELF": f"a compiled program (AOTInductor?), not a file of weights; {_TORCH}",
    b"MATLAB 5.0": "a MATLAB file; export its arrays to npz",
    b"\x12\x01\x00\x00\x00\x00\x00\x00": f"an MXNet file of parameters; {_TORCH}",
    b"PAR1": "a Parquet table, not a file of weights; give the file of weights",
    b"SQLite format 3": "an SQLite database, not a file of weights; give the file of weights",
    **{b"\x89PNG": _PICTURE, b"\xff\xd8\xff": _PICTURE, b"GIF8": _PICTURE},
}
_ENDINGS = {
    ".onnx": "an ONNX file; {}",
    ".caffemodel": "a Caffe file; {}",
    ".prototxt": "a description of a Caffe network; {}",
    ".tflite": "a TensorFlow Lite file; {}",
    ".pb": "a TensorFlow graph; {}",
    ".mlmodel": "a Core ML file; {}",
    ".msgpack": "a msgpack file, as Flax (JAX) writes them; save its arrays by name with numpy.savez",
    ".t7": "a Torch7 (Lua) file; {}",
    ".weights": "a Darknet file; {}",
}
_NOT_READ = {
    "onnx": "an ONNX file; {}",
    "caffe": "a Caffe file; {}",
    "tflite": "a TensorFlow Lite file; {}",
    "msgpack": "a msgpack file, as Flax (JAX) writes them; save its arrays by name with numpy.savez",
    "t7": "a Torch7 (Lua) file; {}",
}


def require_other(path: Path, head: bytes) -> None:
    """Raises UserError if the first 1024 bytes of a file, or its name, are of a format that is not read."""
    decoded = head.decode("utf-8", "ignore")
    text = decoded.strip("\ufeff \t\r\n").lower()
    if not head:
        raise UserError(f"{path} is empty; download or copy it again")
    if text.startswith("<?xml") and "<net " in text:
        raise UserError(f"{path} describes an OpenVINO network; {_TORCH}")
    if text.startswith(("<!doctype", "<html", "<?xml", "<head", "<!--")) or "<html" in text:
        raise UserError(f"{path} is a web page saved as weights; download the file itself")
    if text.startswith("version https://git-lfs"):
        raise UserError(f"{path} is a git-lfs pointer, not the file of weights; fetch it by `git lfs pull`")
    for magic, what in _BEGINNINGS.items():
        if head.startswith(magic):
            raise UserError(f"{path} is {what}")
    if kind := _by_bytes(head):
        raise UserError(f"{path} is {_NOT_READ[kind].format(_TORCH)}")
    known = head.startswith((b"PK", b"\x80")) or head[8:9] == b"{" or head[257:262] == b"ustar"
    ending = _ENDINGS.get(path.suffix.lower())
    if ending and not known:
        raise UserError(f"{path} is {ending.format(_TORCH)}")


def _by_bytes(head: bytes) -> str:
    if head[4:8] == b"TFL3":
        return "tflite"
    if re.match(rb"\x08[\x01-\x20](\x12.[\w .-]{2}|\x3a.|\x22.|\x42\x04)", head, re.DOTALL):
        return "onnx"  # the version of its format, then the name of what wrote it
    if re.match(rb"[\x04\x03]\0\0\0\x01\0\0\0", head):
        return "t7"
    first, second = (head + b"\0\0")[:2]
    if (0x81 <= first <= 0x8F and 0xA1 <= second <= 0xBF and head[2 : second - 0x9E].isascii()) or (
        first in (0xDE, 0xDF) and b"\xa6params" in head[:16]
    ):
        return "msgpack"
    return ""


def text_file(path: Path, head: bytes) -> UserError:
    """The error for a text file saved as weights."""
    text = head.decode("utf-8", "ignore").strip("\ufeff \t\r\n").lower()
    what = (
        "a JSON file" if text.startswith(("{", "[")) and path.suffix == ".json" else "text saved as weights"
    )
    return UserError(f"{path} is {what} ('{text[:40]}'); download the file itself")


def archive_of_others(path: Path, archive: zipfile.ZipFile) -> UserError:
    """The error for a zip archive that is neither of torch nor of numpy."""
    names = archive.namelist()
    if any(info.flag_bits & 1 for info in archive.infolist()):
        return UserError(f"{path} is an encrypted zip archive; unpack it first with its password")
    if any(n.endswith(("archive_format", "serialized_exported_program.json")) for n in names):
        return UserError(
            f"{path} is an exported program (torch.export), compiled or not; save its weights with "
            "torch.save(torch.export.load(FILE).state_dict, 'weights.pth')"
        )
    if any(n.endswith("model.weights.h5") for n in names):
        return UserError(f"{path} is a Keras file; export its arrays to npz")
    if any(n.endswith((".mlmodel", "coremldata.bin")) for n in names):
        return UserError(f"{path} is a Core ML package; {_TORCH}")
    return UserError(f"{path} is a zip archive of other files ({', '.join(names[:3])}); unpack it first")


def folder_of_others(path: Path, names: Sequence[str]) -> UserError:
    """The error for a folder that holds no weights that are read."""
    listed = f", such as {', '.join(sorted(names)[:3])}" if names else ""
    return known_folder(path, names) or UserError(f"{path} is a folder; give one file of weights{listed}")


def known_folder(path: Path, names: Sequence[str]) -> UserError | None:
    """The error for a folder whose names show which program wrote it; none for any other folder."""
    everything = set(names)
    if "data.pkl" in everything:
        return UserError(
            f"{path} is a file of torch.save that was unpacked, as some browsers do; pack it again with "
            f"`cd {path.parent} && zip -0 -r weights.pth {path.name}`"
        )
    if ".metadata" in everything or any(n.endswith(".distcp") for n in names):
        return UserError(
            f"{path} is a folder of torch.distributed.checkpoint; join it into one file with "
            f"`python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pth`"
        )
    if "zero_to_fp32.py" in everything or any("zero_pp_rank" in n for n in names):
        return UserError(
            f"{path} is a folder of DeepSpeed's ZeRO; join it into one file with its own script, "
            "`python zero_to_fp32.py . weights.pth`"
        )
    if "saved_model.pb" in everything or any(re.search(r"\.data-\d+-of-\d+$", n) for n in names):
        return UserError(f"{path} is a folder of TensorFlow; {_TORCH}")
    if {"_METADATA", "_CHECKPOINT_METADATA"} & everything:
        return UserError(f"{path} is a folder of Orbax (JAX); save its arrays by name with numpy.savez")
    if "adapter_config.json" in everything:
        return UserError(
            f"{path} holds an adapter (PEFT), not a network; merge it and save the whole network"
        )
    return None


def index_of(path: Path) -> dict[str, Any] | None:
    """The names of tensors and their files, if a JSON file is the index of a sharded network, else None."""
    try:
        if path.suffix != ".json" or path.stat().st_size > 2**26:
            return None
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return weight_map if isinstance(weight_map, dict) else None
