"""`crossclass list`."""

from crossclass.cli.app import app


@app.command("list")
def list_names() -> None:
    """List everything that has a name.

    These are runs, recipes, attacks, threats, data sets, models, and what the paper shows.
    """
    from crossclass.cli.catalogue import lines

    for line in lines():
        print(line)
