"""The command line: `crossclass COMMAND TARGET path.to.setting=value ...`. No setting is ever a flag.

Torch is imported only by the command that needs it, so `--help` answers at once. A user's mistake is
one sentence and exit code 2; 75 says that another process is at it.

Under `torchrun` or `accelerate launch` every process runs the same command; the first one speaks.
"""

from crossclass.cli import demo, doctor, list, measure, report, reproduce, schema, show, sweep, train, verify
from crossclass.cli.app import app, main

_ORDER = (
    "demo",
    "list",
    "show",
    "train",
    "sweep",
    "measure",
    "doctor",
    "reproduce",
    "report",
    "verify",
    "schema",
)
app.registered_commands.sort(key=lambda c: _ORDER.index(c.name or getattr(c.callback, "__name__", "")))

__all__ = [
    "app",
    "demo",
    "doctor",
    "list",
    "main",
    "measure",
    "report",
    "reproduce",
    "schema",
    "show",
    "sweep",
    "train",
    "verify",
]
