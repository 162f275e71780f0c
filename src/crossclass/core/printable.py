"""Names from files of others as they can be printed, drawn and written into any file."""

import unicodedata

_ESCAPED = ("Cc", "Cs", "Zl", "Zp")
"""Categories of characters that break lines, steer a terminal, or stand for bytes that are no UTF-8."""


def printable(name: str) -> str:
    """The name with escapes, such as `\\n` and `\\udcff`, for characters that no line of text can hold."""
    escaped = (
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _ESCAPED else c for c in name
    )
    return "".join(escaped)
