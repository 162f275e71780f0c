"""Can robust accuracy be believed? A sound network obeys an order among attacks; a masked one breaks it.

More eps, more steps, and gradients at all can only help an attacker (Athalye et al. 2018; Carlini et
al. 2019; Tramer et al. 2020). Weaker attacks get the images that are correct under PGD-20: a sound
network loses hardly any of these to them (`TOLERANCE`).
"""

from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossclass.attacks import FGSM, PGD
from crossclass.attacks.losses import margin
from crossclass.attacks.norms import AnyThreat
from crossclass.core.classes import predicted
from crossclass.core.device import full_precision
from crossclass.diagnostics.findings import Finding, Level, beats, exceeds, finding, percent, share
from crossclass.diagnostics.probe import Probe
from crossclass.models.model_state import frozen

TOLERANCE = 0.02
"""Share of the images that a weaker attack may break and PGD-20 may miss."""
QUERIES, DRAWS = 100, 10
STEPS = (1 / 4, 1 / 32)
NOT_RELIABLE = "do not believe robust accuracy under PGD; use AutoAttack (with Square) or an adaptive attack"

REPAIR = f"look for rounding, thresholds, arg-max, detach() or no_grad() in the network; {NOT_RELIABLE}"


def gradients(p: Probe) -> list[Finding]:
    """Zero and non-finite gradients of the margin, and whether they tell how the margin changes.

    Along a short steepest step d, (m(x + d) - m(x - d)) / <grad m, 2d> is about 1 where the gradient is that
    of the function, 0 where it was rounded or shattered, negative if reversed. The longer step lets
    straight-through rounding pass, the shorter one the curvature of undefended networks.
    """
    x, y = p.attack_set
    if not differentiable(p):
        evidence = "the outputs depend on the image in no way that autograd can follow"
        return [finding("zero-gradients", "fault", True, evidence, REPAIR, images=len(x))]
    grad = _gradient(p, x, y)
    finite, nonzero = grad.flatten(1).isfinite().all(dim=1), (grad != 0).flatten(1).any(dim=1)
    bad, dead, usable = int((~finite).sum()), int(_flat(p, grad).sum()), finite & nonzero
    n, at = len(x), f"margin loss at the images, {p.attack_conditions}"
    ratios = [_gradient_ratio(p, grad, part)[usable] for part in STEPS]
    medians = [float(r.median()) for r in ratios if len(r)]
    wrong = bool(medians) and not any(0.1 < r < 10 for r in medians)
    shown = " and ".join(f"{r:.2g}" for r in medians) or "nothing"
    parts = " and ".join(f"{part:g} eps" for part in STEPS)
    return [
        finding(
            "zero-gradients",
            "fault",
            exceeds(dead, n, 0.01),
            f"{dead} of {n} images have a zero gradient ({at}, and at a random start)",
            REPAIR,
            images=dead,
        ),
        finding(
            "non-finite-gradients",
            "fault",
            bad > 0,
            f"{bad} of {n} images have a NaN or infinite gradient ({at})",
            f"look for square roots and logarithms at zero and for overflow; {NOT_RELIABLE}",
            images=bad,
        ),
        finding(
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
    right, dead = p.run_attack(ce)
    other = p.evaluate_remaining(p.evaluate_remaining(right, _pgd(p, loss="margin")), _pgd(p, targeted=True))
    missed, n = int((right & ~other).sum()), len(right)
    flat = int(((dead >= ce.steps) & ~_flat(p, _gradient(p, *p.attack_set))).sum())
    top = p.logits(p.attack_set[0]).softmax(dim=1).amax(dim=1)
    sure = share(top == 1)
    shown = f"confidence is exactly 1 on {percent(sure)}, {p.attack_conditions}"
    remedy = (
        "attack the margin (attack.loss=margin) or with AutoAttack; the logits' scale is too large for fp32"
    )
    return [
        finding(
            "saturated-loss",
            "warning",
            exceeds(flat, n, 0.01),
            f"cross-entropy has no gradient on {flat} of {n} images where the margin has one; {shown}",
            remedy,
            images=flat,
            certain=sure,
        ),
        finding(
            "weak-cross-entropy",
            "warning",
            exceeds(missed, n, 0.05),  # sound robust networks lose up to some 4 points more to the margin
            f"{percent(right)} under {ce}, {percent(other)} with margin and targeted PGD too; {shown}",
            "report the worst of several losses (attack.loss=margin), or AutoAttack",
            cross_entropy=share(right),
            with_margin=share(other),
        ),
    ]


def radii(p: Probe) -> list[Finding]:
    """Robust accuracy over eps must not rise, and must fall at all."""
    clean = p.is_correct(*p.attack_set)
    right = {f"{f:g} eps": p.evaluate(_pgd(p, f)) if f else clean for f in (0.0, 0.5, 1.0, 2.0, 4.0)}
    numbers = {k: share(r) for k, r in right.items()}
    shown = ", ".join(f"{percent(r)} at {k}" for k, r in right.items())
    broken = int((clean & ~right["1 eps"]).sum())
    unbounded_survives = exceeds(int(p.evaluate(_unbounded_pgd(p)).sum()), len(clean), TOLERANCE)
    effect = finding(
        "attack-without-effect",
        "warning" if unbounded_survives else "note",
        broken == 0,
        f"{_pgd(p)} breaks {broken} of {int(clean.sum())} correct images; {shown}, {p.attack_conditions}",
        NOT_RELIABLE
        if unbounded_survives
        else "this eps is small for this data and network; measure at a larger one",
        broken=broken,
        **numbers,
    )
    evidence = f"{shown} ({_pgd(p)}, {p.attack_conditions})"
    return [
        finding("gradient-masking-eps", "fault", _rises(right), evidence, NOT_RELIABLE, **numbers),
        effect,
    ]


def unbounded_attack(p: Probe) -> list[Finding]:
    """In a ball that holds every image, hardly any image may stay correct.

    One picture shown for all images is right for one class, so an attack that leaves more than that share
    is worse than guessing; and sound networks leave hardly any.
    """
    attack = _unbounded_pgd(p)
    right, n = p.evaluate(attack), len(p.attack_set[0])
    left, chance = int(right.sum()), float(torch.bincount(p.attack_set[1]).max()) / n
    level: Level = "fault" if exceeds(left, n, chance) else "warning"
    evidence = (
        f"{percent(right)} of {p.attack_conditions} survive {attack}; one picture for all would leave "
        f"{percent(chance)}"
    )
    numbers: dict[str, Any] = {"survive": left / n, "chance": chance, "eps": attack.threat.eps}
    wrong = exceeds(left, n, TOLERANCE)
    return [finding("gradient-masking-unbounded", level, wrong, evidence, NOT_RELIABLE, **numbers)]


def steps(p: Probe) -> list[Finding]:
    """Robust accuracy over the number of steps must not rise."""
    right = {f"{s} steps": p.evaluate(_pgd(p, steps=s)) for s in (1, 5, 20, 50)}
    numbers = {k: share(r) for k, r in right.items()}
    shown = ", ".join(f"{percent(r)} after {k}" for k, r in right.items())
    evidence = f"{shown} ({p.threat}, step 0.25 eps, {p.attack_conditions})"
    return [finding("gradient-masking-steps", "fault", _rises(right), evidence, NOT_RELIABLE, **numbers)]


def weaker_attacks(p: Probe) -> list[Finding]:
    """FGSM, random noise, a search without gradients, and images made on another network."""
    fgsm = FGSM(threat=p.threat)
    correct = p.evaluate(_pgd(p))
    others = {
        "fgsm": (str(fgsm), p.evaluate_remaining(correct, fgsm)),
        "noise": (f"the worst of {DRAWS} draws of noise in the ball", _noise(p, correct)),
        "black-box": (f"a random search of {QUERIES} queries", _random_search(p, correct)),
    }
    if p.surrogate is not None:
        still = p.evaluate_remaining(correct, _pgd(p), on=p.surrogate)
        x, y = p.attack_set
        own = share(predicted(torch.cat(p.map_batches(x, p.surrogate))) == y)
        others["transfer"] = (f"{_pgd(p)} on the surrogate ({percent(own)} right)", still)
    out = []
    for name, (attack, right) in others.items():
        missed, n = int((correct & ~right).sum()), len(correct)
        evidence = (
            f"{attack} breaks {missed} of the {int(correct.sum())} images that are correct under {_pgd(p)} "
            f"({p.attack_conditions}; up to {percent(TOLERANCE)} of all is usual)"
        )
        numbers = {"missed": missed, "correct": int(correct.sum()), "n": n}
        wrong = exceeds(missed, n, TOLERANCE)
        out.append(finding(f"gradient-masking-{name}", "fault", wrong, evidence, NOT_RELIABLE, **numbers))
    return out


def differentiable(p: Probe) -> bool:
    """Whether the outputs depend on the image in a way that autograd can follow."""
    x = p.attack_set[0][:2]
    with torch.inference_mode(False), torch.enable_grad(), frozen(p.model) as f:
        z = f(x.clone().requires_grad_())
        return z.requires_grad


def _rises(right: dict[str, Bool[Tensor, " m"]]) -> bool:
    """Whether some attack leaves more images correct than one before it, which is weaker."""
    return any(beats(later, former, by=TOLERANCE) for former, later in combinations(right.values(), 2))


def _noise(p: Probe, correct: Bool[Tensor, " m"]) -> Bool[Tensor, " m"]:
    (x, y), right = p.attack_set, correct.clone()
    for draw in range(DRAWS):
        noise = p.threat.sample(x, p.threat.starts[0], p.generator(1, draw))
        here = right.nonzero().flatten()
        if len(here):
            right[here] = p.is_correct((x + noise)[here].clamp(0, 1), y[here])
    return right


def _random_search(p: Probe, correct: Bool[Tensor, " m"]) -> Bool[Tensor, " m"]:
    """Squares of random signs, kept if the margin grows (after Andriushchenko et al. 2020); no gradients.

    Differs from Square Attack: no schedule tied to the budget, and the ball's `steepest` puts the signs
    onto the surface, so it works in every ball.
    """
    here = correct.nonzero().flatten()
    right = correct.clone()
    if not len(here):
        return right
    x, y, g = p.attack_set[0][here], p.attack_set[1][here], p.generator(2)
    n, c, h, w = x.shape

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g).to(x.device)

    def score(signs: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        return margin(p.logits((x + p.threat.steepest(signs, p.threat.eps)).clamp(0, 1)), y)

    signs = (draw(n, c, 1, w) - 0.5).sign().expand(n, c, h, w).contiguous()  # vertical stripes
    best = score(signs)
    for query in range(QUERIES):
        side = max(1, round(min(h, w) * (0.5 - 0.4 * query / QUERIES)))
        top, left = (draw(n, 1) * (h - side + 1)).floor(), (draw(n, 1) * (w - side + 1)).floor()
        rows, columns = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
        inside = ((rows >= top) & (rows < top + side))[:, None, :, None]
        inside = inside & ((columns >= left) & (columns < left + side))[:, None, None, :]
        tried = torch.where(inside, (draw(n, c, 1, 1) - 0.5).sign(), signs)
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
    (x, y), zero = p.attack_set, (gradient == 0).flatten(1).all(dim=1)
    if bool(zero.any()):
        start = (x + p.threat.sample(x, p.threat.starts[0], p.generator(3))).clamp(0, 1)[zero]
        zero[zero.clone()] = (_gradient(p, start, y[zero]) == 0).flatten(1).all(dim=1)
    return zero


def _gradient_ratio(p: Probe, gradient: Float[Tensor, "m c h w"], part: float) -> Float[Tensor, " m"]:
    """Change of the margin along a step of `part` eps, divided by the change that the gradient predicts."""
    (x, y), step = p.attack_set, p.threat.steepest(gradient, part * p.threat.eps)
    up, down = (x + step).clamp(0, 1), (x - step).clamp(0, 1)
    predicted = (gradient.double() * (up - down).double()).flatten(1).sum(dim=1)
    return (margin(p.logits(up), y).double() - margin(p.logits(down), y).double()) / predicted


def _pgd(p: Probe, factor: float = 1.0, **changes: Any) -> PGD:
    """PGD-20 in the ball, or in one `factor` times as large."""
    threat = _with_radius(p.threat, factor * p.threat.eps)
    return PGD(**{"threat": threat, "steps": 20, **changes})


def _unbounded_pgd(p: Probe) -> PGD:
    """PGD-20 in a ball that holds every other image, without a random start."""
    threat = _with_radius(p.threat, float(p.threat.norm(torch.ones_like(p.attack_set[0][:1]))))
    return PGD(threat=threat, steps=20, start="none", return_iterate="best")


def _with_radius(threat: AnyThreat, eps: float) -> AnyThreat:
    """The same ball with another radius, unchecked: the unbounded attack needs a very large one."""
    return threat.model_copy(update={"eps": eps})
