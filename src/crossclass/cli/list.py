"""`crossclass list`."""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Everything that has a name: runs, recipes, attacks, threats, data sets, models."""
    from crossclass.cli.catalogue import lines

    for line in lines():
        print(line)
