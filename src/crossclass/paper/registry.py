"""Every figure, table and theorem of the paper by its id, in the order of the paper."""

from collections.abc import Sequence

from crossclass.core.errors import UserError, did_you_mean
from crossclass.paper.entry import Experiment
from crossclass.paper.figures import FIGURES
from crossclass.paper.maps import MAPS
from crossclass.paper.order import ORDER
from crossclass.paper.tables import TABLES
from crossclass.paper.theorems import THEOREMS

EXPERIMENTS: dict[str, Experiment] = {
    e.id: e for e in sorted((*FIGURES, *MAPS, *TABLES, *THEOREMS), key=lambda e: ORDER.index(e.id))
}


def chosen(ids: Sequence[str]) -> list[Experiment]:
    """Entries by id, each once, in the order of the paper; `all` is all. Raises UserError."""
    for name in ids:
        if name not in EXPERIMENTS and name != "all":
            raise UserError(f"unknown experiment '{name}'{did_you_mean(name, [*EXPERIMENTS, 'all'])}")
    return [e for e in EXPERIMENTS.values() if "all" in ids or e.id in ids]
