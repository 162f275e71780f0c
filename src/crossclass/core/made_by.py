"""Which command line made a file, so that another one does not overwrite it.

A file says it itself, in words that begin with `made by crossclass command` and a digest: a key of JSON, the
metadata of a page or a figure. The same command line replaces its own file; any other one takes the next free
name (`measure-2.json`), or, where a name was asked for, keeps a copy of what was there (`name-old.json`).
"""

import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from crossclass.core.destinations import follow, is_replaced, takes_bytes
from crossclass.core.errors import UserError
from crossclass.core.files import write_error

_MARK = re.compile(rb"made by crossclass command ([0-9a-f]{16})")


def mark(identity: Sequence[str], words: str) -> str:
    """What a file says about the command line that made it.

    Args:
        identity: All that tells the command line from others.
        words: The command line for a person, without folders of this machine.
    """
    digest = hashlib.sha256("\0".join(identity).encode(errors="surrogateescape")).hexdigest()[:16]
    return f"made by crossclass command {digest}: {words}".encode(errors="replace").decode()


def is_free(path: Path, mark: str) -> bool:
    """Whether a command line with this mark may write the file: there is none, it is empty, or its own.

    Pipes and devices are free.
    """
    if not is_replaced(path) or path.stat().st_size == 0:
        return True
    if not os.access(path, os.R_OK):
        return False
    found = _MARK.search(path.read_bytes())
    return found is not None and found[1].decode() in mark


def own_name(path: Path, mark: str) -> Path:
    """`path`, or the first of `name-2.json`, `name-3.json`, ... that is free or was made by this mark."""
    names = (path if i == 1 else path.with_name(f"{path.stem}-{i}{path.suffix}") for i in itertools.count(1))
    return next(name for name in names if is_free(name, mark))


@contextmanager
def reserved(path: Path, mark: str) -> Iterator[Path]:
    """Hold the folder while a file is written in it, under its `own_name`.

    Between a check before hours of work and the end of them, another process may have made a file.
    """
    with _held(path) as end:
        yield path if end is None else own_name(path, mark)


@contextmanager
def _held(path: Path) -> Iterator[Path | None]:
    """Lock the folder of what lies at the end of a path; that end, or None for a pipe or a device."""
    try:
        end = follow(path)
        if takes_bytes(end):
            yield None
            return
        end.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise write_error(path, e) from e
    folder = None
    with suppress(ImportError, OSError):  # Windows, or a file system without locks
        import fcntl

        folder = os.open(end.parent, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        yield end
    finally:
        if folder is not None:
            os.close(folder)


@contextmanager
def replaced(path: Path, mark: str, say: Callable[[str], object]) -> Iterator[Path]:
    """Hold the folder while a file is written under the name that was asked for.

    What another command line or another program made there is copied to `name-old.json` first, which `say`
    is told. Raises UserError if it cannot be copied.
    """
    with _held(path) as end:
        if end is not None and not is_free(path, mark):
            try:
                kept = _copied(end)
            except OSError as e:
                raise UserError(
                    f"{path} was not made by this command line and cannot be copied ({e.strerror}); give "
                    "another name, or delete it"
                ) from e
            say(f"what {path} was before is kept as {kept}")
        yield path


def _copied(end: Path) -> Path:
    """Copy a file, and the matrices of a result beside it, to the first free name."""
    names = (f"{end.stem}-old{f'-{i}' * (i > 1)}" for i in itertools.count(1))
    stem = next(name for name in names if not os.path.lexists(end.with_name(name + end.suffix)))
    matrices = end.with_name(f"{end.stem}-matrices.npz")
    if matrices.is_file():
        shutil.copy2(matrices, end.with_name(f"{stem}-matrices.npz"))
    return Path(shutil.copy2(end, end.with_name(stem + end.suffix)))
