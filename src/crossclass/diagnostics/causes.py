"""One cause is named, and what follows from it stands below it; the end is one sentence.

A fault seldom comes alone: a network without its batch norm is at chance, predicts one class and has dead
features. `CONSEQUENCES` says what each fault is known to bring with it, in the order in which faults are
judged. What follows from wrong inputs is not in the table but measured: it is gone with the right ones.
"""

from collections.abc import Sequence
from dataclasses import replace

from crossclass.diagnostics.findings import FINDINGS, Finding, Level

_NO_ATTACK = ("attack-without-effect", *(name for name in FINDINGS if name.startswith("gradient-masking-")))
_MASKED = (
    *("zero-gradients", "non-finite-gradients", "wrong-gradients"),
    *("saturated-loss", "weak-cross-entropy"),
)
_BLIND = ("constant-outputs", "dead-features", "collapsed-predictions", "unpredicted-classes")
_USELESS = (*_BLIND, "chance-accuracy", "never-updated-batch-norm", "stale-batch-norm", "degenerate-head")
_LATER = ("not-examined", *_MASKED, *_NO_ATTACK)

_LEVELS: tuple[Level, ...] = ("fault", "warning", "note", "fine")

CONSEQUENCES: dict[str, tuple[str, ...]] = {
    "cannot-run": ("not-examined",),
    "non-finite-weights": ("non-finite-outputs", "head-mismatch", *_USELESS, *_LATER),
    "non-finite-outputs": ("head-mismatch", "random-outputs", *_USELESS, *_LATER),
    "wrong-class-count": ("permuted-labels", "head-mismatch", *_USELESS, *_LATER),
    "permuted-labels": ("chance-accuracy", "not-examined"),
    "wrong-normalisation": (),
    "normalised-twice": (),
    "wrong-range": (),
    "wrong-channel-order": (),
    "transposed-images": (),
    "turned-images": (),
    "inverted-images": (),
    "wrong-variant": (),
    "zero-layers": (*_USELESS, *_LATER),
    "never-updated-batch-norm": ("stale-batch-norm",),
    "stale-batch-norm": ("random-outputs", *_USELESS, *_LATER),
    "constant-outputs": (*_USELESS, *_LATER),
    "chance-accuracy": (*_USELESS, *_LATER),
    "degenerate-head": ("collapsed-predictions", "unpredicted-classes"),
    "collapsed-predictions": ("unpredicted-classes",),
    "unpredicted-classes": (),
    "classes-without-images": (),
    "train-mode": ("random-outputs", "batch-dependent", "head-mismatch"),
    "random-outputs": ("head-mismatch", "batch-dependent", *_MASKED, *_NO_ATTACK),
    "softmax-outputs": ("head-mismatch", *_MASKED, *_NO_ATTACK),
    "sigmoid-outputs": ("head-mismatch", *_MASKED, *_NO_ATTACK),
    "log-softmax-outputs": ("head-mismatch",),
    "batch-dependent": (*_MASKED, *_NO_ATTACK),
    "movable-cas": (),
    "zero-gradients": ("not-examined", *_MASKED, *_NO_ATTACK),
    "non-finite-gradients": (*_MASKED, *_NO_ATTACK),
    "wrong-gradients": (*_MASKED, *_NO_ATTACK),
    "saturated-loss": ("weak-cross-entropy", *_NO_ATTACK),
    "weak-cross-entropy": _NO_ATTACK,
    "gradient-masking-unbounded": _NO_ATTACK,
    "gradient-masking-eps": _NO_ATTACK,
    "gradient-masking-steps": _NO_ATTACK,
    "gradient-masking-fgsm": _NO_ATTACK,
    "gradient-masking-black-box": _NO_ATTACK,
    "gradient-masking-transfer": _NO_ATTACK,
    "gradient-masking-noise": _NO_ATTACK,
}
"""What may follow from each finding, the deepest causes first; signs of masking follow from each other."""


def fold(found: Sequence[Finding]) -> list[Finding]:
    """The findings with `follows_from` set: each cause followed by its consequences, then the fine ones.

    What already says what it follows from keeps its cause.
    """
    wrong = {f.name: f for f in found if f.level != "fine"}
    cause_of = {f.name: f.follows_from for f in wrong.values() if f.follows_from in wrong}

    def root(name: str) -> str:
        while name in cause_of:
            name = cause_of[name]
        return name

    for cause, consequences in CONSEQUENCES.items():
        if cause in wrong:
            for name in consequences:
                if name in wrong and name not in cause_of and name != root(cause):
                    cause_of[name] = cause

    def seriousness(name: str) -> tuple[int, int]:
        levels = [_LEVELS.index(f.level) for f in wrong.values() if root(f.name) == name]
        return min(levels), order.index(name)

    order, out = [*CONSEQUENCES, *FINDINGS], list[Finding]()
    for first in sorted((n for n in wrong if n not in cause_of), key=seriousness):
        out.append(wrong[first])
        for name in (n for n in wrong if n != first and root(n) == first):
            remedy = f"mend {first}, then examine again"
            out.append(replace(wrong[name], follows_from=first, remedy=remedy))
    return out + [f for f in found if f.level == "fine"]


def verdict(found: Sequence[Finding]) -> str:
    """One sentence on folded findings: the cause, its remedy, what follows from it and what does not."""
    roots = [f for f in found if f.level != "fine" and not f.follows_from]
    if not roots:
        return f"Sound: {len(found)} faults were looked for and none was there."
    first = roots[0]
    follows = [f.name for f in found if f.follows_from == first.name]
    start = "No fault, but" if first.level == "note" and not follows else "The cause is"
    parts = [f"{start} {first.name} ({FINDINGS[first.name]})", first.remedy]
    parts += [f"{', '.join(follows)} follow{'s' * (len(follows) == 1)} from it"] * bool(follows)
    parts += [f"apart from it: {', '.join(f.name for f in roots[1:])}"] * (len(roots) > 1)
    return "; ".join(parts) + "."
