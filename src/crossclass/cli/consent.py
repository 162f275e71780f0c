"""Which code a person let the command line import: the names typed in `path=value`, or all with `--trust`.

The name of a file or folder is no consent: a shell types it where a person typed `runs/*`.

A process that a sweep starts is given the names that were typed for the sweep, and no others: its own
arguments may come from a file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress

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
    if not any("=" in argument and ":" in argument for argument in arguments):
        return  # most commands start without pydantic
    from crossclass.cli.arguments import is_on_disk, split_values
    from crossclass.core.yaml_reader import read_value

    for argument in arguments:
        path, sign, text = argument.partition("=")
        if is_on_disk(argument):
            continue
        with suppress(UserError):  # the command itself says what is wrong with it
            for value in split_values(text) if sign else ():
                yield from names_of_code({path: read_value(value, [], path)})
