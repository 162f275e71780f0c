"""Published training curves (`anchor`), and whether a run follows one of them (`verify`), and where not."""

from crossclass.paper.published_curves.conditions import Conditions, conditions
from crossclass.paper.published_curves.curves import ANCHORS, anchor
from crossclass.paper.published_curves.verify import overlay, table, verify

__all__ = ["ANCHORS", "Conditions", "anchor", "conditions", "overlay", "table", "verify"]
