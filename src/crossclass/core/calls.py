"""Arguments of a Python call, with a sentence for those that the function does not take."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crossclass.core.errors import UserError, did_you_mean


def bind(
    function: Callable[..., Any],
    given: Sequence[Any],
    more: Mapping[str, Any],
    meant: Mapping[str, str],
) -> inspect.BoundArguments:
    """The arguments of a call by name, as `inspect.Signature.bind`.

    Args:
        function: Takes the arguments; its name stands in the sentence.
        given: By position.
        more: By name.
        meant: How to say what is no argument of its own, by the name that one would try, such as
            `attack=PGD(steps=20)` for `steps`.

    Raises:
        UserError: The function does not take these arguments.
    """
    signature, name = inspect.signature(function), function.__name__.partition("_")[0]
    for word in more:
        if word not in signature.parameters:
            hint = f"; give {meant[word]}" if word in meant else did_you_mean(word, signature.parameters)
            raise UserError(f"{name} has no argument '{word}'{hint}")
    try:
        return signature.bind(*given, **more)
    except TypeError as e:
        needed = ", ".join(n for n, p in signature.parameters.items() if p.default is p.empty)
        raise UserError(f"{name}: {e}; call it as {name}({needed})") from None
