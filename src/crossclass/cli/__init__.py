"""The command line: `crossclass COMMAND TARGET path.to.setting=value ...`. No setting is ever a switch.

Each command is one file, which imports torch only when the command is called, so `--help` answers at once. A
user's mistake is one sentence and exit code 2; 75 says that another process is at it.

Under `torchrun` or `accelerate launch` every process runs the same command; the first one speaks.
"""

from crossclass.cli import (
    ablate,
    completion,
    demo,
    doctor,
    features,
    fork,
    help,
    list,
    measure,
    report,
    reproduce,
    schema,
    show,
    sweep,
    table,
    train,
    verify,
)
from crossclass.cli.app import app, main, names

_ORDER = (
    demo,
    list,
    show,
    train,
    sweep,
    fork,
    table,
    measure,
    features,
    ablate,
    doctor,
    reproduce,
    report,
    verify,
    schema,
    completion,
    help,
)
"""As the help shows them."""
app.registered_commands.sort(
    key=lambda c: [module.__name__ for module in _ORDER].index(getattr(c.callback, "__module__", ""))
)

__all__ = ["app", "main", "names"]
