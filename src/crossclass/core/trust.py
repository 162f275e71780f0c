"""Someone else's code by its name, `package.module:name`; the current folder is importable.

Importing runs code. A name typed on the command line is consent; a name that stands in a file is not,
so whoever reads settings from a file asks `foreign_code` and refuses without `--trust`.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crossclass.core.errors import UserError, did_you_mean

KINDS = ("python", "external")
"""Kinds of plug-ins that import the `call` they name."""


def imported(name: str) -> Any:
    """The object `package.module:name`; raises UserError if there is none."""
    module_name, sign, attribute = name.partition(":")
    if not sign or not module_name or not attribute:
        raise UserError(f"'{name}' is not of the form package.module:name, such as my_nets:resnet4b")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name and (module_name == e.name or module_name.startswith(f"{e.name}.")):
            raise UserError(
                f"there is no module '{module_name}' in {here} or installed; check '{name}'"
            ) from e
        raise UserError(f"'{module_name}' needs the module '{e.name}', which is not installed") from e
    except Exception as e:
        raise UserError(f"importing '{module_name}' failed: {type(e).__name__}: {e}") from e
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(found) if not n.startswith("_")] if hasattr(found, "__dict__") else []
            raise UserError(f"'{module_name}' has no '{attribute}'{did_you_mean(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"'{name}' is a {type(found).__name__}, not something to call")
    return found


def ask_trust(plain: Mapping[str, Any], where: str, trust: bool) -> None:
    """Refuse settings out of a file that name code to import, unless that file is trusted."""
    for name in foreign_code(plain):
        if not trust:
            raise UserError(f"{where} asks to import and run '{name}'; give --trust if you trust that code")


def foreign_code(plain: Mapping[str, Any]) -> Iterator[str]:
    """The names that plain settings would import, wherever they stand."""
    if plain.get("kind") in KINDS and plain.get("call"):
        yield str(plain["call"])
    for value in plain.values():
        if isinstance(value, Mapping):
            yield from foreign_code(value)
