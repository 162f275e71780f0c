"""The application that all commands belong to, its entry point, and the arguments that they share."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from crossclass.cli.consent import typed_consent
from crossclass.cli.streams import streams
from crossclass.core.errors import BusyError, UserError, did_you_mean
from crossclass.core.hard_exit import caught_hard_exits
from crossclass.core.launch_environment import is_main_process, limit_spinning, process_count

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
Targets = Annotated[
    list[str],
    typer.Argument(metavar="RUN|FILE...", help="Run folders, RUN@best.test, checkpoints; path=value"),
]

BUSY = 75
"""Exit code where another process trains the run (EX_TEMPFAIL)."""
_ONLY_PRINT = {"list": "", "show": "", "schema": "", "sweep": "plan=", "table": ""}
"""Commands whose result is what they print, for sweep with this setting only."""
_FOR_SEVERAL_PROCESSES = ("train", "fork", "measure")


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


def names() -> list[str]:
    """The names of all commands, in the order of the help."""
    return [c.name or str(getattr(c.callback, "__name__", "")) for c in app.registered_commands]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a UserError is one sentence on stderr and exit code 2.

    Printing fails no command whose results are in files; where they are only printed, it does, unless the
    reader has gone (`crossclass list | head -1`).
    """
    limit_spinning()
    arguments = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    with streams() as printed:
        code = _run(arguments)
        printed.flush()
        if printed.cut_off:
            print(f"crossclass: what was printed is cut off ({printed.cut_off})", file=sys.stderr)
            code = code or (2 if _only_prints(arguments) else 0)
    sys.exit(code)


def _only_prints(arguments: Sequence[str]) -> bool:
    """Whether nothing but what is printed holds the result."""
    setting = _ONLY_PRINT.get(arguments[0])
    in_file = arguments[0] == "table" and any(a.startswith("out=") for a in arguments)
    return setting is not None and not in_file and any(a.startswith(setting) for a in arguments)


def _run(arguments: Sequence[str]) -> int:
    """The exit code of a command."""
    name, is_main, speaker = arguments[0], True, "crossclass"
    if name == "help":  # crossclass help train
        arguments = [*arguments[1:2], "--help"]
        name = arguments[0]
    try:
        is_main = is_main_process()
        speaker = speaker if is_main else f"{speaker}, process {os.environ['RANK']}"
        if process_count() > 1:
            _check_several(name, is_main)
        if not name.startswith("-") and name not in names():
            raise UserError(f"unknown command '{name}'{did_you_mean(name, names())}")
        if "--help" in arguments:
            _list_settings(name)
        with typed_consent(arguments), caught_hard_exits():
            code = app(args=arguments, prog_name="crossclass", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code or 0
    except KeyboardInterrupt:
        if is_main:
            print(f"{speaker}: stopped; the same command goes on after what is finished", file=sys.stderr)
        return 130
    except UserError as e:
        if is_main or not e.in_every_process:
            print(f"{speaker}: {e}", file=sys.stderr)
        return BUSY if isinstance(e, BusyError) else 2
    except Exception as e:
        if not hasattr(e, "format_message"):  # typer's own click, whose errors have no name to catch them by
            raise
        print(f"{speaker}: {_usage(e, arguments)}", file=sys.stderr)
        return 2
    except BaseException as e:  # SystemExit and the like, of a factory, a forward pass, a pickle
        from crossclass.core.foreign_code import exit_sentence

        print(f"{speaker}: no result: {exit_sentence(e)}", file=sys.stderr)
        return 2


def _list_settings(command: str) -> None:
    """Put the settings of a command below its help."""
    from crossclass.cli.catalogue import settings_help

    for known in app.registered_commands:
        if known.name == command or getattr(known.callback, "__name__", "") == command:
            known.epilog = settings_help(command)


def _usage(e: Any, arguments: Sequence[str]) -> str:
    """A wrong command line in one sentence."""
    text = e.format_message().strip().rstrip(".").replace("\n", " ")
    option = "; settings are path=value, as in epochs=4" if "No such option" in text else ""
    if option and (file := next((a for a in arguments if a.startswith("-") and os.path.exists(a)), "")):
        option = f"; give './{file}' for the file of this name"
    command = f" {e.ctx.info_name}" if e.ctx is not None and e.ctx.parent is not None else ""
    return f"{text[:1].lower()}{text[1:]}{option}; see crossclass{command} --help"


def _check_several(name: str, is_main: bool) -> None:
    """Of several processes only the first prints; raises UserError for a command that is not for several."""
    if not is_main:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end of the process
    if name not in _FOR_SEVERAL_PROCESSES and not name.startswith("-"):
        error = UserError(
            f"{name} is a command for one process; start it without torchrun "
            "(several calls of sweep or reproduce share the runs out among them)"
        )
        error.in_every_process = True
        raise error
