"""Pickles without their power: arrays, numbers, text and containers, and nothing that runs."""

import codecs
import pickle
from typing import Any

import numpy as np

_reconstruct = np.empty(0).__reduce__()[0]  # under whatever name this numpy keeps it
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    # The files say 0 and 1 for False and True, about which numpy 2.4.0 to 2.4.4 warn.
    ("numpy", "dtype"): lambda code, align, copy: np.dtype(code, bool(align), bool(copy)),
    ("_codecs", "encode"): codecs.encode,
}


class ArraysOnly(pickle.Unpickler):
    """Knows arrays, numbers, text and containers, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """One of `ADMITTED`; raises UnpicklingError for anything else."""
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is refused")
        return ADMITTED[module, name]
