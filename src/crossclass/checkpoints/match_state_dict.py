"""Load a file's tensors into a module: the interpretation with the most matching names and shapes is taken.

The file may wrap the network, and the user's module may wrap it too. So an interpretation is a submodule, a
container of the file, a prefix to strip, and names as they are or renamed; all are tried. Then every tensor
that did not match is accounted for. A weight that is not loaded, is no copy of one and not known to be unused
makes the fit partial, and a partial fit is refused unless asked for: random weights must never pass for
trained ones.
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from crossclass.checkpoints import load_hooks, state_dicts
from crossclass.checkpoints.tensor_tree import EXTRA
from crossclass.core.errors import UserError

Shape = tuple[int, ...]
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")


@dataclass(frozen=True)
class Fit:
    """How a file fits a module; as text, what a person should know about it."""

    target: str
    """The submodule that the file describes; empty for the whole module."""
    state: dict[str, Tensor]
    """For the target's load_state_dict; half precision is widened to float32."""
    missing: list[str]
    """Names in the module that the file does not give; in a partial load they stay as they were."""
    unexpected: list[str]
    """Weights of the file, by their full names, that belong nowhere."""
    mismatched: list[tuple[str, Shape, Shape]]
    """Name in the module, the file's shape, the module's."""
    notes: list[str]
    """What was taken off the file's names; what was left out and why; containers that fit as well."""
    normalisation: tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]] | None
    """Mean, std and names of the file's own normalisation, unless the target holds it itself."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """States of modules that are no tensors, for the target's load_state_dict."""
    prefixes: list[str] = field(default_factory=list)
    """Where names under several prefixes fit as well with other numbers: all of these."""
    rivals: list[str] = field(default_factory=list)
    """Containers that fit as well, among which no convention decides; the first is the chosen one."""
    part: str = ""
    """Container and prefix of what was read, as `weights.container` takes them."""
    other_kinds: list[str] = field(default_factory=list)
    """Tensors whose numbers are of a kind that the module cannot take, in words."""

    @property
    def partial(self) -> bool:
        """Whether something would stay random, or be lost."""
        return bool(self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        into = f" into '{self.target}'" if self.target else ""
        parts = [f"{len(self.state)} tensors{into}", *self.notes, *([self.lost] if self.partial else [])]
        return "; ".join(parts)

    @property
    def lost(self) -> str:
        """What a partial load leaves as it was, and what of the file it does not take."""
        left = [*self.missing, *(name for name, _, _ in self.mismatched)]
        parts = [f"{len(left)} of the model's tensors are left as they were: {_short_list(left)}"]
        unused = (
            f"{len(self.unexpected)} of the file's tensors are not loaded: {_short_list(self.unexpected)}"
        )
        return "; ".join([*(parts if left else []), *([unused] if self.unexpected else [])])


@dataclass(frozen=True)
class _Interpretation:
    """One way to read the file: which of its tensors, under which names, for which submodule."""

    target: str
    candidate: state_dicts.Candidate
    prefix: tuple[str, ...]
    names: dict[str, str]
    """Name in the target to name below the prefix; they differ where a name was changed."""
    tensors: dict[str, Tensor]
    """What is below the prefix."""
    consumed: frozenset[str] = frozenset()
    """Names below the prefix that the module's own hooks made others of."""

    @property
    def dotted(self) -> str:
        """Container and prefix, as `weights.container` takes them."""
        return ".".join([*([self.candidate.where] if self.candidate.where else []), *self.prefix])


def fit(module: nn.Module, tree: dict[str, Any]) -> Fit:
    """The best interpretation of the tree for the module, every difference named; nothing is changed.

    A module may have `renames`, (pattern, replacement) pairs for the file's names, and `unused`, patterns of
    names that it never uses. Among equals the whole module comes first, then the likelier container, then the
    shorter prefix.
    """
    own = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    lazy = [k for k, v in own.items() if nn.parameter.is_lazy(v)]
    if lazy:
        raise UserError(f"the model does not know the shape of {lazy[0]} yet; run one batch through it first")
    peeled = [(c, *p) for c in state_dicts.candidates(tree) for p in state_dicts.strip_prefixes(c.tensors)]
    if not peeled:
        raise UserError("the file holds no named tensors; save the model's state_dict()")
    best: _Interpretation | None = None
    best_score = -1, -1
    equals: list[_Interpretation] = []
    for target, sub in _targets(module, own):
        shapes = {k: v.shape for k, v in _under_prefix(own, target).items()}
        pairs = getattr(sub, "renames", ())
        for candidate, prefix, tensors in peeled:
            if min(len(tensors), len(shapes)) < best_score[0]:
                continue
            for names, read, consumed in _readings(sub, shapes, pairs, candidate, prefix, tensors):
                common = [new for new in names if new in shapes]
                same = sum(read[names[new]].shape == shapes[new] for new in common)
                interpretation = _Interpretation(target, candidate, prefix, names, read, consumed)
                if same > best_score[0]:
                    equals = []
                if (same, len(common)) > best_score:
                    best, best_score = interpretation, (same, len(common))
                if same == best_score[0]:
                    equals.append(interpretation)
    assert best is not None
    return _fit_of(module, own, best, equals)


def load(
    module: nn.Module,
    tree: dict[str, Any],
    *,
    allow_partial: bool = False,
    where: str,
    closest: str = "",
    check: Callable[[Fit], None] = lambda fit: None,
) -> Fit:
    """Load the tree into the module; returns the fit, which says in words what was done.

    Args:
        module: Takes the tensors.
        tree: Tensors and dictionaries by name, as `file_formats.read` returns them.
        allow_partial: Leave up to a tenth of the module's tensors as they are, but never the statistics of
            its normalisation.
        where: Names the file in errors.
        closest: The model that would fit better, in words.
        check: May raise another error for a fit.

    Raises:
        UserError: With nothing changed: the fit is partial and that is not allowed, not one parameter fits,
            or several networks of the file fit equally.
    """
    result = fit(module, tree)
    check(result)
    sub = module.get_submodule(result.target)
    if result.prefixes:
        raise UserError(
            f"{where} holds {len(result.prefixes)} networks under prefixes that fit equally: "
            f"{', '.join(result.prefixes)}; choose one with weights.container={result.prefixes[0]}"
        )
    fits = any(name in result.state for name, _ in sub.named_parameters(remove_duplicate=False))
    if not fits or (result.partial and not allow_partial):
        raise UserError(_refusal(result, where, closest, fits))
    if result.partial:
        _require_small_share(result, len(module.state_dict()), where)
    if result.other_kinds:
        raise UserError(f"{where} holds other kinds of numbers: {_short_list(result.other_kinds)}")
    if result.rivals:
        n = sum(tensor.numel() for tensor in result.state.values())
        names = sorted(result.rivals)
        raise UserError(
            f"{where} holds {len(names)} networks that fit equally, of {n} numbers each: "
            f"{', '.join(names)}; choose one with weights.container={names[0]}"
        )
    state = OrderedDict([*result.state.items(), *result.extra.items()])
    state._metadata = getattr(sub.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
    sub.load_state_dict(state, strict=False)
    return result


def _require_small_share(result: Fit, total: int, where: str) -> None:
    """Raises UserError if a partial load would leave random what decides about everything."""
    left = [*result.missing, *(name for name, _, _ in result.mismatched)]
    vital = [n for n in left if n.endswith(("running_mean", "running_var"))]
    if vital:
        raise UserError(
            f"{where} lacks {_short_list(vital)}: statistics of a batch norm that stay as they were "
            "make numbers meaningless, also with --allow-partial; choose the model that the file describes"
        )
    if len(left) > max(1, total // 10):
        raise UserError(
            f"{where} lacks {len(left)} of the model's {total} tensors ({_short_list(left)}), more than "
            "--allow-partial leaves as they were (a tenth); choose the model that the file describes"
        )


def _refusal(result: Fit, where: str, closest: str, fits: bool) -> str:
    parts = [f"{where} does not fit the model: {len(result.state)} tensors match in name and shape"]
    shapes = [
        f"{n} is {'transposed: ' * (len(f) > 1 and f == m[::-1])}{list(f)} in the file, "
        f"{list(m)} in the model"
        for n, f, m in result.mismatched
    ]
    for names, what in (
        (result.missing, "of the model's are missing in the file"),
        (result.unexpected, "of the file's belong nowhere"),
        (shapes, "have another shape"),
    ):
        if names:
            parts.append(f"{len(names)} {what} ({_short_list(names)})")
    if closest:
        parts.append(f"the closest built-in model is {closest}")
    todo = "choose the model that the file describes"
    if fits and result.part and not (result.missing or result.mismatched):
        todo = f"weights.container={result.part} reads that part of the file alone"
    parts.append(todo + (", or load what fits with --allow-partial" if fits else ""))
    return "; ".join(parts)


def _targets(module: nn.Module, own: Mapping[str, Tensor]) -> Iterator[tuple[str, nn.Module]]:
    """The module, then submodules with at least a quarter of its tensors, the larger first."""
    counts = Counter(name[:i] for name in own for i, c in enumerate(name) if c == ".")
    yield "", module
    for name, sub in sorted(module.named_modules(), key=lambda m: -counts[m[0]]):
        if name and 4 * counts[name] >= len(own):
            yield name, sub


def _under_prefix(tensors: Mapping[str, Tensor], target: str) -> dict[str, Tensor]:
    prefix = target + "." if target else ""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _readings(
    sub: nn.Module,
    shapes: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
    candidate: state_dicts.Candidate,
    prefix: tuple[str, ...],
    tensors: dict[str, Tensor],
) -> Iterator[tuple[dict[str, str], dict[str, Tensor], frozenset[str]]]:
    """New to old names, tensors and names that are used up: by the module's own hooks, plain, renamed."""
    under = ".".join(prefix)
    versions = {
        key.removeprefix(under).removeprefix("."): version
        for key, version in (candidate.versions or {}).items()
        if isinstance(key, str) and (not under or key == under or key.startswith(f"{under}."))
    }
    if shapes.keys() & tensors.keys() or any("weight_" in n or "original" in n for n in tensors):
        changed = load_hooks.by_own_hooks(sub, tensors, versions)
        if changed is not None:
            yield {n: n for n in changed}, changed, frozenset(tensors.keys() - changed.keys())
    for names in _renamings(tensors, pairs):
        yield names, tensors, frozenset()
    of_torch = load_hooks.by_torch_names(tensors, shapes)
    if any(new != old for new, old in of_torch.items()) and len(of_torch) == len(tensors):
        yield of_torch, tensors, frozenset()


def _renamings(tensors: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """The names as they are, and renamed if that changes any; a name that is taken is left alone."""
    yield {name: name for name in tensors}
    renamed: dict[str, str] = {}
    for name in tensors:
        new = name
        for pattern, replacement in pairs:
            new = re.sub(pattern, replacement, new)
        renamed[name if new in tensors or new in renamed else new] = name
    if any(new != name for new, name in renamed.items()):
        yield renamed


def _fit_of(
    module: nn.Module, own: Mapping[str, Tensor], chosen: _Interpretation, equals: Sequence[_Interpretation]
) -> Fit:
    """What becomes of every name of the module and of the chosen container."""
    shapes = {k: v.shape for k, v in _under_prefix(own, chosen.target).items()}
    into = f"{chosen.target}." if chosen.target else ""
    under = "".join(f"{part}." for part in chosen.prefix)
    buffers = set(own) - {name for name, _ in module.named_parameters(remove_duplicate=False)}
    constants = {name for name in buffers if state_dicts.is_normalisation(name)}
    constants_in_file = state_dicts.normalisation(chosen.candidate.tensors)
    constant_names = constants_in_file[2] if constants_in_file else ()

    state: dict[str, Tensor] = {}
    mismatched: list[tuple[str, Shape, Shape]] = []
    used = {under + name for name in chosen.consumed}
    left = {name: name for name in chosen.candidate.tensors if name not in used}  # to names for the target
    for new, name in chosen.names.items():
        left[under + name] = new
        if new not in shapes:
            continue
        tensor = chosen.tensors[name]
        if tensor.shape == shapes[new]:
            state[new] = tensor
        elif into + new in constants and under + name in constant_names:
            continue  # the same constants, as [3] and as [1, 3, 1, 1]: for the caller to set
        else:
            mismatched.append((into + new, tuple(tensor.shape), tuple(shapes[new])))
        del left[under + name]

    unused = getattr(module.get_submodule(chosen.target), "unused", ())
    idle = {n for n, new in left.items() if any(re.search(pattern, new) for pattern in unused)}
    known = {chosen.names[new] for new in state} | {n.removeprefix(under) for n in idle}
    twins = {name: tensor for name, tensor in chosen.tensors.items() if name in known}
    memories = {_storage(tensor) for tensor in state.values()} - {None}
    reasons: dict[str, list[str]] = {}
    for full in left:
        tensor = chosen.candidate.tensors[full]
        if _is_counter(full, tensor):
            reason = "counters left out"
        elif full in constant_names:
            reason = "constants of a normalisation kept apart"
        elif full in idle:
            reason = "weights that such a network never uses left out"
        elif _storage(tensor) in memories or _is_copy(full, tensor, twins):
            reason = "equal copies left out"
        else:
            reason = ""
        reasons.setdefault(reason, []).append(full)

    given = {into + new for new in state} | {name for name, _, _ in mismatched} | constants
    loaded = {_storage(own[into + new]) for new in state} - {None}  # also under the names of tied weights
    missing = [
        n for n, t in own.items() if n not in given and not _is_counter(n, t) and _storage(t) not in loaded
    ]
    unexpected = reasons.pop("", [])
    left_out = [f"{why}: {len(names)} ({_short_list(names)})" for why, names in reasons.items()]
    extra = {n.removeprefix(under): v for n, v in chosen.candidate.extra.items() if n.startswith(under)}
    needed = [n for n, v in module.state_dict().items() if n.endswith(EXTRA) and not isinstance(v, Tensor)]
    missing += [n for n in needed if not (n.startswith(into) and n.removeprefix(into) in extra)]
    others = _rivals(chosen, equals)
    alike = _prefixes(chosen, equals, unexpected)
    ties = any(_equally_usual(r, chosen) for r in others)
    kinds = [(name, tensor.dtype, own[into + name].dtype) for name, tensor in state.items()]
    return Fit(
        target=chosen.target,
        state={name: _full_precision(tensor) for name, tensor in state.items()},
        extra={n: v for n, v in extra.items() if into + n in needed},
        part=chosen.dotted,
        rivals=[r.dotted for r in (chosen, *others) if _equally_usual(r, chosen)] if ties else [],
        prefixes=[] if missing or mismatched else alike,
        other_kinds=[f"{into}{n} is {a}, the model's {b}" for n, a, b in kinds if not _can_become(a, b)],
        missing=missing,
        unexpected=unexpected,
        mismatched=mismatched,
        notes=[*_stripped(chosen), *left_out, *_converted(kinds), *_not_taken(chosen, others)],
        normalisation=constants_in_file if all(name in left for name in constant_names) else None,
    )


def _is_copy(full: str, tensor: Tensor, twins: Mapping[str, Tensor]) -> bool:
    """Whether a tensor equals the one of the same name behind the chosen prefix, as in Madry's models."""
    parts = full.split(".")
    same = [twins[name] for i in range(len(parts)) if (name := ".".join(parts[i:])) in twins]
    return any(twin.dtype == tensor.dtype and torch.equal(twin, tensor) for twin in same)


def _full_precision(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor


def _is_counter(name: str, tensor: Tensor) -> bool:
    return tensor.numel() <= 1 and (name.endswith(_COUNTERS) or not tensor.is_floating_point())


def _storage(tensor: Tensor) -> tuple[int, Shape] | None:
    """Where a tensor lies, if anywhere: two names of one tied weight share it."""
    return (tensor.data_ptr(), tuple(tensor.shape)) if tensor.data_ptr() else None


def _stripped(chosen: _Interpretation) -> Iterator[str]:
    if chosen.candidate.where:
        yield f"container '{chosen.candidate.where}'"
    for depth, part in enumerate(chosen.prefix):
        under = "".join(f"{p}." for p in chosen.prefix[: depth + 1])
        yield f"prefix '{part}.' ({sum(n.startswith(under) for n in chosen.candidate.tensors)} names)"
    changes: dict[str, None] = {}
    for new, old in chosen.names.items():
        a, b = old.split("."), new.split(".")
        while a and b and a[-1] == b[-1]:
            a, b = a[:-1], b[:-1]
        if old != new:
            changes[f"{'.'.join(a)} -> {'.'.join(b)}"] = None
    if changes:
        yield f"renamed {_short_list(list(changes))}"


def _rivals(chosen: _Interpretation, equals: Sequence[_Interpretation]) -> list[_Interpretation]:
    """One interpretation of each other container that fits as well; without copies of the chosen one."""
    taken = chosen.candidate.where
    found: dict[str, _Interpretation] = {}
    for r in equals:
        where = r.candidate.where
        if r.target == chosen.target and where and where != taken and not taken.startswith(where + "."):
            found.setdefault(where, r)
    return [r for r in found.values() if not _same_weights(chosen, r)]


def _prefixes(chosen: _Interpretation, equals: Sequence[_Interpretation], left: Sequence[str]) -> list[str]:
    """The prefix of the chosen one and others that fit as well, if all that is left lies under them."""
    found = {chosen.dotted: ".".join(chosen.prefix)}
    for r in equals:
        one_file = r.target == chosen.target and r.candidate.where == chosen.candidate.where
        if one_file and r.prefix and chosen.prefix and not _same_weights(chosen, r):
            found.setdefault(r.dotted, ".".join(r.prefix))
    apart = len(found) > 1 and all(any(name.startswith(f"{p}.") for p in found.values()) for name in left)
    return sorted(found) if apart else []


def _same_weights(a: _Interpretation, b: _Interpretation) -> bool:
    return all(
        name in b.names
        and a.tensors[old].dtype == b.tensors[b.names[name]].dtype
        and torch.equal(a.tensors[old], b.tensors[b.names[name]])
        for name, old in a.names.items()
    )


def _equally_usual(a: _Interpretation, b: _Interpretation) -> bool:
    return state_dicts.preference(a.candidate.where) == state_dicts.preference(b.candidate.where)


def _not_taken(chosen: _Interpretation, others: Sequence[_Interpretation]) -> Iterator[str]:
    for where in (r.candidate.where for r in others if not _equally_usual(r, chosen)):
        yield f"container '{where}' fits as well and was not taken (weights.container={where} takes it)"


def _can_become(kind: torch.dtype, own: torch.dtype) -> bool:
    """Whether numbers of a file can be the module's: whole ones are no weights, complex ones no real ones."""
    if own.is_complex or kind == own:
        return True
    return not kind.is_complex and (kind.is_floating_point or not own.is_floating_point)


def _converted(kinds: Sequence[tuple[str, torch.dtype, torch.dtype]]) -> Iterator[str]:
    counts = Counter((a, b) for _, a, b in kinds if a != b and a.is_floating_point)
    for (a, b), n in counts.items():
        yield f"{str(a).removeprefix('torch.')} made {str(b).removeprefix('torch.')}: {n} tensors"


def _short_list(names: Sequence[str]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
