"""Files of torch.save and other pickles: the tensors are read, and no code of the file runs.

torch.save writes a zip archive (since 1.6) or several pickles in a row, and keeps the numbers beside the
pickle that names them. The pickle is followed by `inert`, with `stand_ins` for what makes tensors; large
archives are mapped into memory instead of read.
"""

import io
import pickle
import pickletools
import struct
import sys
import warnings
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import UntypedStorage

from crossclass.checkpoints.inert import MOST, Inert, Stream, Table, TooMuchError, follow
from crossclass.checkpoints.stand_ins import TABLE, Memory, storage_dtype
from crossclass.core.errors import UserError
from crossclass.core.foreign_code import foreign_code
from crossclass.core.trust import make_importable

_MAPPED = (
    2**28
)  # bytes from which on an archive is mapped: a small file may be written again while it is used
_UNPACKED = 2**32, 50  # bytes in a compressed archive that are too many if they are so many times its size
DAMAGED = "is damaged or was cut off; download or copy it again"


@dataclass
class Pickled:
    """The content of a file of torch or of a pickle."""

    value: Any
    imported: dict[str, None] = field(default_factory=dict)
    """Names of what the file would have called besides what makes tensors."""


def read_torch(path: Path) -> Pickled:
    """What torch.save or pickle wrote, on the CPU, with `Inert` objects for whatever is no plain data.

    Raises UserError if the file is damaged, or would take far more time or memory than weights need.
    """
    found = Pickled(None)
    try:
        with path.open("rb") as file:
            head = file.read(64)
            file.seek(0)
            if head[:2] == b"PK":
                found.value = _read_zip(path, file, found.imported)
            elif _bare(head):
                found.value = follow(file, table_of(found.imported, 0), _no_numbers, found.imported)
            else:
                found.value = _read_legacy(file, path.stat().st_size, found.imported, 0)
    except OSError:
        raise
    except TooMuchError as e:
        raise UserError(f"{path} is no file of weights that can be read: it has {e}") from e
    except Exception as e:  # damage surfaces as many kinds
        raise UserError(f"{path} {DAMAGED}") from e
    return found


def read_trusted(path: Path) -> Any:
    """What a file holds after running its code. Raises UserError if that fails."""
    for folder in (Path.cwd(), path.parent):  # where the classes of a whole network usually lie
        make_importable(folder)
    try:
        with warnings.catch_warnings(), foreign_code(str(path), "unpickling"):
            warnings.simplefilter("ignore")  # torch's advice is for whoever saves or calls, not for a reader
            with path.open("rb") as file:
                if _bare(file.read(64)):
                    file.seek(0)
                    return pickle.load(file)
            return torch.load(path, map_location="cpu", weights_only=False)
    except UserError:
        raise
    except (ImportError, AttributeError) as e:
        raise UserError(
            f"{path} needs code that is not here ({e}); run where its author's code can be imported, or save "
            "its state_dict() there"
        ) from e
    except Exception as e:  # whatever a foreign program may raise
        raise UserError(f"{path} {DAMAGED} ({type(e).__name__}: {str(e)[:100]})") from e


def refusal(path: Path, why: str) -> UserError:
    """The error for a file that would have to be unpickled."""
    return UserError(
        f"{path} is refused: {why}, and unpickling it could run any code; only if you trust its author, read "
        "it with --trust"
    )


def table_of(imported: dict[str, None], depth: int = 0) -> Table:
    """The functions to call, with one for tensors that a plain pickle keeps as files of torch within it."""

    def from_bytes(raw: Any) -> Any:
        if depth or not isinstance(raw, bytes):
            return Inert("torch.storage._load_from_bytes")
        return _read_legacy(io.BytesIO(raw), len(raw), imported, 1)

    return {**TABLE, "torch.storage._load_from_bytes": from_bytes}


# ---- Archives. ----


