"""What a door is, and input for those that read bytes: good files after accidents."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = r"""
    kind: {} [ ] { } , : - ? | > & * ! # % @ ` ' " &a *a <<: !!python/object:os.system !!binary !!set ~ null
    true 1e999 .nan -.inf 0x7fffffffffffffff 99999999999999999999 8/255 1/0 eps attack recipe pgd
    data.path ../../x /etc/passwd $(id) --- ... == =1 .a a. a..b ={} =[ =&a [*a,*a]
"""
TOKENS = [*WORDS.split(), "\x00", "\x1b[31m", "\u202e", "\ud7ff", "\t", "\n  "]
NUMBERS = [v.to_bytes(n, "little") for v in (0, 1, 127, 128, 255) for n in (1, 2, 4)]
NUMBERS += [b"\xff" * n for n in (2, 4, 8)]
NUMBERS += [b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\xff" * 7 + b"\x7f"]


@dataclass(frozen=True)
class Door:
    """One way in.

    `inputs(luck)` yields inputs without end, drawn from `luck` only, good ones first. `enter(folder, input)`
    hands one to the program, in an empty folder; it must return or raise UserError. What the program returns
    wrongly is an AssertionError of `enter`. `share` is how many inputs this door gets beside the others
    (below 1 if it is slow).
    """

    inputs: Callable[[random.Random], Iterator[Any]]
    enter: Callable[[Path, Any], object]
    share: float = 1.0


def of_bytes(
    samples: Callable[[], list[bytes]], read: Callable[[Path, bytes], object], text: bool = False
) -> Door:
    """A door that reads bytes: `samples` gives good ones; `text` says whether they are words."""

    def inputs(luck: random.Random) -> Iterator[bytes]:
        good = samples()
        yield from good
        while True:
            yield damaged(luck.choice(good), good, luck, text)

    return Door(inputs, read)


def written(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    """Put the bytes into a file of the folder, and read the file."""

    def door(place: Path, data: bytes) -> object:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return door


def damaged(data: bytes, others: list[bytes], luck: random.Random, text: bool) -> bytes:
    """A good input after one to eight accidents."""
    out = bytearray(data)
    for _ in range(luck.choice((1, 1, 1, 2, 3, 8))):
        at = luck.randrange(len(out) + 1)
        end = min(len(out), at + luck.choice((1, 2, 4, 16, 200)))
        how = luck.randrange(8)
        if how == 0 and out:
            out[min(at, len(out) - 1)] ^= 1 << luck.randrange(8)
        elif how == 1:
            del out[at:end]
        elif how == 2:
            out[at:at] = out[at:end] * luck.choice((1, 1, 50))
        elif how == 3:
            out = out[:at]
        elif how == 4:
            other = luck.choice(others)
            cut = luck.randrange(len(other) + 1)
            out[at:] = other[cut:]
        elif how == 5:
            out[at:end] = luck.randbytes(end - at)
        elif text:
            out[at : at if how == 6 else end] = luck.choice(TOKENS).encode("utf-8", "surrogatepass")
        else:
            number = luck.choice(NUMBERS)
            out[at : at + len(number)] = number
    return bytes(out[: 2**20])
