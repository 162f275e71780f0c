"""Writing files so that an interruption leaves either the old file or the new one, never a part of one.

`write_atomic` writes a temporary file in the same folder, flushes it to the disk and renames it. If the disk
is full or read-only, it raises a UserError and the old file stays.
"""

import errno
import json
import math
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from crossclass.core.errors import BusyError, UserError


def require_writable(path: Path) -> None:
    """Raises UserError if `path` cannot be written; call it before hours of work, not after them."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file with out=..., such as {path / 'result.json'}")
    for parent in path.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise UserError(f"{parent} is a file, not a folder; choose another place with out=...")
            if not os.access(parent, os.W_OK):
                raise UserError(f"{parent} cannot be written to; choose another place with out=...")
            return


def require_ending(path: Path, *endings: str) -> None:
    """Raises UserError if the name of a file ends in another format than these; it may have no ending."""
    if path.suffix and path.suffix.lower() not in endings:
        raise UserError(
            f"{path}: this command writes {' or '.join(endings)}, not '{path.suffix}'; give "
            f"out={path.with_suffix(endings[0])}"
        )


def json_text(content: Any, indent: int | None = 1) -> str:
    """Plain data as JSON, with null for numbers that are not finite, which JSON does not have."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the file at `path` by `content` in one step; its folder is made if there is none.

    Text is written as UTF-8. Raises UserError if the disk is full or cannot be written to.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as e:
        raise write_error(path, e) from e
    finally:
        # after success it is gone; after any failure nothing half-written may stay
        with suppress(OSError):  # a parent that is a file, say: then there is nothing to clean
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file and flush it to the disk; `complete_lines` leaves out a line that was cut off.

    Raises UserError if the disk is full or cannot be written to.
    """
    try:
        with open(path, "ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as e:
        raise write_error(path, e) from e


def complete_lines(path: Path) -> list[str]:
    """The lines of a file, without a last one that has no line end; none if there is no file."""
    if not path.exists():
        return []
    text = path.read_bytes().decode(errors="replace")
    return text.split("\n")[:-1]


def write_error(path: Path, e: OSError) -> UserError:
    """A UserError that says why `path` cannot be written and what to do."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(
            f"no space left to write {path}; free some, or choose another folder with out=DIR, and run "
            "the same command again: what was finished is kept"
        )
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{path.parent} cannot be written to; choose another folder with out=DIR")
    if isinstance(e, FileExistsError | NotADirectoryError):
        return UserError(f"{path.parent} is a file, not a folder; choose another folder with out=DIR")
    return UserError(f"{path} cannot be written ({e.strerror or e}); choose another place with out=...")


@contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path` inside.

    The operating system releases it when the process ends, however it ends, so no lock is ever stale. `what`
    is what is done under the lock, such as "runs/x is being trained". Raises BusyError, which names the other
    process, if another one holds it; UserError if the file cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks: the user must not start two
        yield
        return
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "a+"))
        except OSError as e:
            raise write_error(path, e) from e
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            file.seek(0)
            who = file.read().strip() or "another process"
            raise BusyError(f"{what} by {who}; wait for it, or choose another folder with out=DIR") from e
        except OSError:  # a file system without locks: the user must not start two
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
