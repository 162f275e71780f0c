"""Networks whose modules, weights or buffers go by several names, for every contract over models.

All take images [n, 3, 6, 6] and return three logits; made twice with one seed, two are equal.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class Shared(nn.Module):
    """One convolution and one batch norm, each under two names and used twice."""

    uses = 2
    """How often a forward pass uses the batch norm `bn`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), norm()
        self.again, self.bn_again = self.a, self.bn
        self.act, self.drop, self.head = nn.Softplus(beta=5), nn.Dropout(0.5), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.a(self.conv(x))))
        return self.head(self.drop(self.act(self.bn_again(self.again(x)))).flatten(1))


class CalledTwice(Shared):
    """The same layers under one name each, called twice."""

    def __init__(self) -> None:
        super().__init__()
        del self.again, self.bn_again

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.a(self.conv(x))))
        return self.head(self.drop(self.act(self.bn(self.a(x)))).flatten(1))


class Tied(Shared):
    """Two convolutions with one weight and two biases, and a batch norm of its own for each."""

    uses = 1

    def __init__(self) -> None:
        super().__init__()
        self.again, self.bn_again = nn.Conv2d(4, 4, 3, padding=1), norm()
        self.again.weight = self.a.weight


class Views(Shared):
    """Two batch norms whose running means are rows of one buffer."""

    uses = 1

    def __init__(self) -> None:
        super().__init__()
        self.again, self.bn_again = nn.Conv2d(4, 4, 3, padding=1), norm()
        self.register_buffer("means", torch.linspace(-0.4, 0.4, 8).view(2, 4))
        self.bn.running_mean, self.bn_again.running_mean = self.means[0], self.means[1]


class Parametrized(Shared):
    """Weight norm and spectral norm as parametrizations."""

    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.a)
        parametrizations.spectral_norm(self.head)


class OldWeightNorm(Shared):
    """Weight norm by a hook, which leaves the weight as a tensor with a history beside the parameters."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(self.a)


def norm() -> nn.BatchNorm2d:
    """Batch norm that has seen something."""
    made = nn.BatchNorm2d(4)
    with torch.no_grad():
        made.running_mean.uniform_(-0.5, 0.5)
        made.running_var.uniform_(0.5, 2)
        made.weight.uniform_(0.5, 1.5)
        made.num_batches_tracked.fill_(5)
    return made


def making(made: type[nn.Module]) -> Callable[[], nn.Module]:
    """A factory of equal networks in eval mode that leaves the global stream alone."""

    def make(seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return made().eval()

    return make


ODD = {
    kind.__name__: making(kind) for kind in (Shared, CalledTwice, Tied, Views, Parametrized, OldWeightNorm)
}
"""A factory of each."""
