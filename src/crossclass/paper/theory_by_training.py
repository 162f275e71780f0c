"""The theory by training: the project's PGD-AT on samples of eq. (8) with the model of eq. (16), judged.

    f_i(x) = w1 x_E,i + w2 sum_{k != i} x_C,k        w <- max(w - alpha_t (grad loss(x_adv) + lambda w), 0)

`recipes.AT` with `attacks.PGD` crafts: margin loss, no box, one full step from x itself, which for a linear
model is the corner. torch's SGD updates, with the penalty as weight decay and the step alpha_t =
1/(lambda t), under which strongly convex problems converge as 1/t. No closed form is used.

At w2 = 0 exactly the rivals tie and x_C has no gradient, so it is not attacked, and the step lifts w2 off 0
again by about mu/(lambda t): if the minimum is at 0, the iterates return there over and over, from ever
smaller heights. "w2 reached 0" therefore says that it was 0 in the second half of the steps, exactly.

Label smoothing (eq. 13, reading A) adds -(beta/(K-1)) sum_{j != i} f_j at a worst point of its own: the same
attack, on the two logits of `Others`.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossclass.attacks import PGD
from crossclass.attacks.losses import margin
from crossclass.attacks.norms import Linf
from crossclass.core.errors import UserError
from crossclass.paper.theory import closed, montecarlo, samples
from crossclass.paper.theory.setting import PAPER, Layout, check
from crossclass.paper.verdict import Verdict, Word, all_hold, exceeds
from crossclass.training.recipes import AT


class Tied(nn.Module):
    """Models of two weights each (eq. 16), side by side: the first block of samples is the first model's."""

    maps: Tensor

    def __init__(self, models: int = 1, layout: Layout = PAPER) -> None:
        super().__init__()
        self.register_buffer("maps", torch.tensor(samples.design(layout), dtype=torch.float32))
        self.w = nn.Parameter(torch.ones(models, 2))

    def weights(self) -> Float[Tensor, "m k d"]:
        """W of every model: w1 on E_i, w2 on the cross-class features of class i."""
        return torch.einsum("mt,ktd->mkd", self.w, self.maps)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Logits W x; n is a multiple of the number of models."""
        blocks = x.view(len(self.w), -1, x.shape[1])
        return (blocks @ self.weights().transpose(1, 2)).flatten(0, 1)


class Others(nn.Module):
    """(0, sum_{j != y} f_j(x)): its margin for label 1 is what label smoothing adds to the loss (eq. 13)."""

    def __init__(self, model: nn.Module, y: Int[Tensor, " n"]) -> None:
        super().__init__()
        self.model, self.y = model, y

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
        """Two logits of each sample."""
        f = self.model(x)
        rest = f.sum(dim=1) - f.gather(1, self.y[:, None])[:, 0]
        return torch.stack((torch.zeros_like(rest), rest), dim=1)


def corner_training(eps: float) -> AT:
    """AT with a linear model's adversary: one full step from x to the corner, no box. Raises UserError."""
    if eps > 1:
        raise UserError(
            f"eps = {eps:g} is too large for the attack; divide mu, sigma and eps by the same number"
        )
    return AT(attack=PGD(threat=Linf(eps=eps), steps=1, rel_step=1.0, start="none", loss="margin", box=None))


def robust_loss(
    model: nn.Module, x: Float[Tensor, "n d"], y: Int[Tensor, " n"], recipe: AT, beta: float = 0.0
) -> Float[Tensor, " n"]:
    """Each sample's loss at its crafted points: the margin (eq. 10), or the smoothed one (eq. 13)."""
    logits = model(recipe.craft(model, x, y))
    loss = (1 - beta) * margin(logits, y)
    if beta == 0:
        return loss
    others, label = Others(model, y), torch.ones_like(y)
    return loss + beta / (logits.shape[1] - 1) * margin(others(recipe.craft(others, x, label)), label)


def fit(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    eps: float,
    lam: float = 1.0,
    beta: float = 0.0,
    layout: Layout = PAPER,
    models: int = 1,
    steps: int = 100,
) -> tuple[Float[Tensor, "m 2"], list[bool]]:
    """(w1, w2) of each model after AT on its block of samples, and whether its w2 reached 0."""
    model, recipe = Tied(models, layout), corner_training(eps)
    optimizer = torch.optim.SGD([model.w], lr=1 / lam, weight_decay=lam)
    reached = torch.zeros(models, dtype=torch.bool)
    for t in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 1 / (lam * t)
        loss = models * robust_loss(model, x, y, recipe, beta).mean()  # the sum of the models' mean losses
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.w.clamp_(min=0)
            reached |= (model.w[:, 1] == 0) & (2 * t > steps)
    return model.w.detach().clone(), reached.tolist()


