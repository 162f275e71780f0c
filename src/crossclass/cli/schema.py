"""`crossclass schema`: the format of the result file."""

from crossclass.cli.app import app


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of the file that measure writes.

    \b
    Examples:
      crossclass schema
      crossclass schema > measure.schema.json
    """
    import json

    from crossclass.analysis.result_files import schema

    print(json.dumps(schema(), indent=1))
