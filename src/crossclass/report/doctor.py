"""The page of `doctor`: the verdict, every cause with what follows from it, and what is fine."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossclass.report.sections import environment


def doctor_page(examined: Sequence[Mapping[str, Any]], made_by: str) -> str:
    """One self-contained HTML page about networks that were examined.

    Args:
        examined: For each network its identity, `verdict` and `findings`, as in the JSON file.
        made_by: What the page says about the command line that made it.
    """
    return environment().get_template("doctor.html.j2").render(examined=examined, made_by=made_by)
