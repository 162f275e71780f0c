"""Any file of weights becomes named tensors, and no code in it runs.

The format is recognised by the bytes of the file, not by its name: many a model.pth is a web page. What is
not read is named by `other_formats`.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crossclass.checkpoints import other_formats, shards
from crossclass.checkpoints.inert import TooMuchError, follow_bytes
from crossclass.checkpoints.tensor_tree import Reduction, Tree
from crossclass.checkpoints.torch_files import (
    DAMAGED,
    Pickled,
    is_pickle,
    read_torch,
    read_trusted,
    refusal,
    table_of,
)
from crossclass.core.errors import UserError
from crossclass.core.trust import consent

SUFFIXES = frozenset(
    {".pt", ".pth", ".tar", ".ckpt", ".bin", ".pkl", ".safetensors", ".npz", ".t7", ".model"}
)
"""Usual endings of the names of such files."""


def read(path: Path) -> Tree:
    """The tensors of a safetensors, npz or torch file, or of a folder of them, on the CPU, by name.

    Returns nested dictionaries as they are in the file; what is no tensor is left out. Objects of classes are
    looked into, and none of their code runs. Raises UserError for a file of another format, a damaged one,
    one without tensors, and a pickle whose tensors only its code can make, unless `trusting(everything=True)`
    lets it.
    """
    try:
        if path.is_dir():
            path = shards.file_in(path)
        if (weight_map := other_formats.index_of(path)) is not None:
            return Tree(shards.read_shards(path, weight_map, _read_one))
        shards.require_whole(path)
        return _read_one(path)
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist; correct the path") from e
    except OSError as e:
        why = e.strerror or "damaged"
        raise UserError(f"{path} cannot be read ({why}); check it and its permissions") from e


def _read_one(path: Path) -> Tree:
    with path.open("rb") as file:
        head = file.read(1024)
    kind = _format(path, head)
    found = _READERS[kind](path)
    reduction = Reduction()
    try:
        tree = reduction.tree(found.value)
        if not tree_holds_tensors(tree) and found.imported and consent().everything:
            tree = reduction.tree(read_trusted(path) if kind == "torch" else _trusted_npz(path))
    except TooMuchError as e:
        raise UserError(f"{path} is no file of weights that can be read: it has {e}") from e
    if quantised := reduction.left_out.get("quantised"):
        raise UserError(
            f"{path} holds quantised tensors ({', '.join(quantised[:3])}), which an attack cannot follow; "
            "save the network before it is quantised"
        )
    if isinstance(tree, Tensor):
        raise UserError(f"{path} holds one tensor without a name; save the model's state_dict() instead")
    if not tree_holds_tensors(tree):
        if found.imported:
            named = ", ".join(list(found.imported)[:3])
            raise refusal(path, f"it holds no named tensors, but objects that its pickle makes with {named}")
        raise UserError(f"{path} holds no named tensors; save the model's state_dict()")
    assert isinstance(tree, Tree)
    return tree


def tree_holds_tensors(tree: Any) -> bool:
    """Whether there is any tensor; `tree` is a `Tree`, a tensor or None."""
    return isinstance(tree, Tensor) or (
        isinstance(tree, Tree) and any(map(tree_holds_tensors, tree.values()))
    )


def _format(path: Path, head: bytes) -> str:
    """Which of `_READERS` reads a file that begins with `head`; raises UserError if none does."""
    other_formats.require_other(path, head)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors"
    if head.startswith(b"PK"):
        return _zipped(path)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head[257:262] == b"ustar":
        if consent().everything:
            return "tar"  # as torch 0.1 wrote it, or any tar archive
        raise UserError(f"{path} is a tar archive; unpack it first, or use --trust if torch 0.1 wrote it")
    decoded = head.decode("utf-8", "ignore")
    printable = all(c.isprintable() or c.isspace() or c == "\ufeff" for c in decoded)
    is_text = printable and len(decoded.encode()) > len(head) - 4  # the cut may fall inside a character
    if is_text and not is_pickle(path):  # the oldest pickles are text, too
        raise other_formats.text_file(path, head)
    return "torch"


def _zipped(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("data.pkl") for name in names):
                return "torch"
            if names and all(name.endswith(".npy") for name in names):
                return "npz"
            error = other_formats.archive_of_others(path, archive)
    except OSError:
        raise
    except Exception as e:  # damage surfaces as many kinds
        raise UserError(f"{path} {DAMAGED}") from e
    raise error


def _read_safetensors(path: Path) -> Pickled:
    try:
        return Pickled(load_file(path))
    except (SafetensorError, ValueError, KeyError) as e:
        raise UserError(f"{path} {DAMAGED}") from e


def _read_npz(path: Path) -> Pickled:
    found = Pickled({})
    try:
        with zipfile.ZipFile(path) as archive:
            length = path.stat().st_size
            unpacked = sum(info.file_size for info in archive.infolist())
            if unpacked > 2**32 and unpacked > 2000 * length:
                raise TooMuchError(f"{unpacked} bytes packed into {length}")
            for name in archive.namelist():
                with archive.open(name) as stream:
                    found.value[name.removesuffix(".npy")] = _array(stream, found)
    except TooMuchError as e:
        raise UserError(f"{path} is no file of weights that can be read: it has {e}") from e
    except Exception as e:  # of zipfile, zlib and numpy
        raise UserError(f"{path} {DAMAGED}") from e
    return found


def _read_npy(path: Path) -> Pickled:
    found = Pickled(None)
    try:
        with path.open("rb") as stream:
            found.value = _array(stream, found)
    except TooMuchError as e:
        raise UserError(f"{path} is no file of weights that can be read: it has {e}") from e
    except Exception as e:
        raise UserError(f"{path} {DAMAGED}") from e
    if isinstance(found.value, np.ndarray):
        raise UserError(f"{path} is one array without a name; save all of them by name with numpy.savez")
    return found


def _array(stream: Any, found: Pickled) -> Any:
    """One array of numpy's format; Python objects in it are followed without running anything."""
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(stream)
    if dtype.hasobject:
        return follow_bytes(stream.read(), table_of(found.imported), found.imported)
    raw = stream.read(int(np.prod(shape, dtype=object)) * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _trusted_npz(path: Path) -> Any:
    with np.load(path, allow_pickle=True) as archive:
        return {k: v.item() if v.dtype == object and v.ndim == 0 else v for k, v in archive.items()}


def _read_tar(path: Path) -> Pickled:
    return Pickled(read_trusted(path))


_READERS = {
    **{"safetensors": _read_safetensors, "npz": _read_npz, "npy": _read_npy},
    **{"torch": read_torch, "tar": _read_tar},
}
