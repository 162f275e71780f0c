"""The doors through which a stranger's input comes in (for fuzz.py).

A door is one function of a file of this folder that returns a `Door`; the file names its doors in `DOORS`. A
new file is taken in by itself.
"""

import importlib
import pkgutil

from .door import Door

DOORS: dict[str, Door] = {}
for _info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
    DOORS |= getattr(importlib.import_module(f"{__name__}.{_info.name}"), "DOORS", {})
