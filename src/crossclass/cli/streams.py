"""stdout and stderr that never end a command: the reader may have gone, the disk be full, the file be closed.

What a command has computed is in its files by then. A character that the encoding lacks is written as its
escape, `\\u0447`.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any


class Stream:
    """A text stream; after the first error it takes what is written and drops it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None
        """Why it could not be written to, if so."""
        # in the locale C it is surrogateescape, which has no escape for a letter
        if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(
            stream, "reconfigure"
        ):
            with suppress(OSError, ValueError):  # it is closed: the first text will say so
                stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, if that is still possible; its length."""
        if self.error is None:
            try:
                self._write(text)
            except (OSError, ValueError) as e:  # ValueError: the file was closed
                self._drop(e)
        return len(text)

    def isatty(self) -> bool:
        """Whether a person looks at it; nobody does where the file is closed."""
        try:
            return bool(self._stream.isatty())
        except (OSError, ValueError, AttributeError):
            return False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a stream of somebody else, which could not be told to escape
            known = getattr(self._stream, "encoding", None) or "ascii"
            self._stream.write(text.encode(known, "backslashreplace").decode(known))

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is still in the buffer, if that is possible."""
        if self.error is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as e:
                self._drop(e)

    def close(self) -> None:
        """Nothing but a flush: code of others that closes its stdout would close ours."""
        self.flush()

    @property
    def cut_off(self) -> str:
        """Why a reader who is still there did not get everything; empty if all is well."""
        if self.error is None or getattr(self.error, "errno", None) == errno.EPIPE:
            return ""
        return getattr(self.error, "strerror", None) or str(self.error)

    def _drop(self, e: Exception) -> None:
        self.error = e
        with suppress(
            OSError, ValueError, AttributeError
        ):  # Python writes the rest of the buffer when it ends
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def streams() -> Iterator[Stream]:
    """Inside, `sys.stdout` and `sys.stderr` are such streams; yields the first."""
    before: dict[str, Any] = {}
    own: dict[str, Stream] = {}
    with ExitStack() as opened:
        for name in ("stdout", "stderr"):
            before[name] = getattr(sys, name)
            # None where the file is closed; whatever is opened first would take its number
            usable = before[name] is not None and not getattr(before[name], "closed", False)
            nowhere = None if usable else opened.enter_context(open(os.devnull, "w", encoding="utf-8"))
            own[name] = Stream(nowhere or before[name])
            setattr(sys, name, own[name])
        try:
            yield own["stdout"]
        finally:
            for name, stream in own.items():
                stream.flush()
                if getattr(sys, name) is stream:
                    setattr(sys, name, before[name])
