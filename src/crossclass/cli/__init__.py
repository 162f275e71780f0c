"""The command line: `crossclass COMMAND TARGET path.to.setting=value ...`. No setting is ever a flag.

Torch is imported only by the command that needs it, so `--help` answers at once. A user's mistake is
one sentence and exit code 2; 75 says that another process is at it.
"""

import sys
from collections.abc import Sequence

from crossclass.cli import examining, looking, training
from crossclass.cli.app import app
from crossclass.errors import BusyError, UserError, did_you_mean

_ORDER = ("demo", "list", "show", "train", "sweep", "measure", "doctor", "reproduce", "report", "verify")
app.registered_commands.sort(key=lambda c: _ORDER.index(c.name or getattr(c.callback, "__name__", "")))

__all__ = ["app", "examining", "looking", "main", "training"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a UserError is one sentence on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    known = [c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands]
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
            raise UserError(f"unknown command '{arguments[0]}'{did_you_mean(arguments[0], known)}")
        app(args=arguments)
    except BusyError as e:
        print(f"crossclass: {e}", file=sys.stderr)
        sys.exit(75)
    except UserError as e:
        print(f"crossclass: {e}", file=sys.stderr)
        sys.exit(2)
