"""What the paper prints, read from the file beside this one: no number of it is typed twice."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def _all() -> dict[str, Any]:
    text = files("crossclass.paper").joinpath("paper_numbers.yaml").read_text()
    numbers: dict[str, Any] = yaml.safe_load(text)
    return numbers


def printed(key: str | None) -> Any:
    """The printed numbers of a figure or table, or None."""
    return None if key is None else _all()[key]
