"""Which tensors of a file might be a net's: containers, leading prefixes, constants of a normalisation.

Files differ in how they wrap a net: in a container ({"state_dict": ...}), under prefixes (`module.`), and
with the constants of their normalisation beside it. Here all readings are listed, the likeliest first;
which of them is right only a module can say.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# What wraps a net in practice, in the order in which equals are preferred.
_KNOWN = (
    *("state_dict", "model_state_dict", "model_state", "module", "_orig_mod", "model", "net", "network"),
    *("rmodel", "params", "weights", "1", "backbone", "encoder", "best", "best_state", "best_model", "last"),
)
_SECOND = re.compile(r"(^|_)(ema|swa|avg|averaged?|teacher|target|proxy|attacker)(_|$)")


@dataclass(frozen=True)
class Candidate:
    """One set of named tensors in a file, and in which container: 'model.state_dict', '' for the top."""

    where: str
    tensors: dict[str, Tensor]


def candidates(tree: dict[str, Any]) -> list[Candidate]:
    """Every dict in the tree that holds tensors, the likeliest first; then parts saved apart, joined.

    Plain weights come before averaged ones (ema, swa), the outer before the inner.
    """
    found: list[Candidate] = []
    joined: list[Candidate] = []

    def visit(node: dict[str, Any], path: tuple[str, ...]) -> None:
        tensors = {k: v for k, v in node.items() if isinstance(v, Tensor)}
        inner = sorted((k for k in node if k not in tensors), key=_rank)
        if tensors:
            found.append(Candidate(".".join(path), tensors))
        if len(inner) + bool(tensors) > 1:
            joined.append(Candidate(".".join(path), dict(_flat(node))))
        for key in inner:
            visit(node[key], (*path, key))

    visit(tree, ())
    return found + joined


def strip_prefixes(tensors: dict[str, Tensor]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The tensors as they are, then below every leading prefix: (components stripped, what is below).

    Fewer strips come first, then prefixes that are well known, then those with more tensors. A prefix is
    a whole leading component: `head.model.weight` never loses its `model.`. Any name may be a wrapper's
    attribute, so every prefix counts that is well known or holds a 16th of the tensors.
    """
    few = len(tensors) / 16
    level: list[tuple[tuple[str, ...], dict[str, Tensor]]] = [((), tensors)]
    while level:
        deeper: list[tuple[tuple[str, ...], dict[str, Tensor]]] = []
        for stripped, left in level:
            yield stripped, left
            below: dict[str, dict[str, Tensor]] = {}
            for name, tensor in left.items():
                first, dot, rest = name.partition(".")
                if dot:
                    below.setdefault(first, {})[rest] = tensor
            wide = ((f, part) for f, part in below.items() if f in _KNOWN or len(part) >= few)
            deeper += [((*stripped, first), part) for first, part in wide]
        level = sorted(deeper, key=lambda p: (tuple(map(_rank, p[0])), -len(p[1])))


_LEAF = re.compile(r"(?P<before>(?:\w*_)?)(?P<word>means?|mu|stds?|sds?|sigmas?)(?P<after>(?:_\w*)?)")


def is_normalisation(name: str) -> bool:
    """Is this how constants of an input normalisation are called? Batch norm's running_mean is not."""
    leaf = _LEAF.fullmatch(name.rpartition(".")[2])
    return leaf is not None and "running_" not in leaf["before"]


def normalisation(
    tensors: Mapping[str, Tensor],
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]] | None:
    """Mean and std per channel in [0, 1] units, with the names of all buffers that say so; None if none do.

    A pair such as mu and sigma under one parent, 1 or 3 values each, every std positive. Values
    beyond 1 are constants of a 0..255 range and are divided by 255. Pairs that disagree with the first
    are not listed.
    """
    pairs = [pair for name in tensors if (pair := _pair(tensors, name)) is not None]
    if not pairs:
        return None
    mean, std, _ = min(pairs, key=lambda pair: pair[2][0].count("."))
    names = [name for m, s, both in pairs if (m, s) == (mean, std) for name in both]
    unit = 255.0 if max(*mean, *std) > 1 else 1.0
    return tuple(v / unit for v in mean), tuple(v / unit for v in std), tuple(dict.fromkeys(names))


def _pair(
    tensors: Mapping[str, Tensor], name: str
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, str]] | None:
    parent, dot, last = name.rpartition(".")
    leaf = _LEAF.fullmatch(last)
    if leaf is None or not is_normalisation(name) or leaf["word"] not in ("mean", "means", "mu"):
        return None
    for word in ("std", "stds", "sd", "sds", "sigma", "sigmas"):
        other = f"{parent}{dot}{leaf['before']}{word}{leaf['after']}"
        if other in tensors:
            mean, std = _channels(tensors[name]), _channels(tensors[other])
            if mean and std and min(std) > 0 and len(std) in (1, len(mean)):
                return mean, std * (len(mean) // len(std)), (name, other)
    return None


def _channels(tensor: Tensor) -> tuple[float, ...]:
    if tensor.numel() not in (1, 3) or tensor.is_complex() or not torch.isfinite(tensor).all():
        return ()
    return tuple(tensor.flatten().tolist())


def _rank(name: str) -> int:
    if name in _KNOWN:
        return _KNOWN.index(name)
    return len(_KNOWN) + bool(_SECOND.search(name)) + 2 * name.startswith("opt")


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in node.items():
        if isinstance(value, Tensor):
            yield prefix + key, value
        else:
            yield from _flat(value, f"{prefix}{key}.")
