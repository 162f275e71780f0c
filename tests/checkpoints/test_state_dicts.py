"""Trees of tensors to candidates: the order of convention, prefixes, and constants of a normalisation."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from crossclass.checkpoints import state_dicts

COUNT = torch.tensor(3)
MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])


def test_candidates_come_in_the_order_of_convention() -> None:
    one = {"w": torch.ones(1)}
    tree = {
        "n": COUNT,
        "state_dict_ema": one,
        "optimizer": {"buffer": torch.ones(1)},
        "odd": {"inner": one},
        "last": one,
        "model": {"ema": one, "state_dict": one, "w": torch.ones(1)},
    }
    found = [c.where for c in state_dicts.candidates(tree)]
    plain = ["", "model", "model.state_dict", "model.ema", "last", "odd.inner", "state_dict_ema", "optimizer"]
    assert found[: len(plain)] == plain
    joined = state_dicts.candidates(tree)[len(plain) :]
    assert [c.where for c in joined] == ["", "model"]
    assert set(joined[1].tensors) == {"ema.w", "state_dict.w", "w"}
    assert [c.where for c in state_dicts.candidates({"state_dict": one})] == ["state_dict"]


def peeled(names: list[str]) -> dict[tuple[str, ...], set[str]]:
    return {k: set(v) for k, v in state_dicts.strip_prefixes(dict.fromkeys(names, COUNT))}


def test_prefixes_are_whole_leading_components() -> None:
    found = peeled(["module.head.model.weight", "module.modules.x", "modulex"])
    assert found[()] == {"module.head.model.weight", "module.modules.x", "modulex"}
    assert found["module",] == {"head.model.weight", "modules.x"}
    assert found["module", "head"] == {"model.weight"}
    assert ("model",) not in found
    assert ("x",) not in found


def test_peelings_come_fewest_first_then_known_then_large() -> None:
    names = [f"odd.{i}.w" for i in range(4)] + ["attacker.w", "model.w", "module.a.w", "module.b.w"]
    order = [k for k, _ in state_dicts.strip_prefixes(dict.fromkeys(names, COUNT))]
    assert order[:5] == [(), ("module",), ("model",), ("odd",), ("attacker",)]
    large = [k for k, _ in state_dicts.strip_prefixes(dict.fromkeys(["few.w", "many.w", "many.b"], COUNT))]
    assert large == [(), ("many",), ("few",)]
    assert all(len(a) <= len(b) for a, b in pairwise(order))


def test_small_parts_are_no_prefixes_unless_known() -> None:
    names = [f"net.{i}" for i in range(40)] + ["bn.weight", "model.weight"]
    assert set(peeled(names)) == {(), ("net",), ("model",)}


@pytest.mark.parametrize(
    "names",
    [
        *("mu sigma", "mean std", "module.normalize.mean module.normalize.std", "norm.mean norm.std"),
        *("normalizer.new_mean normalizer.new_std", "0.mean 0.std", "input_means input_sds"),
        *("model.mean_tensor model.std_tensor", "_mean _std"),
    ],
)
@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
def test_normalisation_under_its_many_names(names: str, shape: tuple[int, ...]) -> None:
    mean, std = names.split()
    file = {"conv.weight": torch.ones(3), mean: MEAN.view(shape), std: STD.view(shape)}
    found = state_dicts.normalisation(file)
    assert found is not None
    assert found[0] == pytest.approx(MEAN.tolist())
    assert found[1] == pytest.approx(STD.tolist())
    assert found[2] == (mean, std)


def test_normalisation_of_bytes_gray_images_and_one_std() -> None:
    found = state_dicts.normalisation({"mean": 255 * MEAN, "std": 255 * STD})
    assert found is not None
    assert found[0] == pytest.approx(MEAN.tolist())
    assert found[1] == pytest.approx(STD.tolist())
    for std in (1.0, 255.0):
        gray = {"mean": torch.zeros(1), "std": torch.tensor([std])}
        assert state_dicts.normalisation(gray) == ((0.0,), (1.0,), ("mean", "std"))
    one = state_dicts.normalisation({"mean": torch.full((3,), 0.5), "std": torch.tensor(0.5)})
    assert one is not None
    assert one[:2] == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_copies_of_the_constants_are_listed_and_others_are_not() -> None:
    pair = {"a.b.mean": MEAN, "a.b.std": STD, "mu": MEAN, "sigma": STD}
    found = state_dicts.normalisation({**pair, "c.mean": MEAN, "c.std": 2 * STD})
    assert found is not None
    assert found[2] == ("a.b.mean", "a.b.std", "mu", "sigma")
    assert found[1] == pytest.approx(STD.tolist())


@pytest.mark.parametrize(
    "file",
    [
        {"bn.running_mean": MEAN, "bn.running_var": STD, "bn.running_std": STD},
        *({"mean": MEAN}, {"std": STD}, {"mean": MEAN, "x.std": STD}, {"meanings": MEAN, "stdings": STD}),
        *(
            {"mean": MEAN, "std": STD * 0},
            {"mean": MEAN, "std": -STD},
            {"mean": MEAN * torch.nan, "std": STD},
        ),
        *({"mean": torch.ones(n), "std": torch.ones(m)} for n, m in ((4, 4), (1, 3))),
        {"mean": MEAN, "sigma_of_noise": STD},
    ],
)
def test_what_is_no_normalisation(file: dict[str, Tensor]) -> None:
    assert state_dicts.normalisation(file) is None
