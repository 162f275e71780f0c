"""`crossclass list`."""

from crossclass.cli.app import app


@app.command(name="list")
def list_() -> None:
    """Everything that has a name: runs, recipes, attacks, threats, data sets, models."""
    from crossclass.cli.catalogue import lines

    for line in lines():
        print(line)
