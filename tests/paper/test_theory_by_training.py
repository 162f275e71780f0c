"""The tied linear model trained by the project's PGD-AT against the theory."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crossclass.core.errors import UserError
from crossclass.paper.theory import samples
from crossclass.paper.theory.setting import PAPER, Layout
from crossclass.paper.theory_by_training import (
    Others,
    Tied,
    corner_training,
    fit,
    judge_training,
    measure_training,
    robust_loss,
)
from crossclass.paper.verdict import Verdict

LAYOUTS = [
    PAPER,
    Layout(kind="pairwise"),
    Layout(exclusive=2, shared=3),
    Layout(classes=5),
    Layout(classes=4, kind="pairwise"),
]


def drawn(n: int, layout: Layout = PAPER, seed: int = 0, sigma: float = 0.9) -> tuple[Tensor, Tensor]:
    x, y = samples.draw(n, 1.0, sigma, layout, np.random.default_rng(seed))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


# --- the model and its loss, literally


def tied(*w: list[float], layout: Layout = PAPER) -> Tied:
    model = Tied(len(w), layout)
    with torch.no_grad():
        model.w.copy_(torch.tensor(w))
    return model


def test_logits_are_equation_16() -> None:
    model = tied([0.7, 0.3])
    x, _ = drawn(12)
    f = model(x).detach()
    for m, row in enumerate(x.tolist()):
        e, c = row[:3], row[3:]
        for i in range(3):
            expected = 0.7 * e[i] + 0.3 * sum(c[k] for k in range(3) if k != i)
            assert float(f[m, i]) == pytest.approx(expected, abs=1e-5)


def test_models_side_by_side_are_models_alone() -> None:
    w = [0.7, 0.3], [0.2, 0.5]
    both = tied(*w)
    x, _ = drawn(10)
    for block in range(2):
        alone = tied(w[block])
        rows = slice(5 * block, 5 * block + 5)
        torch.testing.assert_close(both(x)[rows], alone(x[rows]))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_the_crafted_loss_is_the_exact_worst_case(layout: Layout, beta: float) -> None:
    x, y = drawn(40, layout)
    model = tied([0.8, 0.35], layout=layout)
    found = robust_loss(model, x, y, corner_training(0.2), beta)
    expected = samples.worst_case(x.numpy().astype(float), y.numpy(), 0.8, 0.35, 0.2, beta, "A", layout)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-5)
    assert model.w.grad is None


def test_others_is_the_sum_of_the_other_logits() -> None:
    x, y = drawn(9)
    model = Tied()
    f = model(x).detach()
    pair = Others(model, y)(x).detach()
    for m in range(9):
        rest = sum(float(f[m, j]) for j in range(3) if j != int(y[m]))
        assert pair[m].tolist() == pytest.approx([0.0, rest], abs=1e-5)


# --- training


@pytest.mark.parametrize("beta", [0.0, 0.25])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_training_ends_in_the_samples_own_minimiser(eps: float, beta: float) -> None:
    # lambda w = -(mean slope of the worst case), which is constant in w > 0
    x, y = drawn(300, seed=3)
    w, reached = fit(x, y, eps, lam=2.0, beta=beta, steps=20)
    worst = [
        samples.worst_case(x.numpy().astype(float), y.numpy(), *v, eps, beta).mean()
        for v in ((1.0, 1.0), (2.0, 1.0), (1.0, 2.0))
    ]
    expected = [-(worst[1] - worst[0]) / 2, -(worst[2] - worst[0]) / 2]
    assert w[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert reached == [False]


def test_w2_comes_to_0_and_w1_does_not() -> None:
    x, y = drawn(600, seed=1)
    w, reached = fit(x, y, 0.35)
    assert reached == [True]
    assert float(w[0, 1]) < 0.02
    assert float(w[0, 0]) == pytest.approx(float(x[torch.arange(600), y].mean()) - 0.7, abs=1e-4)


def test_the_two_models_of_a_fit_have_their_own_samples() -> None:
    x0, y0 = drawn(150, seed=5)
    x1, y1 = drawn(150, seed=6)
    both, _ = fit(torch.cat([x0, x1]), torch.cat([y0, y1]), 0.1, models=2, steps=20)
    for i, (x, y) in enumerate(((x0, y0), (x1, y1))):
        torch.testing.assert_close(both[i : i + 1], fit(x, y, 0.1, steps=20)[0])


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    found = measure_training(n=400, seeds=3, steps=40)
    return json.loads(json.dumps(found))  # stored numbers can be judged


def judged(numbers: dict[str, Any]) -> list[Verdict]:
    """Three verdicts on AT, three on label smoothing, one on corollary 1; each under its own theorem."""
    found = judge_training(numbers)
    assert {id_: len(each) for id_, each in found.items()} == {"thm1": 3, "thm3": 3, "cor1": 1}
    return [v for each in found.values() for v in each]


def test_the_verdicts_on_what_was_trained(measured: dict[str, Any]) -> None:
    verdicts = judged(measured)
    assert [v.verdict for v in verdicts] == ["holds"] * 7, [str(v) for v in verdicts]
    assert "eps0 = 0.2461" in verdicts[0].reason
    assert "eps1 = 0.3096" in verdicts[3].reason
    assert verdicts[0].numbers["points"] in (2, 3)
    first = measured["runs"][0]
    spread = math.sqrt(1 - 1 / math.pi) * 0.9  # of the smaller of two normals
    assert first["error"] == pytest.approx(spread / (2 * 20), rel=0.02)
    assert first["error_w"] == pytest.approx([0.9 / 20, spread / 20], rel=0.02)
    assert first["points"][0]["error"][0] == pytest.approx(0.9 / math.sqrt(1200), rel=1e-6)


def changed(measured: dict[str, Any], run: int, key: str, shift: float) -> dict[str, Any]:
    copy = json.loads(json.dumps(measured))
    copy["runs"][run][key] += shift
    return copy


def test_a_threshold_elsewhere_does_not_hold(measured: dict[str, Any]) -> None:
    lower = judged(changed(measured, 0, "threshold", -0.15))
    assert [v.verdict for v in lower[:2]] == ["does not hold", "holds"]
    higher = judged(changed(measured, 0, "threshold", 0.15))
    assert [v.verdict for v in higher[:2]] == ["undecided", "does not hold"]
    assert "closed form" in higher[1].reason


def test_other_weights_are_not_the_closed_form(measured: dict[str, Any]) -> None:
    copy = json.loads(json.dumps(measured))
    copy["runs"][0]["points"][1]["w1"] = [w + 0.2 for w in copy["runs"][0]["points"][1]["w1"]]
    assert judged(copy)[2].verdict == "does not hold"
    copy = json.loads(json.dumps(measured))
    copy["runs"][1]["points"][1]["w2"] = [w - 0.2 for w in copy["runs"][1]["points"][1]["w2"]]
    assert judged(copy)[5].verdict == "does not hold"
    assert judged(copy)[6].verdict == "does not hold"


def test_too_little_decides_nothing(measured: dict[str, Any]) -> None:
    copy = json.loads(json.dumps(measured))
    for run in copy["runs"]:
        run["points"] = [p for p in run["points"] if p["eps"] > run["threshold"]]
    words = [v.verdict for v in judged(copy)]
    assert words[1] == words[4] == words[6] == "undecided"
    copy = json.loads(json.dumps(measured))
    near = [p for p in copy["runs"][0]["points"] if p["eps"] < 0.2]
    near[-1]["w2"] = [0.03, 0.0, 0.0]
    assert judged(copy)[1].verdict == "undecided"
    beyond = copy["runs"][0]["points"][-1]
    beyond["reached"][0] = False
    assert judged(copy)[0].verdict == "undecided"


def test_corollary_1_fails_where_theory_says_so() -> None:
    # theory: four classes in pairs, sigma 0.6, smoothing 0.2 has eps1 = 0.3668 below eps0 = 0.3731
    layout = Layout(classes=4, kind="pairwise")
    found = measure_training(1.0, 0.6, 1.0, 0.2, layout, eps=[0.0, 0.3], n=800, seeds=3, steps=20)
    verdicts = judged(found)
    assert [v.verdict for v in verdicts[1:7:3]] == ["holds", "holds"]
    assert verdicts[6].verdict == "does not hold"


def test_without_smoothing_there_is_one_run() -> None:
    found = measure_training(beta=0.0, eps=[0.1], n=60, seeds=2, steps=20)
    assert len(found["runs"]) == 1
    judgements = judge_training(found)
    assert {id_: len(each) for id_, each in judgements.items()} == {"thm1": 3}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": [0.5]}, "eps < mu/2"),
        ({"sigma": 2.0}, "sigma < sqrt"),
        ({"n": 5}, "n >= 30"),
        ({"seeds": 1}, "seeds >= 2"),
        ({"steps": 3}, "steps >= 20"),
        ({"mu": 4.0, "eps": [1.5]}, "divide mu, sigma and eps"),
        ({"lam": 0.0}, "lambda > 0"),
    ],
)
def test_mistakes_are_explained_in_a_sentence(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        measure_training(**{"n": 60, "seeds": 2, "steps": 20, **wrong})
