"""`crossclass help COMMAND`."""

from typing import Annotated

import typer

from crossclass.cli.app import app


@app.command(name="help")
def explain(command: Annotated[str, typer.Argument(metavar="COMMAND")] = "") -> None:
    """Explain a command, with all its settings.

    It is the same as `crossclass COMMAND --help`.

    \b
    Examples:
      crossclass help train
      crossclass help measure
      crossclass help sweep
    """
    # `app` reads it before typer does, and makes `COMMAND --help` of it
