"""Follows a pickle without running anything that it names.

A pickle is a program: it imports, calls and sets attributes. Here it is only read off. An import gives a
`Name`, a call an `Inert` object that records what would have been called, with what, and what state it would
have been given. The one exception are the names in a table, for which functions of this package stand: those
make the tensors. The instructions are decoded by the standard library's `pickletools`.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST = 3_000_000
"""Instructions that are followed; a file of weights has some thousands."""
_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))


class TooMuchError(ValueError):
    """A pickle that would take more time or memory than any file of weights does."""


@dataclass(frozen=True)
class Name:
    """What a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Inert:
    """What a pickle would have made by a call: nothing was called."""

    of: str
    """Dotted name of the class or function."""
    args: tuple[Any, ...] = ()
    state: Any = None
    """What would have become its attributes."""
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


class Dict(dict[Any, Any]):
    """Stands for an OrderedDict, and keeps the versions that torch notes beside a state dict."""

    versions: Any = None


Table = Mapping[str, Callable[..., Any]]
Stream = io.BytesIO | io.BufferedReader


def follow(stream: Stream, table: Table, persistent: Callable[[Any], Any], imported: dict[str, None]) -> Any:
    """The object that one pickle describes; the stream is left behind it.

    Args:
        stream: Bytes of one pickle, and whatever follows.
        table: Functions to call, by the dotted names that the pickle imports.
        persistent: What stands for an object that is kept outside the pickle.
        imported: Receives the names that the pickle would call and the table does not know.

    Raises:
        TooMuchError: More than `MOST` instructions.
        Exception: Whatever a damaged pickle leads to (ValueError, IndexError, KeyError, TypeError).
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        top, stack = stack, marked.pop()
        return top

    def made(callee: Any, args: Any, keywords: Any = None) -> Any:
        name = str(callee) if isinstance(callee, Name) else getattr(callee, "of", type(callee).__name__)
        arguments = tuple(args) if isinstance(args, list | tuple) else (args,)
        function = table.get(name) if isinstance(callee, Name) else None
        if function is not None:
            try:
                return function(*arguments)
            except TooMuchError:
                raise
            except (TypeError, AttributeError):  # arguments that make no sense
                return Inert(name, arguments)
        imported[name] = None
        return Inert(name, arguments, items=keywords if isinstance(keywords, dict) else {})

    for count, (op, arg, _) in enumerate(pickletools.genops(stream)):
        if count > MOST:
            raise TooMuchError(f"more than {MOST} instructions")
        name = op.name
        key = arg if isinstance(arg, int) else -1
        if name in _PUSH:
            stack.append(arg)
        elif name in _MAKE:
            stack.append(_MAKE[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[key] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[key])
        elif name == "MARK":
            marked.append(stack)
            stack = []
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(name[-1])
            stack[-n:] = [tuple(stack[-n:])]
        elif name == "TUPLE":
            top = since_mark()
            stack.append(tuple(top))
        elif name in ("LIST", "FROZENSET"):
            top = since_mark()
            stack.append(top)
        elif name == "DICT":
            top = since_mark()
            stack.append({})
            _set_items(stack[-1], top)
        elif name in ("APPENDS", "ADDITEMS"):
            top = since_mark()
            _extend(stack[-1], top)
        elif name == "APPEND":
            last = stack.pop()
            _extend(stack[-1], [last])
        elif name == "SETITEMS":
            top = since_mark()
            _set_items(stack[-1], top)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        elif name == "GLOBAL":
            stack.append(Name(*str(arg).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            last, module = stack.pop(), stack.pop()
            stack.append(Name(_short(module), _short(last)))
        elif name in ("REDUCE", "NEWOBJ"):
            args, callee = stack.pop(), stack.pop()
            stack.append(made(callee, args))
        elif name == "NEWOBJ_EX":
            keywords, args, callee = stack.pop(), stack.pop(), stack.pop()
            stack.append(made(callee, args, keywords))
        elif name == "INST":
            top = since_mark()
            stack.append(made(Name(*str(arg).split(" ", 1)), top))
        elif name == "OBJ":
            callee, *top = since_mark()
            stack.append(made(callee, top))
        elif name == "BUILD":
            state = stack.pop()
            _build(stack[-1], state)
        elif name == "BINPERSID":
            stack.append(persistent(stack.pop()))
        elif name == "PERSID":
            stack.append(persistent(arg))
        elif name in ("EXT1", "EXT2", "EXT4"):
            stack.append(Name("copyreg", str(arg)))
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            _ = stack.pop() if stack else since_mark()
        elif name == "POP_MARK":
            since_mark()
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"the instruction {name} is not for a file")
    raise ValueError("a pickle without an end")


def follow_bytes(raw: bytes, table: Table, imported: dict[str, None]) -> Any:
    """The object of one pickle that keeps nothing outside itself."""
    return follow(io.BytesIO(raw), table, lambda key: Inert("persistent"), imported)


_PUSH = frozenset(
    op.name for op in pickletools.opcodes if op.arg is not None and not op.stack_before and op.stack_after
) - {"GLOBAL", "INST", "PERSID", "GET", "BINGET", "LONG_BINGET", "EXT1", "EXT2", "EXT4"}
_MAKE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # a set hashes what is put into it
}


def _short(value: Any) -> str:
    return value if isinstance(value, str) else type(value).__name__


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, Inert):
        target.elements.extend(values)
    elif isinstance(target, list):
        target.extend(values)


def _set_items(target: Any, flat: list[Any]) -> None:
    """Pairs into a dictionary; a key that is no plain value is left out, as hashing it may never end."""
    into = target.items if isinstance(target, Inert) else target
    if isinstance(into, dict):
        into.update((k, v) for k, v in zip(flat[::2], flat[1::2], strict=True) if isinstance(k, _PLAIN_KEYS))


def _build(target: Any, state: Any) -> None:
    if isinstance(target, Inert):
        target.state = state
    elif isinstance(target, Dict):
        if isinstance(state, dict):
            target.versions = state.get("_metadata")
    elif hasattr(target, "take_state"):
        target.take_state(state)
