"""The command line: `crossclass COMMAND TARGET path.to.setting=value ...`. No setting is ever a switch.

`main` of `cli/NAME.py` is the command NAME; its docstring is its help. A file is imported when its command is
called, and torch by the commands that need it, so `--help` answers at once. A user's mistake is one sentence
and exit code 2; 75 says that another process is at it.

Under `torchrun` or `accelerate launch` every process runs the same command; the first one speaks.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from crossclass.core.errors import BusyError, UserError, did_you_mean
from crossclass.core.launch_environment import is_main_process, process_count

COMMANDS = {
    "demo": ("[path=value ...]", "Train on the built-in Shapes for three minutes and write a page about it"),
    "list": ("", "Everything that has a name: runs, recipes, attacks, threats, data sets, models"),
    "show": (
        "NAME [path=value ...] [NAME]",
        "All settings of a name as YAML, or how two runs differ",
    ),
    "train": ("NAME|FILE.yaml [path=value ...] [--trust]", "Train a run, or go on with it"),
    "sweep": ("NAME|FILE.yaml [path=value,value ...] [--trust]", "Train many runs that differ in settings"),
    "measure": (
        "CHECKPOINT... [path=value ...] [--trust] [--allow-partial]",
        "Accuracy, C, CAS and I-CAS of checkpoints, ours or anyone's; compare two",
    ),
    "doctor": ("CHECKPOINT [path=value ...] [--trust] [--allow-partial]", "Look for faults in a checkpoint"),
    "reproduce": ("ID... [path=value ...]", "Figures, tables and theorems of the paper, each claim judged"),
    "report": ("RUN|RESULT.json... [out=PAGE.html]", "Write a page about runs or measured checkpoints"),
    "verify": ("RUN [path=value ...]", "Compare a run with a published training curve"),
    "schema": ("", "The format of the file that measure writes, as JSON Schema"),
}
"""The arguments of every command, as its help shows them, and what it does."""
SWITCHES = {
    "--trust": "Read pickles and import code that files name: both can run code.",
    "--allow-partial": "Load a file that lacks weights; these stay random.",
}
BUSY = 75
"""Exit code where another process trains the run (EX_TEMPFAIL)."""
_FOR_SEVERAL_PROCESSES = ("train", "measure")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a UserError is one sentence on stderr and exit code 2."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    is_main, speaker = True, "crossclass"
    try:
        is_main = is_main_process()
        speaker = speaker if is_main else f"{speaker}, process {os.environ['RANK']}"
        if process_count() > 1:
            _check_several(name, is_main)
        sys.exit(_call(name, rest))
    except KeyboardInterrupt:
        if is_main:
            print(f"{speaker}: stopped; the same command goes on after what is finished", file=sys.stderr)
        sys.exit(130)
    except UserError as e:
        if is_main or not e.in_every_process:
            print(f"{speaker}: {e}", file=sys.stderr)
        sys.exit(BUSY if isinstance(e, BusyError) else 2)


def _call(name: str, arguments: Sequence[str]) -> int:
    """Run a command; its exit code."""
    if name == "--version":
        from importlib.metadata import version

        print(f"crossclass {version('crossclass')}")
        return 0
    if name == "--help":
        print(_overview())
        return 0
    if name not in COMMANDS:
        raise UserError(f"unknown command '{name}'{did_you_mean(name, COMMANDS)}")
    if "--help" in arguments:
        print(help_of(name))
        return 0
    usage, see = COMMANDS[name][0], f"see crossclass {name} --help"
    words = [a for a in arguments if not a.startswith("-")]
    switches = {a: True for a in arguments if a.startswith("-")}
    for switch in switches:
        if switch not in SWITCHES or switch not in usage:
            raise UserError(f"{name} has no switch {switch}; settings are path=value, as in epochs=4; {see}")
    if words and not usage:
        raise UserError(f"{name} takes no argument '{words[0]}'; {see}")
    if not words and usage and not usage.startswith("["):
        raise UserError(f"missing argument '{usage.split()[0]}'; {see}")
    from crossclass.cli.consent import typed_consent

    with typed_consent(words):
        code = _main_of(name)(words, **{s[2:].replace("-", "_"): True for s in switches})
    return int(code or 0)


def _main_of(name: str) -> Any:
    return import_module(f"crossclass.cli.{name}").main


def _overview() -> str:
    commands = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items())
    return f"""\
Usage: crossclass COMMAND [path=value ...]

Shows what an adversarially trained network learns and then forgets.

{commands}

Settings are path=value: crossclass train cifar10-mini data.path=DIR seed=1 out=runs
crossclass COMMAND --help says more; crossclass --version prints the version."""


def help_of(name: str) -> str:
    """The help of a command: its arguments, what it does, its switches."""
    import inspect

    usage = COMMANDS[name][0]
    switches = "".join(f"\n  {s:16} {text}" for s, text in SWITCHES.items() if s in usage)
    about = inspect.getdoc(_main_of(name))
    return f"Usage: crossclass {name} {usage}".rstrip() + f"\n\n{about}" + (switches and f"\n{switches}")


def _check_several(name: str, is_main: bool) -> None:
    """Of several processes only the first prints; raises UserError for a command that is not for several."""
    if not is_main:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the end of the process
    if name in COMMANDS and name not in _FOR_SEVERAL_PROCESSES:
        error = UserError(
            f"{name} is a command for one process; start it without torchrun "
            "(several calls of sweep or reproduce share the runs out among them)"
        )
        error.in_every_process = True
        raise error
