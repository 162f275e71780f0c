"""Is the attack of a measurement too weak? On a few of its images the same attack goes on for as many steps.

An attack of few steps is followed by ten of the usual ones instead: FGSM's own step, eps, would only jump
between corners of the ball.

Twice the steps of PGD-20 (each eps/4) raise the loss by another 0 to 9 % of its rise so far, of PGD-10 by
1 to 16 %, of PGD-5 by 23 to 47 %, of 20 steps of eps/20 by 44 to 65 % (medians over 100 CIFAR-10 images; a
robust and a standard network, l_inf 2/255 and 8/255).
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from crossclass.attacks import FGSM, PGD, AnyAttack
from crossclass.attacks.losses import cross_entropy, margin as margin_loss
from crossclass.core.classes import predicted
from crossclass.core.device import full_precision
from crossclass.core.rng import generator, isolated_rng, stream_seed
from crossclass.data import Split, as_float
from crossclass.models.model_state import evaluating, in_float32

MOST, SHARE, LEAST = 100, 40, 25
"""One image in 40 goes on, at least 25 (or all) and at most 100: 2 % of the attack's work for 10,000."""
RISE = 0.25
"""Largest rise of the loss, as a share of the rise before, of an attack that is strong enough."""
FEW = 5
"""An attack of fewer steps goes on for `MORE` of the usual ones (eps/4 for l_inf)."""
MORE = 10
LOST, LEVEL = 0.05, 0.01
"""Share of the images that the steps may leave and twice the steps may not, and the level of its test."""


def sample_size(n: int) -> int:
    """How many of n images go on."""
    return min(n, MOST, max(LEAST, n // SHARE))


@torch.no_grad()
def strength_warnings(
    model: nn.Module,
    part: Split,
    attack: AnyAttack | None,
    seed: int,
    memory_format: torch.memory_format = torch.contiguous_format,
    batch: int = 250,
) -> list[str]:
    """Sentences if twice the steps find clearly more on a sample of the images, or if its loss vanishes.

    Nothing for other attacks than PGD and FGSM. The sample is class-balanced and has starts of its own. The
    exact test of the images that only one of the two attacks breaks is McNemar's.
    """
    from scipy.stats import binomtest  # slow to import

    pgd = attack.as_pgd() if isinstance(attack, FGSM) else attack
    m = sample_size(len(part))
    if not isinstance(pgd, PGD) or pgd.threat.eps == 0 or pgd.steps == 0 or m == 0:
        return []
    pgd = pgd.for_evaluation().replace(return_iterate="last", restarts=1)
    more = pgd if pgd.steps >= FEW else pgd.replace(steps=MORE, rel_step=pgd.threat.usual_step)
    ascended = margin_loss if pgd.loss == "margin" else cross_entropy
    few = part.take(part.sample(m, seed))
    y, draws = few.labels, generator(seed, 1, 0, "measure")
    logits, dead, margin = list[tuple[Tensor, ...]](), list[Tensor](), list[Tensor]()
    with (
        full_precision(),
        evaluating(model),
        in_float32(model),
        isolated_rng(stream_seed(seed, 1, 0, "evaluation"), y.device),
    ):
        for images, labels in zip(few.images.split(batch), y.split(batch), strict=True):
            x = as_float(images).contiguous(memory_format=memory_format)
            found = pgd.search(model, x, labels, draws)
            twice = more.further(model, x, labels, found.x_adv)
            logits.append(tuple(model(version).float() for version in (x, found.x_adv, twice)))
            dead.append(2 * found.dead_gradients >= pgd.steps)
            z = logits[-1][1]
            if _unused(ascended(z, labels), predicted(z) == labels, dead[-1]).any():
                margin.append(_margin_attack(model, x, labels, pgd, draws))
            else:
                margin.append(torch.stack((predicted(z) == labels, dead[-1])))
    joined = [torch.cat(pieces) for pieces in zip(*logits, strict=True)]
    clean, first, second = (cross_entropy(z, y) for z in joined)
    right, left = (predicted(z) == y for z in joined[1:])
    out = list(_vanishing(ascended(joined[1], y), right, torch.cat(dead), torch.cat(margin, dim=1), pgd))
    before = first - clean
    moved = before > 1e-3 * clean.abs().clamp(min=1e-3)  # where no gradient is usable, doctor says why
    rise = float(((second - first)[moved] / before[moved]).median()) if bool(moved.any()) else 0.0
    lost, won = int((right & ~left).sum()), int((left & ~right).sum())
    proven = lost + won > 0 and binomtest(lost, lost + won, alternative="greater").pvalue < LEVEL
    if (rise > RISE and bool(right.any())) or (proven and lost - won >= LOST * m):
        further = f"{2 * pgd.steps} steps" if more is pgd else f"{MORE} more steps of {more.rel_step:g} eps"
        out.append(
            f"the attack is too weak: on {m} of the images {further} raise the loss by another "
            f"{rise:.0%} and leave {int(left.sum()) / m:.0%} right, where {pgd.steps} leave "
            f"{int(right.sum()) / m:.0%}; give more steps"
        )
    return out


def _unused(loss: Tensor, right: Tensor, dead: Tensor) -> Tensor:
    """Which images the attack left right with a loss of zero, or most gradients zero or not finite."""
    return right & (dead | (loss == 0))


def _margin_attack(
    model: nn.Module, x: Tensor, y: Tensor, pgd: PGD, draws: torch.Generator
) -> Bool[Tensor, "2 n"]:
    """Which images the same attack with the margin loss leaves right, and for which it has no gradient."""
    found = pgd.replace(loss="margin").search(model, x, y, draws)
    right = predicted(model(found.x_adv).float()) == y
    return torch.stack((right, 2 * found.dead_gradients >= pgd.steps))


def _vanishing(
    loss: Tensor, right: Tensor, dead: Tensor, margin: Bool[Tensor, "2 n"], pgd: PGD
) -> Iterator[str]:
    """A softmax of far logits is 0 or 1: cross-entropy has no gradient there, where the margin has one."""
    m, unused, least = len(loss), _unused(loss, right, dead), max(2.0, LOST * len(loss))
    broken, flat = int((unused & ~margin[0]).sum()), int((unused & margin.all(dim=0)).sum())
    what = (
        f"robust accuracy is overstated, since the loss of the attack vanishes: on {m} of the images its "
        f"gradient is zero for {int((right & dead).sum()) / m:.0%}, the loss for "
        f"{int((right & (loss == 0)).sum()) / m:.0%}"
    )
    if broken >= least and pgd.loss != "margin":
        yield f"{what}, and attack.loss=margin breaks {broken} of these {int(unused.sum())}; give it"
    elif flat >= least:
        yield (
            f"{what}; that of attack.loss=margin vanishes too: give attack.kind=autoattack, whose Square "
            "needs no gradient"
        )
