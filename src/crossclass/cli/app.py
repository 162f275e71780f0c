"""The application that all commands belong to, its entry point, and the arguments that they share."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from crossclass.cli.consent import typed_consent
from crossclass.core.errors import BusyError, UserError, did_you_mean
from crossclass.core.launcher import is_main_process, process_count

app = typer.Typer(
    name="crossclass",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Shows what an adversarially trained network learns and then forgets.",
    epilog="Settings are path=value: crossclass train cifar10-mini data.path=DIR seed=1 out=runs",
)

Changes = Annotated[list[str] | None, typer.Argument(help="path=value ...", show_default=False)]
Trust = Annotated[
    bool, typer.Option("--trust", help="Read pickles and import code that files name: both can run code.")
]
Partial = Annotated[
    bool, typer.Option("--allow-partial", help="Load a file that lacks weights; these stay random.")
]
Targets = Annotated[list[str], typer.Argument(help="Run folders, RUN@best.test, checkpoints; path=value")]


def _version(value: bool | None) -> None:
    if value:
        from importlib.metadata import version

        print(f"crossclass {version('crossclass')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a UserError is one sentence on stderr and exit code 2."""
    arguments = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    known = [c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands]
    is_main, name = True, "crossclass"
    try:
        is_main = is_main_process()
        name = name if is_main else f"{name}, process {os.environ['RANK']}"
        if process_count() > 1:
            _check_several(arguments, is_main)
        if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
            raise UserError(f"unknown command '{arguments[0]}'{did_you_mean(arguments[0], known)}")
        with typed_consent(arguments):
            code = app(args=arguments, prog_name="crossclass", standalone_mode=False)
        sys.exit(code or 0)
    except typer.Abort:
        sys.exit(130)
    except UserError as e:
        if is_main or not e.in_every_process:
            print(f"{name}: {e}", file=sys.stderr)
        sys.exit(75 if isinstance(e, BusyError) else 2)
    except Exception as e:
        if not hasattr(e, "format_message"):  # typer's own click, whose errors have no name to catch them by
            raise
        print(f"crossclass: {_usage(e)}", file=sys.stderr)
        sys.exit(2)


def _usage(e: Any) -> str:
    """A wrong command line in one sentence."""
    text = e.format_message().strip().rstrip(".").replace("\n", " ")
    option = "; settings are path=value, as in epochs=4" if "No such option" in text else ""
    command = f" {e.ctx.info_name}" if e.ctx is not None and e.ctx.parent is not None else ""
    return f"{text[:1].lower()}{text[1:]}{option}; see crossclass{command} --help"


_SEVERAL = ("train", "measure")
"""Commands that several processes can run as one."""


def _check_several(arguments: Sequence[str], is_main: bool) -> None:
    """Of several processes only the first prints; raises UserError for a command that is not for several."""
    if not is_main:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the end of the process
    if arguments[0] not in _SEVERAL and not arguments[0].startswith("-"):
        error = UserError(
            f"{arguments[0]} is a command for one process; start it without torchrun "
            "(several calls of sweep or reproduce share the runs out among them)"
        )
        error.in_every_process = True
        raise error
