"""Networks in half, bfloat16, double or several types are computed in float32, and that is said."""

import copy
from collections.abc import Callable

import pytest
import torch

import odd_states
from crossclass import models
from crossclass.analysis.evaluate import evaluate, head_gap
from crossclass.analysis.network_faults import network_warnings
from crossclass.analysis.saliency import grad_cam
from crossclass.attacks import PGD
from crossclass.data import Shapes, Splits, as_float
from crossclass.diagnostics import Doctor, examine
from crossclass.models import Classifier, Python
from crossclass.training.loop import train
from crossclass.training.recipes import AT
from networks import THIN
from tiny_runs import CPU, TINY, weights

pytestmark = pytest.mark.usefixtures("trusted")
DATA = Shapes(n_train=12, n_val=4, n_test=12, classes=3, size=16)
KINDS: dict[str, Callable[[Classifier], Classifier]] = {
    "half": lambda net: net.half(),
    "bfloat16": lambda net: net.bfloat16(),
    "double": lambda net: net.double(),
}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return DATA()


def in_memory(kind: str, splits: Splits) -> tuple[Classifier, Classifier]:
    """A built-in network that was cast, and the same in float32."""
    net = models.build(THIN.replace(normalise="none"), splits.train.images, 3, 0).eval()
    if kind == "mixed":
        net.layer1.half()
        net.head.double()
    else:
        net = KINDS[kind](net)
    return net, copy.deepcopy(net).float()


@pytest.mark.parametrize("kind", [*KINDS, "mixed"])
def test_numbers_are_those_in_float32_and_the_network_is_as_before(kind: str, splits: Splits) -> None:
    net, plain = in_memory(kind, splits)
    before = {n: (t.dtype, t.data_ptr(), t.clone()) for n, t in net.state_dict().items()}
    x, y = as_float(splits.test.images), splits.test.labels
    attack = PGD(steps=2)
    found, expected = (evaluate(n, splits.test, attack) for n in (net, plain))
    for part in ("clean", "robust", "features", "W"):
        assert torch.equal(getattr(found, part), getattr(expected, part)), part
    assert found.features.dtype == found.W.dtype == torch.float32
    assert any("float32" in w for w in found.warnings)
    assert not expected.warnings
    assert head_gap(net, x) < 1e-3
    assert torch.equal(grad_cam(net, x, y), grad_cam(plain, x, y))
    assert network_warnings(net, x, y) == network_warnings(plain, x, y)
    doctor = Doctor(n=12, n_attack=4)
    assert [f.name for f in examine(net, splits, doctor)] == [f.name for f in examine(plain, splits, doctor)]
    assert attack(net, x, y, torch.Generator().manual_seed(0)).dtype == torch.float32
    for name, tensor in net.state_dict().items():
        dtype, place, value = before[name]
        assert (tensor.dtype, tensor.data_ptr()) == (dtype, place)
        assert torch.equal(tensor, value)


@pytest.mark.parametrize("name", odd_states.PRECISIONS)
def test_a_factory_of_such_a_network_is_trained_and_measured(name: str, splits: Splits, tmp_path) -> None:
    settings = Python(call=f"odd_states:{name}", normalise="none")
    net = models.build(settings, splits.train.images, 3, 0).eval()
    own = name == "Casting"
    assert any(("its own types" if own else "computed in float32") in note for note in net.notes)
    if not own:
        assert {p.dtype for p in net.parameters()} == {torch.float32}
        raw = getattr(odd_states, name)()
        raw.load_state_dict(net.net.state_dict())
        torch.testing.assert_close(
            net(as_float(splits.test.images)),
            raw.float().eval()(as_float(splits.test.images)),
            rtol=1e-2,
            atol=1e-2,
        )
    found = evaluate(net, splits.test, PGD(steps=1))
    assert bool(found.features.isfinite().all())
    short = {"epochs": 1, "lr_milestones": (), "batch": 6, "checkpoint_every": 0}
    folder = train(
        TINY.replace(data=DATA, model=settings, recipe=AT(attack=PGD(steps=1)), **short), tmp_path, "x", CPU
    )
    assert weights(folder)["net.c.weight"].dtype == (torch.bfloat16 if own else torch.float32)
