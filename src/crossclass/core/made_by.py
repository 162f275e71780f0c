"""Which command line made a file, so that another one does not overwrite it.

A file says it itself, in words that begin with `made by crossclass command` and a digest: a key of JSON, the
metadata of a page or a figure. The same command line replaces its own file; any other one takes the next free
name (`measure-2.json`), or, where a name was asked for, is refused before it works.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
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
    try:
        end = follow(path)
        if takes_bytes(end):
            yield path
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
        yield own_name(path, mark)
    finally:
        if folder is not None:
            os.close(folder)


def require_free(path: Path, mark: str) -> None:
    """Raises UserError if another command line, or another program, made the file."""
    if not is_free(path, mark):
        raise UserError(
            f"{path} was not made by this command line from the same files and is kept; give another name, "
            f"such as out={own_name(path, mark)}, or delete it"
        )
