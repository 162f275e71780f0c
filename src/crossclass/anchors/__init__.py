"""Published training curves (`anchor`), and whether a run follows one of them (`verify`), and where not."""

from crossclass.anchors.conditions import Conditions, conditions
from crossclass.anchors.published import ANCHORS, Anchor, anchor, known
from crossclass.anchors.table import overlay, table
from crossclass.anchors.verdict import Part, Verdict, verify

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
