"""Numbers as a pandas DataFrame, where pandas is installed."""

from typing import Any

from crossclass.core.errors import UserError


def to_frame(rows: list[dict[str, Any]]) -> Any:
    """The rows as a pandas DataFrame. Raises UserError where pandas is not installed."""
    try:
        import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as e:
        raise UserError("to_pandas() needs pandas; pip install 'crossclass[pandas]'") from e
    return pandas.DataFrame(rows)
