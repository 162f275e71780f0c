"""Per-sample losses on logits; labels may be classes or probabilities (soft labels).

Each returns one number per sample: attacks sum them, so that a sample's perturbation does not depend
on its batch; recipes average them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from crossclass.core.classes import class_labels, require_labels
from crossclass.core.errors import UserError
from crossclass.core.logits import logits_of

Logits = Float[Tensor, "n k"]
Labels = Int[Tensor, " n"] | Int[Tensor, "n 1"] | Float[Tensor, "n k"]
"""Classes, or the probabilities of all classes (soft labels)."""


def hard(y: Labels) -> Int[Tensor, " n"]:
    """The class of every label: itself, or the most probable one of a soft label."""
    y = class_labels(y)
    return y.long() if y.ndim == 1 else y.argmax(dim=1)


def soft(y: Labels, classes: int) -> Float[Tensor, "n k"]:
    """The probabilities that every label gives: all on its class, or itself where it is soft.

    Unlike torch's `one_hot` this does not look at labels that are known, which would wait for the device.
    """
    y = class_labels(y)
    require_labels(y, classes)
    if y.ndim == 2:
        return y.float()
    return torch.zeros(len(y), classes, device=y.device).scatter_(1, y.long()[:, None], 1.0)


def _fitting(logits: Logits, y: Labels) -> tuple[Logits, Labels]:
    """Logits and labels of the same images and classes, on one device; raises UserError for others."""
    y = class_labels(y)
    logits = logits_of(logits, len(y))
    y = y.to(logits.device)
    require_labels(y, logits.shape[1])
    return logits, y


def cross_entropy(logits: Logits, y: Labels) -> Float[Tensor, " n"]:
    """-sum_k y_k log p_k per sample."""
    logits, y = _fitting(logits, y)
    return F.cross_entropy(logits, hard(y) if y.ndim == 1 else y, reduction="none")


def margin(logits: Logits, y: Labels) -> Float[Tensor, " n"]:
    """max_{j != y} f_j - f_y per sample (eq. 10 without its inner maximum); positive means wrong."""
    logits, y = _fitting(logits, y)
    true = soft(hard(y), logits.shape[1]).bool()
    other = logits.masked_fill(true, -torch.inf).amax(dim=1)
    return other - logits.masked_fill(~true, -torch.inf).amax(dim=1)


def kl(logits: Logits, reference: Logits) -> Float[Tensor, " n"]:
    """KL(softmax(reference) || softmax(logits)) per sample, as in TRADES.

    The target goes in as log-probabilities: through a softmax target, saturated logits have a NaN
    gradient (seen in TRADES' code and its descendants).
    """
    reference = logits_of(reference, len(reference))
    logits = logits_of(logits, len(reference))
    if logits.shape != reference.shape:
        raise UserError(f"logits have shape {list(logits.shape)} and the reference's {list(reference.shape)}")
    p, q = F.log_softmax(reference, dim=1), F.log_softmax(logits, dim=1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(dim=1)
