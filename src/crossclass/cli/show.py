"""`crossclass show NAME`."""

import json
from typing import Annotated

import typer

from crossclass.cli.app import Changes, app
from crossclass.core.errors import UserError, did_you_mean


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A named run, a run file, or any other name of `list`")],
    changes: Changes = None,
) -> None:
    """Print complete YAML, defaults included; with a second run, how the two differ."""
    from crossclass.cli.assignments import read_arguments
    from crossclass.cli.catalogue import plugins
    from crossclass.core.config import differences
    from crossclass.core.overrides import override
    from crossclass.paper.entries import ENTRIES
    from crossclass.paper.runs import NAMED, resolve
    from crossclass.training.run import Run

    known = plugins()
    is_run = name.endswith((".yaml", ".yml")) or name in NAMED
    arguments = read_arguments(changes or [], known[name][1] if name in known and not is_run else Run)
    if name in known and not arguments.targets:
        print(override(known[name][1](), arguments.changes).yaml(), end="")
        return
    if not is_run:
        if name in ENTRIES:
            raise UserError(
                f"{name} has no settings to show; crossclass reproduce {name} plan=true says its runs"
            )
        raise UserError(f"unknown name '{name}'{did_you_mean(name, [*NAMED, *known])}")
    _, run = resolve(name, arguments.changes)
    if not arguments.targets:
        print(run.yaml(), end="")
    for other in arguments.targets:
        for path, (a, b) in differences(run, resolve(other)[1]).items():
            print(f"{path}: {json.dumps(a)} -> {json.dumps(b)}")
