"""Which tensors of a file might be a network's state dict, and the constants of its normalisation.

Files wrap a network in containers ({"state_dict": ...}) and under prefixes (`module.`). All possibilities are
listed here, the likeliest first; `match_state_dict` finds the one that fits a module.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from crossclass.checkpoints.tensor_tree import Extra, Tree
from crossclass.core.errors import UserError

# Usual names of containers and prefixes, the preferred first.
_KNOWN = (
    *("state_dict", "model_state_dict", "model_state", "module", "_orig_mod", "model", "net", "network"),
    *("rmodel", "params", "weights", "1", "backbone", "encoder", "best", "best_state", "best_model", "last"),
)
# Names of other networks in a file, such as averaged weights: taken after the others.
_SECOND = re.compile(r"(^|_)(ema|swa|avg|averaged?|teacher|target|proxy|attacker)(_|$)")


@dataclass(frozen=True)
class Candidate:
    """One set of named tensors of a file."""

    where: str
    """Dotted name of the container, such as `model.state_dict`; empty for the top of the file."""
    tensors: dict[str, Tensor]
    extra: Mapping[str, Any] = field(default_factory=dict)
    """States of modules that are no tensors, by name."""
    versions: Mapping[str, Any] | None = None
    """What torch notes about the formats of its modules."""


def select(tree: dict[str, Any], container: str, where: str) -> dict[str, Any]:
    """The part of a file under a dotted name: of a container, of an entry of a list, or a prefix of names.

    Raises UserError, which names `where` and the containers there are, if nothing has that name.
    """
    node, parts = tree, container.split(".")
    while parts:
        names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        whole = next((name for name in names if isinstance(node.get(name), dict)), None)
        if whole is None:
            prefix = ".".join(parts) + "."
            node = Tree({k.removeprefix(prefix): v for k, v in node.items() if k.startswith(prefix)})
            if not node:
                there = [c.where for c in candidates(tree) if c.where][:5]
                hint = f"; there are {', '.join(there)}" if there else "; all its tensors are at the top"
                raise UserError(f"{where} has no container '{container}' (weights.container){hint}")
            break
        node, parts = node[whole], parts[whole.count(".") + 1 :]
    return node


def preference(dotted: str) -> tuple[int, ...]:
    """Sorts containers by convention; those without one, such as the entries of a list, are equal."""
    return tuple(-1 if part.isdigit() else _rank(part) for part in dotted.split("."))


def candidates(tree: dict[str, Any]) -> list[Candidate]:
    """Every dictionary that holds tensors, the likeliest first; then parts that were saved apart, joined.

    `tree` holds tensors and dictionaries by name, as `file_formats.read` returns them. Outer dictionaries
    come before inner ones, plain weights before averaged ones (ema, swa).
    """
    found: list[Candidate] = []
    joined: list[Candidate] = []

    def visit(node: dict[str, Any], path: tuple[str, ...]) -> None:
        tensors = {k: v for k, v in node.items() if isinstance(v, Tensor)}
        extra = {k: v.value for k, v in node.items() if isinstance(v, Extra)}
        inner = sorted((k for k in node if k not in tensors and k not in extra), key=_rank)
        if tensors:
            versions = node.versions if isinstance(node, Tree) else None
            found.append(Candidate(".".join(path), tensors, extra, versions))
        if len(inner) + bool(tensors) > 1:
            joined.append(Candidate(".".join(path), dict(_flat(node))))
        for key in inner:
            visit(node[key], (*path, key))

    visit(tree, ())
    return found + joined


def strip_prefixes(tensors: dict[str, Tensor]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The tensors as they are, then those below every leading prefix, with their names shortened by it.

    Yields (the components of the prefix, the tensors below it): short prefixes first, then known ones, then
    those with more tensors. A prefix is a whole leading component: `head.model.weight` never loses `model.`.
    Any name may be a wrapper's attribute, so every prefix counts that is known or has a 16th of the tensors.
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
    """Whether a tensor's name is usual for a constant of an input normalisation, such as `norm.mean`.

    Batch norm's `running_mean` is not.
    """
    leaf = _LEAF.fullmatch(name.rpartition(".")[2])
    return leaf is not None and "running_" not in leaf["before"]


def normalisation(
    tensors: Mapping[str, Tensor],
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]] | None:
    """The constants of an input normalisation: (mean, standard deviation, the names of their tensors).

    Looked for are pairs such as mu and sigma with one parent, of 1 or 3 values, the deviations positive. The
    names are of all pairs that agree with the outermost one. Constants beyond 1 are of images in 0..255 and
    are divided by 255. None if there is no pair.
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
    """Mean, standard deviation and both names, if `name` is a mean and its standard deviation is there."""
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
    """The values of a tensor if they can be constants of 1 or 3 channels, else none."""
    if tensor.numel() not in (1, 3) or tensor.is_complex() or not torch.isfinite(tensor).all():
        return ()
    return tuple(tensor.flatten().tolist())


def _rank(name: str) -> int:
    """Lower for a likelier container or prefix."""
    if name in _KNOWN:
        return _KNOWN.index(name)
    return len(_KNOWN) + bool(_SECOND.search(name)) + 2 * name.startswith("opt")


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in node.items():
        if isinstance(value, Tensor):
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
