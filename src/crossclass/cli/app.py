"""What all commands have in common: the application, the words of its arguments, its own settings."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crossclass.core.runtime import Runtime

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


def own_settings(changes: Sequence[str], out: str) -> tuple[tuple[str, "Runtime"], list[str]]:
    """Split a command's own settings (out, runtime.*) from those of the run."""
    from crossclass.core.config import override, split_assignment
    from crossclass.core.runtime import Runtime

    rest, runtime = [], []
    for change in changes:
        path, value = split_assignment(change)
        if path == "out":
            out = str(value)
        elif path.startswith("runtime."):
            runtime.append(change.removeprefix("runtime."))
        else:
            rest.append(change)
    return (out, override(Runtime(), runtime)), rest


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
