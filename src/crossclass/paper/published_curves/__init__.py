"""Published training curves (`anchor`), and whether a run follows one of them (`verify`), and where not."""

from crossclass.paper.published_curves.anchors import ANCHORS, Anchor, anchor, known
from crossclass.paper.published_curves.conditions import Conditions, conditions
from crossclass.paper.published_curves.table import overlay, table
from crossclass.paper.published_curves.verify import Part, Verdict, verify

__all__ = [
    "ANCHORS",
    "Anchor",
    "Conditions",
    "Part",
    "Verdict",
    "anchor",
    "conditions",
    "known",
    "overlay",
    "table",
    "verify",
]
