"""Networks without some of their features, or with some of another network's in their place.

Both are modules like any `Classifier`, so that an attack goes through them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossclass.core.errors import UserError
from crossclass.models import Classifier


class Ablated(Classifier):
    """`model` with some features held at constants: its logits change by W[:, k] (at_k - g_k(x)).

    The head is the same, and `model` is left as it is.
    """

    def __init__(self, model: Classifier, removed: Int[Tensor, " m"], at: Float[Tensor, " d"]) -> None:
        """Hold features at constants.

        Args:
            model: The network.
            removed: The numbers of the features, in 0, ..., d-1.
            at: The constant of every feature, such as its mean over images (mean ablation).

        Raises:
            UserError: for features that the network does not have.
        """
        super().__init__((0.0,), (1.0,))
        head = model.head
        self.model, self.head = model, head
        where = _mask(removed, head.weight, "removed")
        if at.shape != where.shape:
            raise UserError(f"there are {len(at)} constants for {len(where)} features; give one for each")
        self.register_buffer("removed", where)
        self.register_buffer("at", at.to(head.weight.device, torch.float32))
        self.eval()

    removed: Tensor
    at: Tensor

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """g(x), with the constants in place of what was removed."""
        g = self.model.features(x)
        return torch.where(self.removed, self.at.to(g), g)


class Transplanted(Classifier):
    """`model` with some components g_k(x) W[:, k] of another network in place of its own.

    The bias is that of `model`. Both networks are left as they are.
    """

    def __init__(self, model: Classifier, donor: Classifier, moved: Int[Tensor, " m"]) -> None:
        """Put components of `donor` into `model`.

        Args:
            model: The network that receives them.
            donor: One of the same width and classes: another checkpoint of the same run.
            moved: The numbers of the components, in 0, ..., d-1.

        Raises:
            UserError: for networks of other shapes and for components that do not exist.
        """
        super().__init__((0.0,), (1.0,))
        own, other = model.head, donor.head
        if own.weight.shape != other.weight.shape:
            shapes = " and ".join(str(list(h.weight.shape)) for h in (own, other))
            raise UserError(
                f"the heads are {shapes}; components are exchanged between two checkpoints of one run"
            )
        where = _mask(moved, own.weight, "moved")
        self.model, self.donor = model, donor
        self.register_buffer("moved", where)
        with torch.no_grad():
            W = torch.where(where, other.weight.to(own.weight), own.weight)
            head = nn.utils.skip_init(nn.Linear, W.shape[1], len(W), device=W.device, dtype=W.dtype)
            head.weight.copy_(W)
            nn.init.zeros_(head.bias) if own.bias is None else head.bias.copy_(own.bias)
        self.head = head
        self.eval()

    moved: Tensor

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of both networks, each where its component is used."""
        g = self.model.features(x)
        return torch.where(self.moved, self.donor.features(x).to(g), g)


def _mask(which: Tensor, W: Float[Tensor, "k d"], word: str) -> Tensor:
    d = W.shape[1]
    out = [k for k in which.tolist() if not 0 <= k < d]
    if out:
        raise UserError(f"{word} names feature {out[0]}, and the network has the features 0 to {d - 1}")
    mask = torch.zeros(d, dtype=torch.bool, device=W.device)
    mask[which.to(W.device).long()] = True
    return mask