def _read_zip(path: Path, file: Stream, imported: dict[str, None]) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        length = path.stat().st_size
        unpacked = sum(info.file_size for info in entries.values())
        if unpacked > _UNPACKED[0] and unpacked > _UNPACKED[1] * length:
            raise TooMuchError(f"{unpacked} bytes packed into {length}")
        pickled = min((n for n in entries if n.endswith("data.pkl")), key=len)
        root = pickled.removesuffix("data.pkl")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
        whole = UntypedStorage.from_file(str(path), False, length) if length >= _MAPPED else None
        memories: dict[str, UntypedStorage] = {}

        def numbers(key: str) -> UntypedStorage:
            info = entries[f"{root}data/{key}"]
            if info.compress_type != zipfile.ZIP_STORED:
                return _storage(bytearray(archive.read(info)))
            file.seek(info.header_offset + 26)
            at = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
            if at + info.file_size > length:
                raise ValueError("an entry reaches beyond the file")
            if whole is not None and at % 16 == 0:
                return whole[at : at + info.file_size]
            file.seek(at)
            return _storage(bytearray(file.read(info.file_size)))

        def persistent(key: Any) -> Memory | Inert:
            if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage":
                return Inert("persistent")
            dtype = storage_dtype(key[1])
            if key[2] not in memories:
                memories[key[2]] = numbers(str(key[2]))
                if order.strip() != sys.byteorder.encode():
                    memories[key[2]] = memories[key[2]].clone()
                    memories[key[2]].byteswap(dtype)
            nbytes = int(key[4]) * dtype.itemsize
            if not 0 <= nbytes <= memories[key[2]].nbytes():
                raise ValueError("numbers are missing")
            return Memory(memories[key[2]], dtype)

        with archive.open(pickled) as stream:
            return follow(io.BytesIO(stream.read()), table_of(imported, 0), persistent, imported)


def _no_numbers(key: Any) -> Inert:
    return Inert("persistent")


def _storage(raw: bytearray) -> UntypedStorage:
    return torch.frombuffer(raw, dtype=torch.uint8).untyped_storage() if raw else UntypedStorage(0)


# ---- Files of torch before 1.6. ----


def _read_legacy(file: Stream, length: int, imported: dict[str, None], depth: int) -> Any:
    table, memories = table_of(imported, depth), dict[str, Memory]()

    def persistent(key: Any) -> Any:
        nonlocal length
        if not isinstance(key, tuple) or len(key) < 2:
            return Inert("persistent")
        if key[0] != "storage":  # ("module", class, file, its source)
            return key[1]
        _, kind, name, _, n, *view = key
        dtype = storage_dtype(kind)
        if name not in memories:
            length -= n * dtype.itemsize
            if n < 0 or length < 0:
                raise ValueError("numbers are missing")
            memories[name] = Memory(UntypedStorage(n * dtype.itemsize), dtype)
        if view and view[0] is not None:
            _, offset, size = view[0]
            at, end = offset * dtype.itemsize, (offset + size) * dtype.itemsize
            if not 0 <= at <= end <= memories[name].bytes.nbytes():
                raise ValueError("a view reaches beyond its memory")
            return Memory(memories[name].bytes[at:end], dtype)
        return memories[name]

    def no_key(key: Any) -> Any:
        raise ValueError("a key where none belongs")

    magic, version, _ = (follow(file, table, no_key, imported) for _ in range(3))
    if magic != torch.serialization.MAGIC_NUMBER or version != torch.serialization.PROTOCOL_VERSION:
        raise ValueError("another format")
    value = follow(file, table, persistent, imported)
    for key in follow(file, table, no_key, imported):
        memory = memories[key]
        (n,) = struct.unpack("<q", file.read(8))
        if n * memory.dtype.itemsize != memory.bytes.nbytes():
            raise ValueError("numbers are missing")
        if n:
            into = torch.empty(0, dtype=torch.uint8).set_(memory.bytes)
            if file.readinto(into.numpy().data) != memory.bytes.nbytes():
                raise ValueError("numbers are missing")
    return value


def _bare(begin: bytes) -> bool:
    """Whether bytes begin neither an archive nor a file of torch: perhaps another pickle."""
    magic = torch.serialization.MAGIC_NUMBER
    number, text = magic.to_bytes(10, "little"), str(magic).encode()
    return not (begin[:2] == b"PK" or number in begin[:24] or text in begin[:30])


def is_pickle(path: Path) -> bool:
    """Whether a file begins with a whole pickle; the oldest are text."""
    with suppress(ValueError), path.open("rb") as file:
        return all(count < MOST for count, _ in enumerate(pickletools.genops(file)))
    return False
