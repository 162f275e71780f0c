"""Is the attack of a measurement too weak? On a few of its images the same attack goes on for as many steps.

Twice the steps of PGD-20 (each eps/4) raise the loss by another 0 to 9 % of its rise so far, of PGD-10 by
1 to 16 %, of PGD-5 by 23 to 47 %, of 20 steps of eps/20 by 44 to 65 % (medians over 100 CIFAR-10 images; a
robust and a standard network, l_inf 2/255 and 8/255).
"""

import torch
from torch import Tensor, nn

from crossclass.attacks import FGSM, PGD, AnyAttack
from crossclass.attacks.losses import cross_entropy
from crossclass.core.device import full_precision
from crossclass.core.rng import generator, isolated_rng, stream_seed
from crossclass.data import Split, as_float
from crossclass.models.model_state import evaluating, in_float32

MOST, SHARE, LEAST = 100, 40, 25
"""One image in 40 goes on, at least 25 (or all) and at most 100: 2 % of the attack's work for 10,000."""
RISE = 0.25
"""Largest rise of the loss, as a share of the rise before, of an attack that is strong enough."""
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
    """A sentence if twice the steps find clearly more on a sample of the images; nothing for other attacks.

    The sample is class-balanced and has starts of its own. The exact test of the images that only one of the
    two attacks breaks is McNemar's.
    """
    from scipy.stats import binomtest  # slow to import

    pgd = attack.as_pgd() if isinstance(attack, FGSM) else attack
    m = sample_size(len(part))
    if not isinstance(pgd, PGD) or pgd.threat.eps == 0 or pgd.steps == 0 or m == 0:
        return []
    pgd = pgd.for_evaluation().replace(return_iterate="last", restarts=1)
    few = part.take(part.sample(m, seed))
    y, draws, logits = few.labels, generator(seed, 1, 0, "measure"), list[tuple[Tensor, ...]]()
    with (
        full_precision(),
        evaluating(model),
        in_float32(model),
        isolated_rng(stream_seed(seed, 1, 0, "evaluation"), y.device),
    ):
        for images, labels in zip(few.images.split(batch), y.split(batch), strict=True):
            x = as_float(images).contiguous(memory_format=memory_format)
            once = pgd.search(model, x, labels, draws).x_adv
            twice = pgd.further(model, x, labels, once)
            logits.append(tuple(model(version).float() for version in (x, once, twice)))
    joined = [torch.cat(pieces) for pieces in zip(*logits, strict=True)]
    clean, first, second = (cross_entropy(z, y) for z in joined)
    right, left = (z.argmax(dim=1) == y for z in joined[1:])
    before = first - clean
    moved = before > 1e-3 * clean.abs().clamp(min=1e-3)  # where no gradient is usable, doctor says why
    rise = float(((second - first)[moved] / before[moved]).median()) if bool(moved.any()) else 0.0
    lost, won = int((right & ~left).sum()), int((left & ~right).sum())
    proven = lost + won > 0 and binomtest(lost, lost + won, alternative="greater").pvalue < LEVEL
    if not (rise > RISE and bool(right.any())) and not (proven and lost - won >= LOST * m):
        return []
    return [
        f"the attack is too weak: on {m} of the images {2 * pgd.steps} steps raise the loss by another "
        f"{rise:.0%} and leave {int(left.sum()) / m:.0%} right, where {pgd.steps} leave "
        f"{int(right.sum()) / m:.0%}; give more steps"
    ]
