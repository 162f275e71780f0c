"""Published training curves (`anchor`), and whether a run follows one of them (`verify`), and where not."""

from crossclass.paper.published_curves.conditions import Conditions, conditions
from crossclass.paper.published_curves.curves import ANCHORS, Anchor, anchor, known
from crossclass.paper.published_curves.verify import Agreement, Part, overlay, table, verify

__all__ = [
    "ANCHORS",
    "Agreement",
    "Anchor",
    "Conditions",
    "Part",
    "anchor",
    "conditions",
    "known",
    "overlay",
    "table",
    "verify",
]