def measure_training(
    mu: float = 1.0,
    sigma: float = 0.9,
    lam: float = 1.0,
    beta: float = 0.25,
    layout: Layout = PAPER,
    eps: Sequence[float] | None = None,
    n: int = 1500,
    seeds: int = 4,
    steps: int = 100,
) -> dict[str, Any]:
    """AT and label-smoothed AT at several eps, from samples of n of each seed: plain numbers to be judged.

    Unset eps is a grid from 0 to mu/2 with points at 4 standard errors to either side of eps0 and eps1.
    Raises UserError for a setting outside the paper's conditions or too few samples, seeds or steps.
    """
    check(mu, sigma, 0.0, beta, layout=layout, lam=lam)
    for name, value, least in (("n", n, 10 * layout.classes), ("seeds", seeds, 2), ("steps", steps, 20)):
        if value < least:
            raise UserError(
                f"training the linear model needs {name} >= {least}, but {name} = {value} is given"
            )
    runs = [_thresholds(mu, sigma, b, layout, n) for b in dict.fromkeys((0.0, beta))]
    grid = _grid(runs, mu) if eps is None else [float(e) for e in eps]
    check(mu, sigma, np.array(grid), beta, layout=layout, lam=lam)
    draws = [samples.draw(n, mu, sigma, layout, np.random.default_rng([1, s])) for s in range(seeds)]
    x = torch.tensor(np.concatenate([d[0] for d in draws]), dtype=torch.float32)
    y = torch.tensor(np.concatenate([d[1] for d in draws]))
    for run in runs:
        b = run["beta"]
        # one step's way off 0, where nothing in w2's slope is attacked and no rival is the worst
        run["resolution"] = float(closed.slopes(mu, 0.0, 0.0, b, layout=layout)[1]) / (lam * steps)
        for e in grid:
            w, reached = fit(x, y, e, lam, b, layout, seeds, steps)
            expected = closed.optimum(mu, sigma, e, lam, b, layout=layout)
            run["points"].append(
                {
                    "eps": e,
                    "w1": w[:, 0].tolist(),
                    "w2": w[:, 1].tolist(),
                    "reached": reached,
                    "closed": [float(v) for v in expected],
                    "error": [v / (lam * sqrt(seeds)) for v in run["error_w"]],
                }
            )
    about = {"mu": mu, "sigma": sigma, "lambda": lam, "layout": str(layout), "classes": layout.classes}
    return {**about, "n": n, "seeds": seeds, "steps": steps, "runs": runs}


def _thresholds(mu: float, sigma: float, beta: float, layout: Layout, n: int) -> dict[str, Any]:
    """Where w2 should vanish, and the standard errors of a sample of n: of that eps, and of lambda w."""
    many = 40_000
    x, y = samples.draw(many, mu, sigma, layout, np.random.default_rng([2, 0]))
    error = montecarlo.threshold(x, y, beta, layout=layout).error * sqrt(many / n)
    fall = closed.slopes(mu, sigma, 0.0, beta, layout=layout)[1]
    fall -= closed.slopes(mu, sigma, 1.0, beta, layout=layout)[1]
    threshold = float(closed.eps1(mu, sigma, beta, layout=layout))
    error_w = [(1 - beta) * sigma * sqrt(layout.exclusive / n), error * float(fall)]
    return {"beta": beta, "threshold": threshold, "error": error, "error_w": error_w, "points": []}


def _grid(runs: Sequence[Mapping[str, Any]], mu: float) -> list[float]:
    points = {0.0, 0.25 * mu, 0.45 * mu, *(f * runs[0]["threshold"] for f in (0.5, 1.0))}
    points |= {run["threshold"] + s * run["error"] for run in runs for s in (-4, 4)}
    return sorted(e for e in points if 0 <= e < mu / 2)


ERRORS = 3.0
"""How many standard errors from the threshold an eps must be to count, and around w2 an interval takes."""
AGREE = 4.0
"""How many standard errors lie at most between trained and closed form."""


def judge_training(numbers: Mapping[str, Any]) -> dict[str, list[Verdict]]:
    """Three statements on AT (`thm1`), the same on label-smoothed AT (`thm3`), and corollary 1 (`cor1`)."""
    where = f"{numbers['layout']}, mu = {numbers['mu']:g}, sigma = {numbers['sigma']:g}; {numbers['seeds']} "
    where += f"samples of {numbers['n']}, {numbers['steps']} steps of AT"
    runs = {"thm3" if run["beta"] else "thm1": run for run in numbers["runs"]}
    out = {theorem: _statements(run, where) for theorem, run in runs.items()}
    if len(runs) == 2:
        out["cor1"] = [_corollary(runs["thm1"], runs["thm3"], where)]
    return out


