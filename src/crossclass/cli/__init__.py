"""The command line: one file per command, and `commands.py`, which lists and calls them."""

from crossclass.cli.commands import COMMANDS, main

__all__ = ["COMMANDS", "main"]
