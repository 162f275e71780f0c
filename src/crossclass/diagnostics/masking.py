"""Can robust accuracy be believed? A sound network obeys an order among attacks; a masked one breaks it.

More eps, more steps, and gradients at all can only help an attacker (Athalye et al. 2018; Carlini et
al. 2019; Tramer et al. 2020). Weaker attacks are held to the images that PGD-20 left standing: a sound
network loses hardly any of these to them (`SPARE`).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossclass.attacks import FGSM, PGD
from crossclass.attacks.losses import margin
from crossclass.attacks.norms import AnyThreat
from crossclass.core.runtime import full_precision
from crossclass.diagnostics.findings import Finding, Level, beats, exceeds, judged, percent
from crossclass.diagnostics.probe import Probe
from crossclass.models.model_state import frozen

SPARE = 0.02
"""Share of the images that a weaker attack may break and PGD-20 may miss."""
QUERIES, DRAWS = 100, 10
STEPS = (1 / 4, 1 / 32)
RELY = "do not believe robust accuracy under PGD; use AutoAttack (with Square) or an adaptive attack"

REPAIR = f"look for rounding, thresholds, arg-max, detach() or no_grad() in the network; {RELY}"


def gradients(p: Probe) -> list[Finding]:
    """Zero and non-finite gradients of the margin, and whether they tell how the margin changes.

    Along a short steepest step d, (m(x + d) - m(x - d)) / <grad m, 2d> is about 1 where the gradient is that
    of the function, 0 where it was rounded or shattered, negative if reversed. The longer step lets
    straight-through rounding pass, the shorter one the curvature of undefended networks.
    """
    x, y = p.few
    if not differentiable(p):
        found = "the outputs depend on the image in no way that autograd can follow"
        return [judged("zero-gradients", "fault", True, found, REPAIR, images=len(x))]
    grad = _gradient(p, x, y)
    flat = grad.flatten(1)
    bad = ~flat.isfinite().all(dim=1)
    dead, usable = int(_flat(p, grad).sum()), flat.isfinite().all(dim=1) & (flat != 0).any(dim=1)
    n, at = len(x), f"margin loss at the images, {_few(p)}"
    ratios = [_told(p, grad, part)[usable] for part in STEPS]
    medians = [float(r.median()) for r in ratios if len(r)]
    wrong = bool(medians) and not any(0.1 < r < 10 for r in medians)
    shown = " and ".join(f"{r:.2g}" for r in medians) or "nothing"
    parts = " and ".join(f"{part:g} eps" for part in STEPS)
    return [
        judged(
            "zero-gradients",
            "fault",
            exceeds(dead, n, 0.01),
            f"{dead} of {n} images have a zero gradient ({at}, and at a random start)",
            REPAIR,
            images=dead,
        ),
        judged(
            "non-finite-gradients",
            "fault",
            bool(bad.any()),
            f"{int(bad.sum())} of {n} images have a NaN or infinite gradient ({at})",
            f"look for square roots and logarithms at zero and for overflow; {RELY}",
            images=int(bad.sum()),
        ),
        judged(
            "wrong-gradients",
            "fault",
            wrong,
            f"the margin changes by {shown} of what the gradient says (medians, steps of {parts}, {at})",
            REPAIR,
            ratios=medians,
        ),
    ]


def losses(p: Probe) -> list[Finding]:
    """Cross-entropy against margin and targeted PGD: where the softmax is exactly flat, or too weak."""
    ce = _pgd(p)
    right = p.under(ce)
    other = p.still(p.still(right, _pgd(p, loss="margin")), _pgd(p, targeted=True))
    missed, n = int((right & ~other).sum()), len(right)
    flat = int(((p.dead(ce) >= ce.steps) & ~_flat(p, _gradient(p, *p.few))).sum())
    top = p.logits(p.few[0]).softmax(dim=1).amax(dim=1)
    sure = float((top == 1).double().mean())
    shown = f"confidence is exactly 1 on {percent(sure)}, {_few(p)}"
    remedy = (
        "attack the margin (attack.loss=margin) or with AutoAttack; the logits' scale is too large for fp32"
    )
    return [
        judged(
            "saturated-loss",
            "warning",
            exceeds(flat, n, 0.01),
            f"cross-entropy has no gradient on {flat} of {n} images where the margin has one; {shown}",
            remedy,
            images=flat,
            certain=sure,
        ),
        judged(
            "weak-cross-entropy",
            "warning",
            exceeds(missed, n, 0.05),  # sound robust networks lose up to some 4 points more to the margin
            f"{percent(right)} under {ce}, {percent(other)} with margin and targeted PGD too; {shown}",
            "report the worst of several losses (attack.loss=margin), or AutoAttack",
            cross_entropy=_share(right),
            with_margin=_share(other),
        ),
    ]


def radii(p: Probe) -> list[Finding]:
    """Robust accuracy over eps must not rise, and must fall at all."""
    factors = (0.0, 0.5, 1.0, 2.0, 4.0)
    clean = p.judge(*p.few)
    right = [clean if f == 0 else p.under(_pgd(p, f)) for f in factors]
    rises = [j for j in range(1, 5) for i in range(j) if beats(right[j], right[i], by=SPARE)]
    ladder = {f"{f:g} eps": _share(r) for f, r in zip(factors, right, strict=True)}
    shown = ", ".join(f"{v:.1%} at {k}" for k, v in ladder.items()).replace("%", " %")
    broken = int((clean & ~right[2]).sum())
    still = exceeds(int(p.under(_whole(p)).sum()), len(clean), SPARE)
    effect = judged(
        "attack-without-effect",
        "warning" if still else "note",
        broken == 0,
        f"{_pgd(p)} breaks {broken} of {int(clean.sum())} rightly classified images; {shown}, {_few(p)}",
        f"{RELY}" if still else "this eps is small for this data and network; measure at a larger one",
        broken=broken,
        **ladder,
    )
    found = f"{shown} ({_pgd(p)}, {_few(p)})"
    return [judged("gradient-masking-eps", "fault", bool(rises), found, RELY, **ladder), effect]


def unbounded(p: Probe) -> list[Finding]:
    """In a ball that holds every image, nothing may be classified rightly for long.

    One picture shown for all images is right for one class, so an attack that leaves more than that share
    is worse than no thought at all; and sound networks leave hardly any.
    """
    attack = _whole(p)
    right, n = p.under(attack), len(p.few[0])
    left, chance = int(right.sum()), float(torch.bincount(p.few[1]).max()) / n
    level: Level = "fault" if exceeds(left, n, chance) else "warning"
    found = (
        f"{percent(right)} of {_few(p)} survive {attack}; one picture for all would leave {percent(chance)}"
    )
    numbers: dict[str, Any] = {"survive": left / n, "chance": chance, "eps": attack.threat.eps}
    wrong = exceeds(left, n, SPARE)
    return [judged("gradient-masking-unbounded", level, wrong, found, RELY, **numbers)]


def iterations(p: Probe) -> list[Finding]:
    """Robust accuracy over the number of steps must not rise."""
    counts = (1, 5, 20, 50)
    right = [p.under(_pgd(p, steps=s)) for s in counts]
    rises = [j for j in range(1, 4) for i in range(j) if beats(right[j], right[i], by=SPARE)]
    ladder = {f"{s} steps": _share(r) for s, r in zip(counts, right, strict=True)}
    shown = ", ".join(f"{v:.1%} after {k}" for k, v in ladder.items()).replace("%", " %")
    found = f"{shown} ({_pgd(p).threat}, step 0.25 eps, {_few(p)})"
    return [judged("gradient-masking-steps", "fault", bool(rises), found, RELY, **ladder)]


def weaker(p: Probe) -> list[Finding]:
    """FGSM, random noise, a search without gradients, and images made on another network."""
    fgsm = FGSM(threat=p.threat)
    stood = p.under(_pgd(p))
    others = {
        "fgsm": (str(fgsm), p.still(stood, fgsm)),
        "noise": (f"the worst of {DRAWS} draws of noise in the ball", _noise(p, stood)),
        "black-box": (f"a random search of {QUERIES} queries", _random_search(p, stood)),
    }
    if p.surrogate is not None:
        others["transfer"] = (f"{_pgd(p)} on the surrogate", p.still(stood, _pgd(p), on=p.surrogate))
    out = []
    for name, (what, right) in others.items():
        missed, n = int((stood & ~right).sum()), len(stood)
        found = (
            f"{what} breaks {missed} of the {int(stood.sum())} images that stand {_pgd(p)} ({_few(p)}; up to "
            f"{percent(SPARE)} of all is usual)"
        )
        numbers = {"missed": missed, "stood": int(stood.sum()), "n": n}
        wrong = exceeds(missed, n, SPARE)
        out.append(judged(f"gradient-masking-{name}", "fault", wrong, found, RELY, **numbers))
    return out


def differentiable(p: Probe) -> bool:
    """Whether the outputs depend on the image in a way that autograd can follow."""
    x = p.few[0][:2]
    with torch.inference_mode(False), torch.enable_grad(), frozen(p.model) as f:
        z = f(x.clone().requires_grad_())
        return z.requires_grad


def _noise(p: Probe, stood: Bool[Tensor, " m"]) -> Bool[Tensor, " m"]:
    (x, y), right = p.few, stood.clone()
    for draw in range(DRAWS):
        noise = p.threat.sample(x, p.threat.starts[0], p.stream(1, draw))
        here = right.nonzero().flatten()
        if len(here):
            right[here] = p.judge((x + noise)[here].clamp(0, 1), y[here])
    return right


def _random_search(p: Probe, stood: Bool[Tensor, " m"]) -> Bool[Tensor, " m"]:
    """Squares of random signs, kept if the margin grows (after Andriushchenko et al. 2020); no gradients.

    Differs from Square Attack: no schedule tied to the budget, and the ball's `steepest` puts the signs
    onto the surface, so every threat is served.
    """
    here = stood.nonzero().flatten()
    right = stood.clone()
    if not len(here):
        return right
    x, y, g = p.few[0][here], p.few[1][here], p.stream(2)
    n, c, h, w = x.shape

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g).to(x.device)

    def score(signs: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        return margin(p.logits((x + p.threat.steepest(signs, p.threat.eps)).clamp(0, 1)), y)

    signs = (drawn(n, c, 1, w) - 0.5).sign().expand(n, c, h, w).contiguous()  # vertical stripes
    best = score(signs)
    for query in range(QUERIES):
        side = max(1, round(min(h, w) * (0.5 - 0.4 * query / QUERIES)))
        top, left = (drawn(n, 1) * (h - side + 1)).floor(), (drawn(n, 1) * (w - side + 1)).floor()
        rows, columns = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
        inside = ((rows >= top) & (rows < top + side))[:, None, :, None]
        inside = inside & ((columns >= left) & (columns < left + side))[:, None, None, :]
        tried = torch.where(inside, (drawn(n, c, 1, 1) - 0.5).sign(), signs)
        now = score(tried)
        better = now > best
        signs, best = torch.where(better[:, None, None, None], tried, signs), torch.where(better, now, best)
    right[here] = best < 0
    return right


def _gradient(p: Probe, x: Tensor, y: Tensor) -> Float[Tensor, "m c h w"]:
    """Of the margin with respect to the images."""
    gradients = []
    with torch.inference_mode(False), torch.enable_grad(), full_precision(), frozen(p.model) as f:
        for a, b in zip(x.split(p.settings.batch), y.split(p.settings.batch), strict=True):
            a = a.clone().requires_grad_()
            gradients += torch.autograd.grad(margin(f(a), b).sum(), a)
    return torch.cat(gradients)


def _flat(p: Probe, gradient: Float[Tensor, "m c h w"]) -> Bool[Tensor, " m"]:
    """Where the gradient is zero at the image and at a random start in the ball too."""
    (x, y), zero = p.few, (gradient == 0).flatten(1).all(dim=1)
    if bool(zero.any()):
        start = (x + p.threat.sample(x, p.threat.starts[0], p.stream(3))).clamp(0, 1)[zero]
        zero[zero.clone()] = (_gradient(p, start, y[zero]) == 0).flatten(1).all(dim=1)
    return zero


def _told(p: Probe, gradient: Float[Tensor, "m c h w"], part: float) -> Float[Tensor, " m"]:
    """What the margin does along the steepest step of `part` eps, divided by what the gradient says."""
    (x, y), step = p.few, p.threat.steepest(gradient, part * p.threat.eps)
    up, down = (x + step).clamp(0, 1), (x - step).clamp(0, 1)
    told = (gradient.double() * (up - down).double()).flatten(1).sum(dim=1)
    return (margin(p.logits(up), y).double() - margin(p.logits(down), y).double()) / told


def _pgd(p: Probe, factor: float = 1.0, **changes: Any) -> PGD:
    """PGD-20 in the ball, or in one so many times as large."""
    threat = p.threat if factor == 1 else _ball(p.threat, factor * p.threat.eps)
    return PGD(**{"threat": threat, "steps": 20, **changes})


def _whole(p: Probe) -> PGD:
    """PGD-20 in a ball that holds every image around any other; noise is no help to it."""
    threat = _ball(p.threat, float(p.threat.norm(torch.ones_like(p.few[0][:1]))))
    return PGD(threat=threat, steps=20, start="none", return_iterate="best")


def _ball(threat: AnyThreat, eps: float) -> AnyThreat:
    """The same ball with another radius, unchecked: the unbounded attack wants an absurd one."""
    kept = {name: getattr(threat, name) for name in type(threat).model_fields}
    return type(threat).model_construct(**{**kept, "eps": eps})


def _few(p: Probe) -> str:
    return f"{len(p.few[0])} {p.part} images, seed {p.settings.seed}"


def _share(right: Bool[Tensor, " m"]) -> float:
    return float(right.double().mean())
