"""`crossclass schema`: the format of the result file."""

import json
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Print the JSON Schema of the file that measure writes, with every metric."""
    from crossclass.analysis.records import schema

    print(json.dumps(schema(), indent=1))
