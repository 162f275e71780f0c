"""The command line: `crossclass COMMAND TARGET path.to.setting=value ...`. No setting is ever a flag.

Torch is imported only by the command that needs it, so `--help` answers at once. A user's mistake is
one sentence and exit code 2; 75 says that another process is at it.

Under `torchrun` or `accelerate launch` every process runs the same command; the first one speaks.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from crossclass.cli import examining, looking, training
from crossclass.cli.app import app
from crossclass.cli.consent import typed_consent
from crossclass.core.errors import BusyError, UserError, did_you_mean
from crossclass.core.progress import is_helper

_ORDER = ("demo", "list", "show", "train", "sweep", "measure", "doctor", "reproduce", "report", "verify")
app.registered_commands.sort(key=lambda c: _ORDER.index(c.name or getattr(c.callback, "__name__", "")))

__all__ = ["app", "examining", "looking", "main", "training"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a UserError is one sentence on stderr and exit code 2."""
    arguments = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    among_others(arguments)
    known = [c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands]
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
            raise UserError(f"unknown command '{arguments[0]}'{did_you_mean(arguments[0], known)}")
        with typed_consent(arguments):
            code = app(args=arguments, prog_name="crossclass", standalone_mode=False)
        sys.exit(code or 0)
    except typer.Abort:
        sys.exit(130)
    except UserError as e:
        if not (e.told and is_helper()):
            who = f"crossclass, process {os.environ['RANK']}" if is_helper() else "crossclass"
            print(f"{who}: {e}", file=sys.stderr)
        sys.exit(75 if isinstance(e, BusyError) else 2)
    except Exception as e:
        if not hasattr(e, "format_message"):  # typer's own click, whose errors have no name to catch them by
            raise
        print(f"crossclass: {_usage(e)}", file=sys.stderr)
        sys.exit(2)


def _usage(e: Any) -> str:
    """A wrong command line in one sentence."""
    said = e.format_message().strip().rstrip(".").replace("\n", " ")
    option = "; settings are path=value, as in epochs=4" if "No such option" in said else ""
    command = f" {e.ctx.info_name}" if e.ctx is not None and e.ctx.parent is not None else ""
    return f"{said[:1].lower()}{said[1:]}{option}; see crossclass{command} --help"


_TOGETHER = ("train", "measure")
"""Commands that several processes can run as one."""


def among_others(arguments: Sequence[str]) -> None:
    """Of several processes only the first speaks; raises SystemExit for a command that is not for several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    if is_helper():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the end of the process
    if arguments and arguments[0] not in _TOGETHER and not arguments[0].startswith("-"):
        if not is_helper():
            print(
                f"crossclass: {arguments[0]} is a command for one process; start it without torchrun "
                "(several calls of sweep or reproduce share the runs out among them)",
                file=sys.stderr,
            )
        sys.exit(2)
