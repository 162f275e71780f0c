"""Any file of weights becomes named tensors, and no code in it runs.

The format is recognised by the bytes of the file, not by its name: many a model.pth is a web page.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossclass.checkpoints.torch_files import DAMAGED, Numbers, imports, read_torch, refusal
from crossclass.core.errors import UserError
from crossclass.core.trust import consent

SUFFIXES = frozenset(
    {".pt", ".pth", ".tar", ".ckpt", ".bin", ".pkl", ".safetensors", ".npz", ".t7", ".model"}
)
"""Usual endings of the names of such files."""
_OTHER_FORMATS = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!": "a rar archive; unpack it first",
    b"\x89HDF": "an HDF5 file, as Keras writes them; export its arrays to npz",
    b"\x93NUMPY": "one array without a name; save all of them by name with numpy.savez",
    b"%PDF": "a PDF saved as weights; download the file itself",
}
_DEEPEST = 12  # levels of dicts that are looked at: a pickle can hold a dict that contains itself


def read(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors, npz or torch file, on the CPU, by name.

    Returns nested dictionaries as they are in the file; what is no tensor is left out. Raises UserError for a
    file of another format, a damaged one, one without tensors, and a pickle that wants to import something,
    unless `trusting(everything=True)` lets it.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.is_file())[:3]
        listed = f", such as {', '.join(inside)}" if inside else ""
        raise UserError(f"{path} is a folder; give one file of weights{listed}")
    try:
        with path.open("rb") as file:
            head = file.read(1024)
        tree = _tidy(_READERS[_format(path, head)](path))
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist; correct the path") from e
    except OSError as e:
        why = e.strerror or "damaged"
        raise UserError(f"{path} cannot be read ({why}); check it and its permissions") from e
    if isinstance(tree, Tensor):
        raise UserError(f"{path} holds one tensor without a name; save the model's state_dict() instead")
    if not tree:
        raise UserError(f"{path} holds no named tensors; save the model's state_dict()")
    return tree


def _format(path: Path, head: bytes) -> str:
    """Which of `_READERS` reads a file that begins with `head`; raises UserError if none does."""
    decoded = head.decode("utf-8", "ignore")
    text = decoded.strip("\ufeff \t\r\n").lower()
    if not head:
        raise UserError(f"{path} is empty; download or copy it again")
    if text.startswith(("<!doctype", "<html", "<?xml", "<head", "<!--")) or "<html" in text:
        raise UserError(f"{path} is a web page saved as weights; download the file itself")
    if text.startswith("version https://git-lfs"):
        raise UserError(f"{path} is a git-lfs pointer, not the file of weights; fetch it by `git lfs pull`")
    for magic, what in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise UserError(f"{path} is {what}")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors"
    if head.startswith(b"PK"):
        return _zipped(path)
    if head[257:262] == b"ustar":
        return "torch"  # as torch 0.1 wrote it, or any tar archive
    printable = all(c.isprintable() or c.isspace() or c == "\ufeff" for c in decoded)
    is_text = printable and len(decoded.encode()) > len(head) - 4  # the cut may fall inside a character
    if is_text and not imports(path.read_bytes())[1]:  # the oldest pickles are text, too
        raise UserError(f"{path} is text saved as weights ('{text[:40]}'); download the file itself")
    return "torch"


def _zipped(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except OSError:
        raise
    except Exception as e:  # damage surfaces as many kinds
        raise UserError(f"{path} {DAMAGED}") from e
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise UserError(f"{path} is a zip archive of other files ({', '.join(names[:3])}); unpack it first")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as e:
        raise UserError(f"{path} {DAMAGED}") from e


def _read_npz(path: Path) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    name = ""
    try:
        with np.load(path, allow_pickle=consent().everything) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except Exception as e:  # of zipfile, zlib, numpy, and of what a trusted pickle runs
        if name and "allow_pickle" in str(e):
            raise refusal(path, f"its array '{name}' holds Python objects") from e
        raise UserError(f"{path} {DAMAGED}") from e
    return {k: v.item() if v.dtype == object and v.ndim == 0 else v for k, v in arrays.items()}


def _tidy(value: Any, depth: int = 0) -> Any:
    """Tensors, and dictionaries of them by name; None for anything else."""
    if isinstance(value, Tensor):
        plain = value.layout == torch.strided and not (value.is_quantized or value.is_meta)
        return value.detach() if plain else None
    if isinstance(value, Numbers):
        value = value.array()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            return None
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if isinstance(value, nn.Module):
        return _tidy(value.state_dict(), depth)
    if isinstance(value, list | tuple) and depth == 0:  # torch.save((model.state_dict(), epoch))
        value = {str(i): part for i, part in enumerate(value)}
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return None
    items = ((k, _tidy(v, depth + 1)) for k, v in value.items() if isinstance(k, str))
    return {k: v for k, v in items if isinstance(v, Tensor) or v}


_READERS = {"safetensors": _read_safetensors, "npz": _read_npz, "torch": read_torch}
