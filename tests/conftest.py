"""Models whose worst case is known, and models whose state is easy to spoil. One thread, no chance.

Then what tests of several files share; it imports late, so that this file needs nothing of crossclass.
"""

import math
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any

import hypothesis
import jaxtyping
import pytest
import torch
from torch import Tensor, nn

torch.set_num_threads(1)
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")
# so that helpers too say what they compared
pytest.register_assert_rewrite("dataset_files", "faulty_networks", "measuring", "reader_contract")


class Plane(nn.Module):
    """Two classes split by a plane: logits -m/2 and m/2 with m = w.x + b, so the worst case is known."""

    def __init__(self, w: Tensor, b: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(w.detach().clone())
        self.b = nn.Parameter(torch.tensor(b, dtype=w.dtype))

    def forward(self, x: Tensor) -> Tensor:
        m = x.flatten(1) @ self.w + self.b
        return torch.stack((-m / 2, m / 2), dim=1)

    def margin(self, x: Tensor, y: Tensor) -> Tensor:
        """f_y - f_other in float64: positive is right."""
        m = x.double().flatten(1) @ self.w.detach().double() + self.b.detach().double()
        return torch.where(y == 1, m, -m)

    def worst(self, x: Tensor, y: Tensor, kind: str, eps: float) -> Tensor:
        """The smallest margin in the ball, without a box: margin - eps * (dual norm of w)."""
        order = {"linf": 1, "l2": 2}[kind]
        return self.margin(x, y) - eps * float(self.w.detach().double().norm(p=order))

    def worst_linf_in_box(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """The minimiser over ball and box: every pixel goes as far as it may against the class."""
        against = -torch.where(y == 1, 1.0, -1.0)[:, None] * self.w.detach().sign()
        flat = x.flatten(1).to(against.dtype)
        return (flat + eps * against).clamp(0, 1).view(x.shape)


class TinyNet(nn.Module):
    """Convolution, batch norm, dropout, head: everything that an attack could leave in another state."""

    def __init__(self, classes: int = 3, side: int = 6, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.act = nn.Softplus(beta=5)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.act(self.bn(self.conv(x)))).flatten(1))


class Forwards(nn.Module):
    """Counts forwards and raises `Tripped` in the one with number `trip` (in its backward, if so told)."""

    def __init__(self, inner: nn.Module, trip: int | None = None, backward: bool = False) -> None:
        super().__init__()
        self.inner, self.trip, self.backward, self.count = inner, trip, backward, 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        if self.count - 1 == self.trip:
            if not self.backward:
                raise Tripped
            x = _Fuse.apply(x)
        return self.inner(x)


class Tripped(Exception):  # noqa: N818
    """Raised on purpose in the middle of an attack."""


class _Fuse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        raise Tripped


def seeded(seed: int) -> torch.Generator:
    """A fresh CPU generator."""
    return torch.Generator().manual_seed(seed)


def tiny_net(seed: int = 0, **size: int) -> TinyNet:
    """A `TinyNet` in eval mode whose batch norm has seen something, the global stream left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TinyNet(**size)
        with torch.no_grad():
            net.bn.running_mean.uniform_(-0.5, 0.5)
            net.bn.running_var.uniform_(0.5, 2)
            net.bn.weight.uniform_(0.5, 1.5)
            net.bn.num_batches_tracked.fill_(5)
    return net.eval()


def pictures(n: int, seed: int = 1, side: int = 6) -> Tensor:
    """Images in [0, 1], some pixels exactly at 0 and 1."""
    return (1.4 * torch.rand(n, 3, side, side, generator=seeded(seed)) - 0.2).clamp(0, 1)


@pytest.fixture
def net() -> TinyNet:
    """An untrained net in eval mode."""
    return tiny_net()


@pytest.fixture(scope="session")
def _trained() -> tuple[TinyNet, Tensor, Tensor]:
    g = seeded(11)
    means = 0.5 + 0.12 * torch.randn(3, 3, 6, 6, generator=g)
    y = torch.arange(150) % 3
    x = (means[y] + 0.15 * torch.randn(150, 3, 6, 6, generator=g)).clamp(0, 1)
    net = tiny_net(3).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    optimizer.zero_grad()
    return net.eval(), x[:90], y[:90]


@pytest.fixture
def trained(_trained: tuple[TinyNet, Tensor, Tensor]) -> Iterator[tuple[TinyNet, Tensor, Tensor]]:
    """An undefended net that has learned its three classes, with images and labels; shared, never changed."""
    net, x, y = _trained
    before = {k: v.clone() for k, v in net.state_dict().items()}
    yield net, x.clone(), y.clone()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a run of seconds that nothing interrupted; read, never changed."""
    from crossclass.training.loop import train
    from tiny_runs import CPU, TINY

    return train(TINY, tmp_path_factory.mktemp("whole"), "tiny", CPU)


@pytest.fixture(scope="session")
def nets() -> dict[str, Any]:
    """The doctor's patients: trained once, copied whenever one is used."""
    from faulty_networks import healthy

    return healthy()


@pytest.fixture(scope="session")
def data() -> Any:
    """The images that the doctor's patients learned from."""
    from faulty_networks import splits_of

    return splits_of()


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; returns exit code, stdout, stderr."""
    from crossclass.cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as e:
            main(arguments)
        out, err = capsys.readouterr()
        return int(e.value.code or 0), out, err

    return run


@pytest.fixture
def trusted() -> Iterator[None]:
    """Code may be imported by its name, and pickles may run theirs."""
    from crossclass.core.trust import trusting

    with trusting(everything=True):
        yield


@pytest.fixture
def made(trusted: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a foreign model from a factory; settings by keyword."""
    from foreign_networks import making

    return making(monkeypatch)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their figures, for the tests that only read."""
    from crossclass.report import plots

    nothing = plots.matrix([[1.0]], ["a"])
    for name in ("curves", "matrix", "difference", "class_bars"):
        monkeypatch.setattr(plots, name, lambda *_, **__: nothing)
    monkeypatch.setattr(plots, "svg", lambda _: "<svg></svg>")


@pytest.fixture(autouse=True)
def _no_live_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` draws its page only in tests that are marked `live_page`: it takes seconds."""
    if request.node.get_closest_marker("live_page") is None:
        monkeypatch.setattr("crossclass.cli.live_page.LivePage.update", lambda *_: False)
        monkeypatch.setattr("crossclass.cli.live_page.final_page", lambda *_: None)


@pytest.fixture(autouse=True)
def _no_line_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command prints in a test must not depend on how busy the machine is."""
    for name in ("SILENCE", "SHORT"):
        monkeypatch.setattr(f"crossclass.cli.progress.{name}", math.inf)


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """As a user has it: annotations of shapes and types are not checked, so that the code itself must."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """Attacks of tests are short on purpose; what is warned of is tested in `test_attack_warnings.py`."""
    from crossclass.attacks import AttackWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)
        return (yield)
