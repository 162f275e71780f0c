"""Class-by-class matrices as a page carries them for its script: whole numbers, deflated, in base64.

Entries are thousandths, or hundredths for many classes, so that a page of 1,000 classes stays below 5 MB.
Of symmetric matrices the upper half is kept.
"""

import base64
import gzip
from collections.abc import Sequence
from typing import Any

import numpy as np

from crossclass.analysis.class_order import by_similarity
from crossclass.analysis.records import Matrix

COARSE = 300
"""More classes than these, and entries have two digits instead of three."""
UNKNOWN = -32768


def pack(matrices: Sequence[Matrix], digits: int | None = None) -> dict[str, Any]:
    """Matrices [K, K] of the same classes as plain data for `matrices.js`.

    Args:
        matrices: Entries between -32 and 32, or counts for `digits` 0; None is unknown.
        digits: Decimals that are kept; unset is 3, or 2 for more than `COARSE` classes.

    Returns:
        `K`, `digits`, whether only the upper `half` is kept, and `data`: 16-bit numbers, gzip, base64.
    """
    K = len(matrices[0])
    if digits is None:
        digits = 2 if K > COARSE else 3
    values = np.array(matrices, dtype=float)
    whole = np.nan_to_num(np.round(10**digits * values), nan=UNKNOWN).clip(UNKNOWN, 32767).astype("<i2")
    half = bool((whole == whole.transpose(0, 2, 1)).all())
    kept = whole[:, *np.triu_indices(K)] if half else whole.reshape(len(whole), -1)
    data = base64.b64encode(gzip.compress(kept.tobytes(), mtime=0)).decode()
    return {"K": K, "digits": digits, "half": half, "data": data}


def viewer(
    names: Sequence[str], frames: Sequence[tuple[dict[str, Any], Matrix]], ordered_by: Matrix, **more: Any
) -> dict[str, Any]:
    """What the viewer of matrices reads.

    Args:
        names: The K classes.
        frames: What is known of each matrix (at least its `label`), and the matrix.
        ordered_by: The matrix after which similar classes are set side by side.
        more: `curve`, `ends` and `step` of matrices over epochs.
    """
    facts, matrices = zip(*frames, strict=True)
    order = by_similarity(ordered_by)
    return {"names": names, "order": order, "frames": facts, "packed": pack(matrices), "curve": None, **more}
