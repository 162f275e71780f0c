"""`os._exit` and `os.abort`, which end a process without a word, as an exception that can be said."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


class HardExit(SystemExit):
    """Code would have ended the process in a way that nothing can catch."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(code)
        self.call = call
        """What it called, such as `os._exit(1)`."""


@contextmanager
def caught_hard_exits() -> Iterator[None]:
    """Inside, `os._exit` and `os.abort` raise HardExit, but not in processes that are forked inside."""
    own, end, abort = os.getpid(), os._exit, os.abort

    def instead_of_end(status: int) -> NoReturn:
        if os.getpid() == own:
            raise HardExit(f"os._exit({status!r})", status)
        end(status)

    def instead_of_abort() -> NoReturn:
        if os.getpid() == own:
            raise HardExit("os.abort()", 134)
        abort()

    patched: Any = os
    patched._exit, patched.abort = instead_of_end, instead_of_abort
    try:
        yield
    finally:
        patched._exit, patched.abort = end, abort
