"""Where bytes go that are written to a path: a regular file, a pipe, a device, or an open descriptor.

Symbolic links are followed, dangling ones too. A regular file is replaced as a whole; anything else takes the
bytes and stays what it is. A disk (a block device) is never written to.
"""

import errno
import os
import re
import stat
import sys
from pathlib import Path

from crossclass.core.errors import UserError

_LINKS = 40
"""So many symbolic links does Linux follow."""
_waiting: dict[Path, int] = {}
"""Pipes that are open already, so that their readers wait until there is something to read."""


def follow(path: Path) -> Path:
    """The path behind all symbolic links of the last part of `path`, which need not exist.

    Links to descriptors, such as /dev/stdout, end at the descriptor: /proc/1234/fd/1. Raises UserError if
    links lead in a circle, and OSError if a folder cannot be read.
    """
    if "\0" in str(path):
        raise UserError(f"{path} is no path: it has a null byte; choose another name with out=...")
    end = path
    for _ in range(_LINKS):
        if descriptor(end) is not None or not end.is_symlink():
            return end
        end = end.parent / os.readlink(end)
    raise UserError(f"{path} is a symbolic link that leads in a circle; choose another file with out=...")


def descriptor(path: Path) -> int | None:
    """The number N where the path is /dev/fd/N or /proc/self/fd/N, as of process substitution; else None."""
    pattern = rf"(/proc/{os.getpid()}(/task/\d+)?|/dev)/fd"
    own = path.name.isdecimal() and re.fullmatch(pattern, os.path.realpath(path.parent))
    return int(path.name) if own else None


def is_stdout(path: Path) -> bool:
    """Whether the path is this process's standard output."""
    try:
        return descriptor(follow(path)) == 1
    except (OSError, UserError):
        return False


def is_replaced(path: Path) -> bool:
    """Whether writing to the path replaces a regular file that is there."""
    try:
        end = follow(path)
        return descriptor(end) is None and end.is_file()
    except (OSError, UserError):
        return False


def takes_bytes(path: Path) -> bool:
    """Whether `path`, behind its links, is written through: a pipe, a device, a descriptor of this process.

    Raises UserError if it is a disk, a socket, or a descriptor that is closed or can only be read.
    """
    number = descriptor(path)
    if number is not None:
        _require_open(number, path)
        return True
    try:
        kind = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISBLK(kind):
        raise UserError(f"{path} is a disk, which is not written to; give a file with out=...")
    if stat.S_ISSOCK(kind):
        raise UserError(f"{path} is a socket, which is not written to; give a file with out=...")
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def wait_with(path: Path) -> None:
    """Open a pipe now, so that its reader waits for what `open_to_write` will return later.

    Raises UserError if nobody reads from it: to wait for a reader could be to wait for ever.
    """
    if path.is_fifo() and path not in _waiting:
        _waiting[path] = _opened(path)


def open_to_write(path: Path) -> int:
    """A descriptor of what `takes_bytes`, which stays what it is: not made, replaced, or cut off."""
    number = descriptor(path)
    if number is None:
        return _waiting.pop(path, None) or _opened(path)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # what was printed before comes first
    return os.dup(number)


def _opened(path: Path) -> int:
    try:
        number = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as e:
        if path.is_fifo() and e.errno == errno.ENXIO:
            raise UserError(
                f"no program reads from the pipe {path}; start the reader first, or give a file with out=..."
            ) from e
        raise
    os.set_blocking(number, True)
    return number


def _require_open(number: int, path: Path) -> None:
    # Python itself has no stream where 1 or 2 was closed; what is opened later takes the number
    closed = (number == 1 and sys.__stdout__ is None) or (number == 2 and sys.__stderr__ is None)
    try:
        import fcntl

        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        closed = closed or mode == os.O_RDONLY
    except OSError:
        closed = True
    if closed:
        raise UserError(f"{path} is closed, or only for reading; give a file with out=...")
