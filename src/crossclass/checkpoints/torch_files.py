"""Files of torch.save and other pickles: the tensors are read, and no code of the file runs.

A pickle is a program. torch's weights-only reader follows only what makes tensors. numpy's classes, which
training scripts leave in their files, are replaced by classes without behaviour, so that numpy is never given
a foreign state. A file that wants to import anything else is refused by name, and is followed only on trust.
"""

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossclass.core.errors import UserError
from crossclass.core.trust import consent

_LEGACY = 5  # pickles in a file of torch before 1.6: its number, version, machine, the object, storage keys
DAMAGED = "is damaged or was cut off; download or copy it again"


def read_torch(path: Path) -> Any:
    """What torch.save wrote (with consent, any pickle), on the CPU, with `Numbers` for numpy's arrays.

    Raises UserError if the file is damaged, or holds more than tensors without `trusting(everything=True)`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice is for whoever saves or calls, not for a reader
        try:
            with torch.serialization.safe_globals(_stand_ins()):
                return torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as e:
            if not consent().everything:
                raise _explained(path, e) from e
        return _read_trusted(path)


def _read_trusted(path: Path) -> Any:
    try:
        if _bare(path.read_bytes()):
            with path.open("rb") as file:
                return pickle.load(file)
        return torch.load(path, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as e:
        raise UserError(
            f"{path} needs code that is not here ({e}); run where its author's code can be imported, or save "
            "its state_dict() there"
        ) from e
    except Exception as e:  # whatever a foreign program may raise
        raise UserError(f"{path} {DAMAGED} ({type(e).__name__}: {str(e)[:100]})") from e


def _explained(path: Path, e: Exception) -> UserError:
    """Why the weights-only reader gave up: refused, or damaged."""
    if "TorchScript" in str(e):
        return refusal(path, "it is a TorchScript program, not a state_dict")
    if "legacy .tar" in str(e):
        return UserError(f"{path} is a tar archive; unpack it first, or use --trust if torch 0.1 wrote it")
    raw, zipped = path.read_bytes(), False
    with suppress(zipfile.BadZipFile):  # the look for an archive's end can itself trip over damage
        zipped = zipfile.is_zipfile(path)
    if zipped:
        with suppress(Exception), zipfile.ZipFile(path) as archive:
            raw = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    bare = _bare(raw) and not zipped
    listed, whole = imports(raw, 1 if bare or zipped else _LEGACY)
    named = re.findall(r"GLOBAL ([\w.]+)", str(e)) or (listed if bare else [])
    if whole and named:
        return refusal(path, f"its pickle wants to import {', '.join(list(dict.fromkeys(named))[:3])}")
    if whole and (bare or isinstance(e, pickle.UnpicklingError)):
        return refusal(path, "its pickle is not one that torch's weights-only reader can follow")
    return UserError(f"{path} {DAMAGED}")


def refusal(path: Path, why: str) -> UserError:
    """The error for a file that would have to be unpickled."""
    return UserError(
        f"{path} is refused: {why}, and unpickling it could run any code; only if you trust its author, read "
        "it with --trust"
    )


def _bare(raw: bytes) -> bool:
    """Whether bytes begin neither an archive nor a file of torch: perhaps another pickle."""
    magic, begin = torch.serialization.MAGIC_NUMBER, raw[:64]
    return not (begin[:2] == b"PK" or magic.to_bytes(10, "little") in begin or str(magic).encode() in begin)


def imports(raw: bytes, pickles: int = 1) -> tuple[list[str], bool]:
    """The names that so many pickles in a row would import, and whether the pickles are whole.

    They are read off the pickles' instructions, and none is followed.
    """
    names: list[str] = []
    texts: list[str] = []
    memo: dict[int, str] = {}  # the last text, which is right where a text is kept
    known = 0
    with suppress(Exception):
        stream = io.BytesIO(raw)
        for op, arg, _ in chain.from_iterable(pickletools.genops(stream) for _ in range(pickles)):
            if op.name in ("GLOBAL", "INST"):
                names.append(str(arg).replace(" ", "."))
            elif op.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif op.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                memo[known if arg is None else arg] = texts[-1] if texts else ""
                known += 1
            elif op.name in ("GET", "BINGET", "LONG_BINGET") and arg in memo:
                texts.append(memo[arg])
            elif "UNICODE" in op.name or "STRING" in op.name:
                texts.append(str(arg))
        return names, True
    return names, False


class _Dtype:
    """Stands for numpy.dtype in a pickle and keeps its code and its byte order."""

    def __init__(self, code: str = "", align: bool = False, copy: bool = False) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class Numbers:
    """Stands for numpy.ndarray in a pickle and keeps its state, of which only numbers are read."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> np.ndarray | None:
        """A new numpy array of the numbers; None for Python objects and for a state that makes no sense."""
        with suppress(Exception):
            _, shape, kind, fortran, raw = self.state
            if isinstance(raw, bytes) and re.fullmatch(r"[biuf]\d{1,2}", kind.code):
                dtype = np.dtype(kind.code).newbyteorder("=" if kind.order == "|" else kind.order)
                return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
        return None


def _stand_ins() -> list[Any]:
    def no_number(kind: _Dtype, raw: bytes = b"") -> None:
        """Of a numpy scalar, such as a best accuracy, which is no tensor."""

    def empty(kind: type, shape: tuple[int, ...], code: bytes) -> Numbers:
        return Numbers()

    def no_bytes() -> bytes:
        return b""

    cores = ("numpy.core.multiarray", "numpy._core.multiarray")
    functions = [(f, f"{c}.{n}") for c in cores for f, n in ((no_number, "scalar"), (empty, "_reconstruct"))]
    return [*functions, (no_bytes, "builtins.bytes"), (_Dtype, "numpy.dtype"), (Numbers, "numpy.ndarray")]
