"""Every figure, table and theorem of the paper by its id, in the order of the paper; without torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossclass.core.errors import UserError, did_you_mean
from crossclass.paper.entry import Entry
from crossclass.paper.figures import FIGURES
from crossclass.paper.inference import benjamini_hochberg
from crossclass.paper.tables import TABLES
from crossclass.paper.theorems import THEOREMS

_ORDER = (
    "fig1 fig2 fig3ab soft fig3c fig4 fig5 fig6 thm1 thm2 thm3 cor1 bridge table1 fig7 fig8 fig9 table2 "
    "fig10 fig11"
)
_BY_ID = {entry.id: entry for entry in (*FIGURES, *TABLES, *THEOREMS)}

ENTRIES: dict[str, Entry] = {id_: _BY_ID[id_] for id_ in dict.fromkeys((*_ORDER.split(), *_BY_ID))}
"""Those that `_ORDER` does not name come last."""


def chosen(ids: Sequence[str]) -> list[Entry]:
    """Entries by id, each once, in the order of the paper; `all` is all. Raises UserError."""
    for name in ids:
        if name not in ENTRIES and name != "all":
            raise UserError(f"unknown entry '{name}'{did_you_mean(name, [*ENTRIES, 'all'])}")
    return [e for e in ENTRIES.values() if "all" in ids or e.id in ids]


def over_study(results: Sequence[Mapping[str, Any]]) -> list[list[float | None]]:
    """For every claim of stored results, its p-value adjusted for the whole study (Benjamini and Hochberg).

    Among the claims below 5 % at most 5 % are false on average. None for claims without a p-value.
    """
    known = [v["p"] for r in results for v in r["verdicts"] if v.get("p") is not None]
    rest = iter(benjamini_hochberg(known))
    return [[None if v.get("p") is None else next(rest) for v in r["verdicts"]] for r in results]
