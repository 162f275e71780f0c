"""`crossclass show NAME`."""

from collections.abc import Iterator, Sequence
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

    The YAML is complete, defaults included, with what each setting means. NAME is a named run, a run file, or
    any other name of `list`; of a figure, table or theorem of the paper its claims are printed.

    \b
    Examples:
      crossclass show cifar10-mini > mine.yaml
      crossclass show trades mart
      crossclass show pgd steps=50
    """
    from crossclass.cli.catalogue import catalogue, commented

    changes, found = changes or [], catalogue()
    if name in found.entries and not changes:
        print("\n".join(found.entries[name]))
    elif name in found.settings and not changes:
        print("\n".join(commented(found.settings[name], found.class_of[name])))
    elif name.endswith((".yaml", ".yml")) or name in found.class_of:
        for line in _changed(name, changes):
            print(line)
    elif name in found.entries:
        raise UserError(f"'{changes[0]}' changes nothing: {name} has no settings")
    else:
        raise UserError(f"unknown name '{name}'{did_you_mean(name, [*found.class_of, *found.entries])}")


def _changed(name: str, changes: Sequence[str]) -> Iterator[str]:
    """The settings of a run, run file or plug-in with changes, or how other runs differ from it."""
    import json

    from crossclass.cli.arguments import assign, read_arguments
    from crossclass.cli.catalogue import commented
    from crossclass.cli.write_catalogue import key, leaves, plugins
    from crossclass.core.config import differences
    from crossclass.paper.runs import NAMED, resolve
    from crossclass.training.run import Run

    if not name.endswith((".yaml", ".yml")) and name not in NAMED:
        settings = assign(plugins()[name][1](), changes)
        yield from commented(leaves(settings), key(type(settings)))
        return
    read = read_arguments(changes, Run)
    _, run = resolve(name, read.changes)
    if not read.targets:
        yield from commented(leaves(run), key(Run))
    for other in read.targets:
        for path, (a, b) in differences(run, resolve(other)[1]).items():
            yield f"{path}: {json.dumps(a)} -> {json.dumps(b)}"
