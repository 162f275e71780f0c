"""`crossclass demo`."""

from pathlib import Path

from crossclass.cli.app import Changes, app
from crossclass.cli.train import train_run


@app.command()
def demo(changes: Changes = None) -> None:
    """Train on the built-in Shapes and write a page about it.

    It takes about three minutes; the last line printed is the path of the page.

    \b
    Examples:
      crossclass demo
      crossclass demo epochs=8 out=short-demo
      crossclass demo recipe.attack.threat.eps=16/255
    """
    folder = train_run("shapes-demo", changes or [], Path("demo"))
    page = folder / "report.html"
    if not page.exists():  # it could not be written: why not is this command's concern
        from crossclass.report import write_report

        page = write_report([folder])
    print(page.absolute())
