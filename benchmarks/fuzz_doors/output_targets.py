"""What `out=` may name: links, circles of links, pipes, folders, files of any mode, names of any length."""

import os
import random
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from crossclass.core.files import require_writable, write_atomic

from .door import TOKENS, Door

KINDS = (
    "file",
    "read-only",
    "link",
    "dangling",
    "circle",
    "folder",
    "pipe",
    "hard link",
    "absent",
    "in a file",
)


def _name(luck: random.Random) -> str:
    """A name of a file, with what is odd in names."""
    parts = [luck.choice(["m", "ш", "a b", ".", "..", "x" * luck.choice((10, 200, 300)), *TOKENS])]
    name = "".join([*parts, luck.choice(["", ".json", ".html", "."])]).replace("/", "-").replace("\0", "")
    return "m" if name in ("", ".", "..") else name


def _inputs(luck: random.Random) -> Iterator[tuple[str, str, int, int]]:
    while True:
        yield luck.choice(KINDS), _name(luck), luck.choice((0o644, 0o664, 0o600, 0o755)), luck.randrange(1, 4)


def _made(kind: str, path: Path, mode: int) -> None:
    if kind in ("file", "read-only", "hard link"):
        path.write_bytes(b"old")
        path.chmod(0o444 if kind == "read-only" else mode)
        if kind == "hard link":
            os.link(path, path.parent / "other")
    elif kind == "dangling":
        path.symlink_to("new folder/target")
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "in a file":
        path.write_bytes(b"old")


def _written(place: Path, given: tuple[str, str, int, int]) -> None:
    kind, name, mode, links = given
    path = place / "home" / name
    (place / "home").mkdir()
    with suppress(OSError):  # no file can have this name; to write to it is tried all the same
        _made("file" if kind == "link" else kind, path, mode)
    before = path.lstat() if os.path.lexists(path) else None
    out = path / "m.json" if kind == "in a file" else path
    for i in range(links if kind in ("link", "dangling", "pipe") else 0):
        (place / f"link {i}").symlink_to(out)
        out = place / f"link {i}"
    try:
        require_writable(out)
        write_atomic(out, b"new")
        if out.read_bytes() != b"new":
            raise AssertionError("not written")
        if kind in ("file", "link") and before and stat.S_IMODE(path.stat().st_mode) != mode:
            raise AssertionError("another mode")
    finally:
        after = path.lstat() if before else None
        if before and after and stat.S_IFMT(before.st_mode) != stat.S_IFMT(after.st_mode):
            raise AssertionError("it is something else now")
        if kind in ("read-only", "in a file") and before and path.read_bytes() != b"old":
            raise AssertionError("what was to be kept is changed")
        if kind == "hard link" and before and (place / "home" / "other").read_bytes() != b"old":
            raise AssertionError("the other link is changed")
        if list(place.rglob(".*.tmp")):
            raise AssertionError("half-written files are left")


def output_target() -> Door:
    """What `out=` names."""
    return Door(_inputs, _written)


DOORS = {"output targets": output_target()}
