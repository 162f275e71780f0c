"""Whether a command's run is finished, known from the run's folder alone: to import torch takes seconds.

A run folder is found by the digest of its settings, which only the whole library can compute. So each folder
also keeps a digest of the words of every command that ended with it, and of the names and defaults of that
version. Words that name files are never kept: what is in a file may have changed.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from crossclass.cli.catalogue import PATH as CATALOGUE
from crossclass.core.errors import UserError
from crossclass.core.files import append_line, complete_lines
from crossclass.core.launch_environment import process_count

_FILE = "commands"
"""In the run folder: a digest on each line."""
_WHERE = ("out", "runtime", "device", "threads")
"""Settings that change where and how a run is trained, and not what it is."""


def finished_folder(target: str, arguments: Sequence[str], out: Path) -> Path | None:
    """The folder of the finished run that a command names, with its page; None if that is not known at once.

    Args:
        target: A named run, or a run folder.
        arguments: The settings behind it, `path=value`.
        out: The folder of runs, unless an argument says another.
    """
    settings = dict(_split(argument) for argument in arguments)
    if (Path(target) / "config.yaml").is_file():
        return _with_page(Path(target).absolute()) if not settings else None
    words = _digest(target, arguments)
    folders = sorted(Path(settings.get("out", out)).glob(f"*/{_FILE}")) if words else []
    found = [file.parent for file in folders if words in complete_lines(file)]
    return _with_page(found[0]) if len(found) == 1 else None


def keep_command(folder: Path, target: str, arguments: Sequence[str]) -> None:
    """Note in the folder of a finished run that this command ended with it."""
    words, file = _digest(target, arguments), folder / _FILE
    if words and words not in complete_lines(file):
        with suppress(UserError):  # a disk that is full now: the next call takes its seconds again
            append_line(file, words)


def _digest(target: str, arguments: Sequence[str]) -> str:
    """A digest of what determines the run; empty where files or several processes take part."""
    settings = [_split(argument) for argument in arguments]
    texts = [target, *(text for path, text in settings if path.split(".")[0] not in _WHERE)]
    if process_count() > 1 or target.endswith((".yaml", ".yml")) or any(map(os.path.exists, texts)):
        return ""
    what = sorted(f"{path}={text}" for path, text in settings if path.split(".")[0] not in _WHERE)
    hashed = hashlib.sha256(CATALOGUE.read_bytes())
    hashed.update("\0".join([target, *what]).encode())
    return hashed.hexdigest()[:16]


def _split(argument: str) -> tuple[str, str]:
    path, _, text = argument.partition("=")
    return path.strip(), text.strip()


def _with_page(folder: Path) -> Path | None:
    whole = (folder / "DONE").exists() and (folder / "report.html").exists()
    return folder if whole else None
