"""matplotlib, imported whatever MPLBACKEND and a matplotlibrc say: no figure here is shown on a screen."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from crossclass.core.errors import UserError, first_line


@contextmanager
def _quiet() -> Iterator[None]:
    """Without matplotlib's remarks about lines of a matplotlibrc, of which no figure here takes anything."""
    logger = logging.getLogger("matplotlib")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _import() -> None:
    with _quiet():
        try:
            import matplotlib
        except ValueError:  # no backend of that name; it is put back for whoever looks at it later
            name = os.environ.pop("MPLBACKEND", None)
            for part in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
                del sys.modules[part]  # half of them are there
            try:
                import matplotlib  # noqa: F401
            finally:
                if name is not None:
                    os.environ["MPLBACKEND"] = name


try:
    _import()
except (ValueError, OSError) as e:
    raise UserError(
        f"matplotlib cannot be imported ({first_line(e)}); look at MATPLOTLIBRC and at the "
        "matplotlibrc of this folder"
    ) from e