def _statements(run: Mapping[str, Any], where: str) -> list[Verdict]:
    """Where w2 vanishes, where it does not, and that both weights are the closed form's."""
    where += f", label smoothing {run['beta']:g}" if run["beta"] else ""
    name = "eps1" if run["beta"] else "eps0"
    edge, points = ERRORS * run["error"], run["points"]
    over = [p for p in points if p["eps"] > run["threshold"] + edge]
    under = [p for p in points if p["eps"] < run["threshold"] - edge]
    margin = f"{name} by more than {ERRORS:g} standard errors"
    claims = (
        (f"w2 reaches 0 at every eps above {margin}", over, _is_zero),
        (f"w2 stays positive at every eps below {margin}", under, _is_positive),
        (f"trained w1 and w2 are the closed form's within {AGREE:g} standard errors", points, _agrees),
    )
    return [
        _verdict(claim, where, name, run, some, [judge(p, run["resolution"]) for p in some])
        for claim, some, judge in claims
    ]


def _is_zero(point: Mapping[str, Any], resolution: float) -> Word:
    if all(point["reached"]):
        return "holds"
    return "does not hold" if _is_positive(point, resolution) == "holds" else "undecided"


def _is_positive(point: Mapping[str, Any], resolution: float) -> Word:
    mean, reach = float(np.mean(point["w2"])), ERRORS * point["error"][1]
    return "does not hold" if all(point["reached"]) else exceeds((mean - reach, mean + reach), resolution)


def _agrees(point: Mapping[str, Any], resolution: float) -> Word:
    return "holds" if _distance(point, resolution) <= AGREE else "does not hold"


def _distance(point: Mapping[str, Any], resolution: float) -> float:
    """Between trained and closed form, in standard errors of the mean; the larger of w1's and w2's."""
    far1 = abs(float(np.mean(point["w1"])) - point["closed"][0]) / point["error"][0]
    far2 = max(abs(float(np.mean(point["w2"])) - point["closed"][1]) - resolution, 0.0) / point["error"][1]
    return max(far1, far2)


def _verdict(
    claim: str,
    where: str,
    name: str,
    run: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]],
    words: Sequence[Word],
) -> Verdict:
    if not points:
        return Verdict(claim, "undecided", where, "no eps was trained there")
    verdict = all_hold(words)
    far = max(_distance(p, run["resolution"]) for p in points)
    worst = next((p for p, w in zip(points, words, strict=True) if w == verdict != "holds"), None)
    if worst is None:
        w2 = [float(np.mean(p["w2"])) for p in points]
        reason = f"{len(points)} values of eps, mean w2 from {min(w2):.4f} to {max(w2):.4f}"
        reason += f", at most {far:.1f} standard errors from the closed form"
    else:
        reason = f"at eps = {worst['eps']:.4f} w2 = {np.mean(worst['w2']):.4f} +- {worst['error'][1]:.4f}"
        reason += f", closed form {worst['closed'][1]:.4f}"
    reason = f"{name} = {run['threshold']:.4f} +- {run['error']:.4f}; {reason}"
    numbers = {name: run["threshold"], f"{name}_error": run["error"], "points": len(points), "farthest": far}
    return Verdict(claim, verdict, where, reason, numbers)


def _corollary(plain: Mapping[str, Any], smoothed: Mapping[str, Any], where: str) -> Verdict:
    """w2 with label smoothing exceeds w2 without at every eps below eps1; paired, on the same samples."""
    claim = (
        f"label smoothing {smoothed['beta']:g} raises the trained w2 at every eps below eps1 (corollary 1)"
    )
    words, means = list[Word](), list[float]()
    without = {p["eps"]: p for p in plain["points"]}
    for b in smoothed["points"]:
        a = without.get(b["eps"])
        if a is not None and b["eps"] < smoothed["threshold"] - ERRORS * smoothed["error"]:
            gain = np.subtract(b["w2"], a["w2"])
            mean, reach = float(gain.mean()), ERRORS * float(gain.std(ddof=1)) / sqrt(len(gain))
            words.append(exceeds((mean - reach, mean + reach), plain["resolution"]))
            means.append(mean)
    if not words:
        return Verdict(claim, "undecided", where, "no eps was trained there")
    reason = f"{len(words)} values of eps, smallest mean gain {min(means):.4f}"
    return Verdict(claim, all_hold(words), where, reason, {"points": len(words), "least": min(means)})
