"""What other code may have set for all of torch, put aside while this package computes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def usual_torch_state() -> Iterator[None]:
    """Inside, torch is as it starts: float32, tensors on the CPU, gradients, no autocast, no inference mode.

    Notebooks and other libraries set another default dtype or device, switch gradients off or call from an
    autocast region: networks would be made in another precision, on another device, or not learn. Afterwards
    everything is as it was. Also a decorator, though not of a generator.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
