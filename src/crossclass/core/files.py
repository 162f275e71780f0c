"""A file is either the old one or the new one, never a part of one.

Everything the tool writes goes through `write_atomic`: a temporary sibling, flushed to the disk, then
renamed over the target. A full or read-only disk becomes one sentence, and the old file stays.
"""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from crossclass.core.errors import BusyError, UserError


def require_writable(path: Path) -> None:
    """Raises UserError if a file cannot be written there: asked before hours of work, not after."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file with out=..., such as {path / 'result.json'}")
    for parent in path.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise UserError(f"{parent} is a file, not a folder; choose another place with out=...")
            if not os.access(parent, os.W_OK):
                raise UserError(f"{parent} cannot be written to; choose another place with out=...")
            return


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content` in one step; raises UserError if the disk refuses."""
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
    """Append one line and flush it to the disk; a cut-off line is dropped by `complete_lines`."""
    try:
        with open(path, "ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as e:
        raise write_error(path, e) from e


def complete_lines(path: Path) -> list[str]:
    """The lines of a file that `append_line` finished; a last line without its end is left out."""
    if not path.exists():
        return []
    text = path.read_bytes().decode(errors="replace")
    return text.split("\n")[:-1]


def write_error(path: Path, e: OSError) -> UserError:
    """The sentence for a disk that refuses to write `path`."""
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
    """Hold a lock file while inside; raises BusyError if another process holds it, and says which.

    The system lets go of it when the process ends, however it ends, so no lock is ever stale. `what` is
    what the holder does to the thing, such as "runs/x is being trained".
    """
    try:
        import fcntl
    except ImportError:  # Windows: one has to look out for oneself
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
        except OSError:  # a file system without locks: one has to look out for oneself
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
