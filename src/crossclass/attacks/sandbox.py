"""The sandbox for other people's code: what it changes in torch, in Python or in the model is put back.

Libraries seed the global streams (AutoAttack, with the wall clock), leave models in another mode
(torchattacks), move them to another device (foolbox). After the sandbox the next random number, every
switch and every tensor of the model are what they would have been without the call.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossclass.attacks.base import Images, Network
from crossclass.core.errors import UserError
from crossclass.core.foreign_code import restored_switches
from crossclass.core.logits import logits_of
from crossclass.core.rng import isolated_rng
from crossclass.models.model_state import frozen

# what torch itself keeps in every module: parameters, buffers, submodules, hooks
_STRUCTURE = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))


class FrozenModule(nn.Module):
    """A model as attack libraries expect it: a module in eval mode, float32 in and out.

    `net` may also be a plain function; `check` sees the logits first.
    """

    def __init__(self, net: Network, check: Callable[[Tensor], Tensor] = lambda logits: logits) -> None:
        super().__init__()
        self.net, self.check = net, check
        self.training = False

    def forward(self, x: Images) -> Float[Tensor, "n k"]:
        """Logits in float32, whatever the model computes in; input gradients contiguous."""
        dtype = next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)
        x = x.flatten(1).view(x.shape)  # its backward is contiguous: libraries take .view() of gradients
        return self.check(logits_of(self.net(x.to(dtype)), len(x))).float()


@contextmanager
def sandbox(
    model: Network,
    seed: int,
    who: str,
    device: torch.device,
    check: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> Iterator[FrozenModule]:
    """The model to give to `who`, whose random numbers all come from `seed`; everything is put back.

    Raises UserError if a weight was changed (it is put back too). Gradients can be taken inside,
    whatever mode the caller is in; the parameters are frozen. `check` is that of `FrozenModule`.
    """
    with (
        isolated_rng(seed, device),
        restored_switches(),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        _restored_model(model, who),
        frozen(model),
    ):
        yield FrozenModule(model, check)


@contextmanager
def _restored_model(model: Network, who: str) -> Iterator[None]:
    """Structure, tensors and gradients of the model are put back; a changed weight is an error."""
    if not isinstance(model, nn.Module):
        yield
        return
    structure = [(m, {k: dict(vars(m)[k]) for k in _STRUCTURE}) for m in model.modules()]
    weights = dict(model.named_parameters())
    tensors = [(t, t.data, t.detach().clone(), t.grad) for t in (*weights.values(), *model.buffers())]
    changed: list[str] = []
    try:
        for p in weights.values():
            p.grad = None  # kept aside: a backward pass would add to it in place
        yield
    finally:
        found = dict(model.named_parameters())
        for name, (_, _, before, _) in zip(weights, tensors, strict=False):  # buffers may change
            if name not in found or not _same(found[name].detach().to(before), before):
                changed.append(name)
        for m, kept in structure:
            for k, entries in kept.items():
                vars(m)[k].clear()
                vars(m)[k].update(entries)
        with torch.no_grad():
            for t, storage, before, grad in tensors:
                if t.data_ptr() != storage.data_ptr() or t.dtype != storage.dtype:
                    t.data = storage
                if not _same(t, before):
                    t.copy_(before)
                t.grad = grad
    if changed:
        more = f" and {len(changed) - 1} others" if len(changed) > 1 else ""
        raise UserError(
            f"{who} changed the model's weights ({changed[0]}{more}); they were put back, but an attack may "
            "only change images: let it work on a copy.deepcopy of the model"
        )


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal entry by entry, NaN equal to NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
