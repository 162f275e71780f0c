"""Files that a page carries for download."""

import base64
import gzip
from pathlib import Path

WHOLE = 100_000
"""Bytes up to which a file is carried as it is; a larger one is compressed, to about a sixth."""


def download(file: Path, whole: int = WHOLE) -> tuple[str, str]:
    """The name and the data URL of a file: as it is up to `whole` bytes, else as NAME.gz."""
    data, name, kind = file.read_bytes(), file.name, "octet-stream"
    if len(data) > whole:
        data, name, kind = (
            gzip.compress(data, mtime=0),
            f"{name}.gz",
            "gzip",
        )  # without a time: the same bytes again
    return name, f"data:application/{kind};base64,{base64.b64encode(data).decode()}"
