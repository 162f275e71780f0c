"""`crossclass list`."""

from crossclass.cli.app import app


@app.command("list")
def list_names() -> None:
    """List everything that has a name.

    These are runs, recipes, attacks, threats, data sets, models, and what the paper shows.

    \b
    Examples:
      crossclass list
      crossclass list | grep recipe
      crossclass show trades
    """
    from crossclass.cli.catalogue import lines

    for line in lines():
        print(line)
