"""Which code a person let the command line import: the names typed in `path=value`, or all with `--trust`.

A process that a sweep starts is given the names that were typed for the sweep, and no others: its own
arguments may come from a file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress

from crossclass.core.config import split_assignment
from crossclass.core.errors import UserError
from crossclass.core.trust import consent, names_of_code, trusting

VARIABLE = "CROSSCLASS_CONSENT"
"""The environment variable in which a sweep hands its consent on: names between commas."""


def typed_consent(arguments: Sequence[str]) -> AbstractContextManager[None]:
    """Consent to import what these arguments of a command name, or what a sweep's were."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return trusting(*given.split(","))
    return trusting(*_names(arguments))


def environment() -> Mapping[str, str]:
    """What hands the consent of this process on to one that it starts."""
    return {VARIABLE: ",".join(sorted(consent().names))}


def _names(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        path, sign, text = argument.partition("=")
        with suppress(UserError):  # the command itself says what is wrong with it
            for value in split_values(text) if sign else ():
                yield from names_of_code(dict([split_assignment(f"{path}={value}")]))


def split_values(text: str) -> list[str]:
    """The values of a grid: `2/255,4/255` is two, `[30,45],[15]` is two, `{a: 1, b: 2}` is one.

    Raises UserError if one of them is empty.
    """
    values, depth, start, quote = [], 0, 0, ""
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "[{(":
            depth += 1
        elif c in "]})":
            depth -= 1
        elif c == "," and depth == 0:
            values.append(text[start:i])
            start = i + 1
    values.append(text[start:])
    if not all(v.strip() for v in values):
        raise UserError(f"'{text}' has an empty value between its commas")
    return [v.strip() for v in values]
