"""Variables that launchers leave behind, and streams of any encoding with any word written to them."""

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from crossclass.cli.streams import Stream
from crossclass.core.launch_environment import check_launcher, is_main_process, process_count

from .door import TOKENS, Door

NAMES = (
    *("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("PMI_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)
VALUES = ("", " ", "0", "1", "2", "-1", "3.5", "1e3", "08", "٣", "²", "two", "true", "1" * 5000, "9" * 11)
WORDS = ("кот", "é", "\udcff", "\ud800", "\x00", "\U0001f600", "\u202e", "plain")


def _inputs(luck: random.Random) -> Iterator[tuple[dict[str, str], str, str, str]]:
    values = [*VALUES, *(t for t in TOKENS if "\0" not in t and "\ud7ff" not in t)]
    while True:
        names = luck.sample(NAMES, luck.choice((1, 1, 2, 5)))
        encoding = luck.choice(["ascii", "latin-1", "utf-8", "cp1252", "utf-16", "shift_jis"])
        errors = luck.choice(["strict", "surrogateescape", "ignore", "replace"])
        yield {n: luck.choice(values) for n in names}, luck.choice(WORDS), encoding, errors


def _entered(place: Path, given: tuple[dict[str, str], str, str, str]) -> None:
    variables, word, encoding, errors = given
    behind = io.TextIOWrapper(io.BytesIO(), encoding, errors=errors)
    stream = Stream(behind)
    for text in (word, "end"):
        stream.write(text)
    stream.flush()
    if stream.cut_off or not behind.buffer.getvalue().decode(encoding).endswith("end"):  # type: ignore[attr-defined]
        raise AssertionError(f"lost: {stream.cut_off}")
    with mock.patch.dict(os.environ, variables):
        process_count()
        is_main_process()
        check_launcher()


def environment() -> Door:
    """What somebody left in the environment."""
    return Door(_inputs, _entered)


DOORS = {"environment": environment()}
