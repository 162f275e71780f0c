"""`crossclass show NAME`."""

from typing import Annotated

import typer

from crossclass.cli.app import Changes, app
from crossclass.core.errors import UserError, did_you_mean


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A name or a run file")],
    changes: Changes = None,
) -> None:
    """Print all settings of a name, or how two runs differ.

    The YAML is complete, defaults included. NAME is a named run, a run file, or any other name of `list`; of
    a figure, table or theorem of the paper its claims are printed.
    """
    import json

    from crossclass.cli.arguments import assign, read_arguments, read_settings
    from crossclass.cli.catalogue import about, plugins
    from crossclass.core.config import differences
    from crossclass.paper.entries import ENTRIES
    from crossclass.paper.runs import NAMED, resolve
    from crossclass.training.run import Run

    changes = changes or []
    known = plugins()
    if name.endswith((".yaml", ".yml")) or name in NAMED:
        read = read_arguments(changes, Run)
        _, run = resolve(name, read.changes)
        if not read.targets:
            print(run.yaml(), end="")
        for other in read.targets:
            for path, (a, b) in differences(run, resolve(other)[1]).items():
                print(f"{path}: {json.dumps(a)} -> {json.dumps(b)}")
    elif name in known:
        print(assign(known[name][1](), changes).yaml(), end="")
    elif name in ENTRIES:
        read_settings(changes)  # an entry has none
        print("\n".join(about(ENTRIES[name])))
    else:
        raise UserError(f"unknown name '{name}'{did_you_mean(name, [*NAMED, *known, *ENTRIES])}")
