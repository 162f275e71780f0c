"""An archive at a published address: fetched on request, verified, unpacked beside itself.

It is unpacked into a scratch folder that is renamed at the end, so half of it is never seen.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from crossclass.data.base import demand, guarded, hint


class Archive(NamedTuple):
    """What is known about an archive before it is here."""

    kind: str  # of the data set, as in data.kind
    url: str
    md5: str
    folder: str  # what it unpacks to
    megabytes: int

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]

    def fetched(self, folder: Path, download: bool) -> Path:
        """The archive in a folder, from the network if allowed; raises UserError without it."""
        path = folder / self.name
        if download:
            import pooch

            with guarded(path, "cannot be downloaded", f"retry, or put {self.url} there"):
                pooch.retrieve(self.url, f"md5:{self.md5}", path.name, folder)
        what = f"holds neither a folder {self.folder} nor {self.name}"
        todo = f"correct data.path, or fetch {self.megabytes} MB by data.download=true{hint(path, self.kind)}"
        demand(path.is_file(), folder, what, todo)
        return path


def again(copy: Path) -> str:
    """The remedy for a damaged copy, a file or a folder."""
    return f"delete {copy} and use data.download=true"


def verified(path: Path, md5: str, copy: Path) -> bytes:
    """The bytes of a file of `copy` (itself, or its folder) if its checksum is right; raises UserError."""
    with guarded(path, "cannot be read", again(copy)):
        data = path.read_bytes()
    right = hashlib.md5(data, usedforsecurity=False).hexdigest() == md5
    demand(right, path, "has a wrong checksum", again(copy))
    return data


@contextmanager
def unpacking(archive: Path, home: Path) -> Iterator[Path]:
    """An empty scratch folder to fill, which then becomes `home`; it is gone if anything goes wrong."""
    todo = "make its folder writable, or unpack it elsewhere"
    with guarded(archive, "cannot be unpacked", todo):
        with TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as beside:
            scratch = Path(beside, home.name)
            scratch.mkdir()
            yield scratch
            with suppress(OSError):  # another process was faster, and its copy is as good
                scratch.rename(home)
