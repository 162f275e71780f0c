"""Writing files so that an interruption leaves either the old file or the new one, never a part of one.

`write_atomic`, by which every result is written, writes a temporary file beside, flushes it to the disk and
renames it. Symbolic links are followed: their target changes, and they stay. What is no regular file (a
pipe, a device, /dev/stdout) is written through. If the disk is full or read-only, it raises a UserError and
the old file stays.
"""

import errno
import json
import math
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from crossclass.core import destinations
from crossclass.core.errors import BusyError, UserError


def require_writable(path: Path) -> None:
    """Raises UserError if `path` cannot be written; call it before hours of work, not after them.

    A pipe is opened, so that its reader waits.
    """
    try:
        end = destinations.follow(path)
        if destinations.takes_bytes(end):
            if destinations.descriptor(end) is None and not os.access(end, os.W_OK):
                raise UserError(f"{path} cannot be written to; choose another place with out=...")
            destinations.wait_with(end)
            return
        if end.is_dir():
            raise UserError(f"{path} is a folder; give a file with out=..., such as {path / 'result.json'}")
        if end.exists():
            _require_not_protected(end)
            return  # in a folder that cannot be written to, too: then the file itself is written
    except OSError as e:
        raise write_error(path, e) from e
    try:
        parents = [*end.absolute().parents]
    except FileNotFoundError as e:
        raise UserError(
            f"the current folder is gone; go to another one, or give out=/FOLDER/{path.name}"
        ) from e
    for parent in parents:
        if parent.exists():
            if not parent.is_dir():
                raise UserError(f"{parent} is a file, not a folder; choose another place with out=...")
            if not os.access(parent, os.W_OK | os.X_OK):
                raise UserError(f"{parent} cannot be written to; choose another place with out=...")
            return


def _require_not_protected(path: Path) -> None:
    """Raises UserError if the file is read-only, for root too, whom the system would let through."""
    if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
        raise UserError(f"{path} is read-only and is kept; choose another name with out=..., or chmod u+w it")


def require_ending(path: Path, *endings: str) -> None:
    """Raises UserError if the name of a file ends in another format than these; it may have no ending."""
    if path.suffix and path.suffix.lower() not in endings:
        raise UserError(
            f"{path}: this command writes {' or '.join(endings)}, not '{path.suffix}'; give "
            f"out={path.with_suffix(endings[0])}"
        )


def json_text(content: Any, indent: int | None = 1, **options: Any) -> str:
    """Plain data as JSON, with null for numbers that are not finite, which JSON does not have.

    `options` are those of `json.dumps`, such as `sort_keys`.
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the file at `path` by `content` in one step; its folder is made if there is none.

    Text is written as UTF-8. Links, modes and what is no regular file: see `replacing`. Raises UserError if
    it cannot be written to.
    """
    with replacing(path) as file:
        file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary stream; what is written to it replaces the file at `path` when the block ends well.

    A symbolic link is followed, so that its target is replaced (or made). A file that is there passes its
    mode and, where that is allowed, its owner on; a new one gets what the umask leaves. Other hard links
    keep the old content, so that copies made by `cp -l` are not changed behind their owner's back. A
    read-only file is kept. A pipe, a device or /dev/fd/N takes the bytes and stays what it is. Where a file
    can be written but not renamed over (a file mounted alone into a container, somebody's folder), it is
    written in place, the one case in which an interruption can leave a part of it.

    Raises:
        UserError: It cannot be written to, or the disk is full.
    """
    try:
        end = destinations.follow(path)
        if destinations.takes_bytes(end):
            with open(destinations.open_to_write(end), "wb") as file:
                yield file
            return
        before = end.stat() if end.exists() else None
        if before:
            _require_not_protected(end)
        else:
            end.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(end)
        try:
            with _beside_or_in_place(temporary, end if before else None) as file:
                yield file
                file.flush()
                if before:
                    _keep_mode_and_owner(file.fileno(), before)
                os.fsync(file.fileno())
            if temporary.exists():
                _rename(temporary, end)
        finally:
            # after success it is gone; after any failure nothing half-written may stay
            with suppress(OSError):  # a parent that is a file, say: then there is nothing to clean
                temporary.unlink(missing_ok=True)
    except OSError as e:
        raise write_error(path, e) from e


def _temporary(path: Path) -> Path:
    """A name beside `path` that no other writer takes, also where `path` is as long as names may be."""
    start = os.fsdecode(os.fsencode(path.name)[:200])
    return path.with_name(f".{start}.{os.getpid()}.{uuid4().hex[:8]}.tmp")


def _beside_or_in_place(temporary: Path, old: Path | None) -> BinaryIO:
    try:
        return open(temporary, "xb")
    except OSError as e:
        if old is None or e.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return open(old, "wb")


def _keep_mode_and_owner(file: int, before: os.stat_result) -> None:
    new = os.fstat(file)
    if os.path.samestat(new, before) or not hasattr(os, "fchown"):  # in place; Windows
        return
    for user, group in ((before.st_uid, before.st_gid), (-1, before.st_gid)):
        if (new.st_uid, new.st_gid) != (before.st_uid, before.st_gid):
            with suppress(OSError):
                os.fchown(file, user, group)
                break
    os.fchmod(file, stat.S_IMODE(before.st_mode))


def _rename(temporary: Path, to: Path) -> None:
    try:
        os.replace(temporary, to)
    except OSError as e:
        if e.errno not in (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES) or not to.is_file():
            raise
        with open(temporary, "rb") as source, open(to, "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())


def append_line(path: Path, line: str) -> None:
    """Append a line to a file and flush it to the disk; `complete_lines` leaves out a line that was cut off.

    Raises UserError if the disk is full or cannot be written to.
    """
    try:
        with open(path, "ab") as file:
            file.write(line.encode("utf-8", "backslashreplace") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as e:
        raise write_error(path, e) from e


def complete_lines(path: Path) -> list[str]:
    """The lines of a file, without a last one that has no line end; none if there is no file."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", "replace")
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
        above = next((p for p in path.parents if p.exists() and not p.is_dir()), path.parent)
        return UserError(f"{above} is a file, not a folder; choose another folder with out=DIR")
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
            file = stack.enter_context(open(path, "a+", encoding="utf-8", errors="replace"))
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
