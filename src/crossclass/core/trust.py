"""The one gate through which code that a name or a pickle stands for is imported and run.

Importing `MODULE:NAME` runs code, and so does unpickling. Both are refused by default, whatever led
there: a run file, a sweep's grid, a teacher's changes, a recipe inside another, the card of a checkpoint.
`with trusting("my_nets:resnet4b"):` opens the gate for that name, `trusting(everything=True)` for all names
and pickles. The command line opens it for the names that a person typed, and wholly with `--trust`.
"""

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossclass.core.errors import UserError, did_you_mean

CONSENT = "give --trust (in Python trust=True) only if you trust that code"
"""What a person can do about a refusal."""


@dataclass(frozen=True)
class Consent:
    """What may be imported: these names of the form `MODULE:NAME`, or everything and pickles too."""

    names: frozenset[str] = frozenset()
    everything: bool = False


_consent = ContextVar("consent", default=Consent())  # noqa: B039 - frozen


def consent() -> Consent:
    """What may be imported here."""
    return _consent.get()


@contextmanager
def trusting(*names: str, everything: bool = False) -> Iterator[None]:
    """Inside, code of these names may be imported and run, besides what may be already.

    Args:
        names: `MODULE:NAME`, as in `Python(call=...)` and `External(call=...)`.
        everything: every name that settings or files hold, and pickles that run code.

    Example:
        with trusting("my_attacks:pgd"):
            x_adv = External(call="my_attacks:pgd")(model, x, y)
    """
    outer = _consent.get()
    token = _consent.set(Consent(outer.names | set(names), outer.everything or everything))
    try:
        yield
    finally:
        _consent.reset(token)


def import_callable(name: str, asked_by: str) -> Any:
    """The function or class `MODULE:NAME`; the current folder is importable.

    Args:
        name: What to import.
        asked_by: The setting that names it, for errors, such as `model.call`.

    Raises:
        UserError: Nobody has given consent to this name, or there is nothing to call under it.
    """
    module_name, sign, attribute = name.partition(":")
    if not sign or not module_name or not attribute:
        raise UserError(f"'{name}' is not of the form MODULE:NAME, such as my_nets:resnet4b")
    require_consent([name], asked_by)
    here = make_importable(Path.cwd())
    from crossclass.core.foreign_code import foreign_code  # torch is slow to import

    try:
        with foreign_code(f"'{module_name}'", "importing", imported=True):
            module = importlib.import_module(module_name)
    except UserError:
        raise
    except ModuleNotFoundError as e:
        if e.name and (module_name == e.name or module_name.startswith(f"{e.name}.")):
            raise UserError(
                f"there is no module '{module_name}' in {here} or installed; check '{name}'"
            ) from e
        raise UserError(f"'{module_name}' needs the module '{e.name}', which is not installed") from e
    except Exception as e:
        raise UserError(f"importing '{module_name}' failed: {type(e).__name__}: {e}") from e
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            known = [n for n in vars(value) if not n.startswith("_")] if hasattr(value, "__dict__") else []
            raise UserError(f"'{module_name}' has no '{attribute}'{did_you_mean(part, known)}")
        value = getattr(value, part)
    if not callable(value):
        raise UserError(f"'{name}' is a {type(value).__name__}, not something to call")
    return value


def make_importable(folder: Path) -> str:
    """Let modules of a folder be imported; its absolute path."""
    text = str(folder.absolute())
    if text not in sys.path:
        sys.path.append(text)  # last: a sklearn.py in the folder must not stand for the library
    return text


def require_consent(names: Iterable[str], asked_by: str) -> None:
    """Raises UserError for a name that nobody has given consent to.

    `import_callable` asks this itself. To ask earlier, with `names_of_code` of whole settings, spares a
    person the hours of work before a name is imported.
    """
    given = _consent.get()
    for name in names:
        if not given.everything and name not in given.names:
            raise UserError(f"{asked_by} asks to import and run '{name}'; {CONSENT}")


def names_of_code(value: object, key: str = "") -> Iterator[str]:
    """Every `MODULE:NAME` that plain settings hold under a key `call` or as `python:...`."""
    if isinstance(value, Mapping):
        for inner_key, inner in value.items():
            yield from names_of_code(inner, str(inner_key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from names_of_code(inner, key)
    elif isinstance(value, str) and value:
        if key.rpartition(".")[2] == "call":
            yield value
        elif value.startswith("python:"):
            yield value.removeprefix("python:")
