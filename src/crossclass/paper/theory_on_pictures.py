"""The bridge from the theory to images: does AT drop shared parts beyond some eps there too?

The same data twice: as the strengths of the parts that pictures show (eq. 8 itself: `Shapes` with three
classes of which every two share a part), and as those pictures. Three models: a linear one on strengths, a
linear one on pixels, a small convolutional one. Nothing is tied, no weight is clamped; `part_weights` weighs
parts in all of them in the same way.

What to expect. Margin loss: at w_C = 0 the *worst* rival counts, hence theorem 1's threshold eps0 (the untied
rows have it too: the loss is convex and the classes are exchangeable, so tying costs nothing). Cross-entropy:
there the rivals' margins -w1 x_E - w2 x_C,j + 2 eps (w1 + w2) tie, the softmax averages over them, and

    dL/dw2 at w2 = 0  =  -(mu - 2 eps) E[1 - p_y]  <  0   for every eps < mu/2 and every sigma, w1,

since x_C is independent of x_E and has mean mu. So with cross-entropy w2 > 0 up to mu/2, where w1 ends too:
**theorem 1's zero belongs to the margin loss**. What remains of it is that w2/w1 falls.

A penalty makes the rows of W sum to 0; then CAS is that of `cas_of_part_weights`.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossclass.analysis import attribution, evaluate
from crossclass.attacks import PGD
from crossclass.attacks.losses import cross_entropy, margin
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.load import load_model
from crossclass.core.classes import predicted
from crossclass.core.runtime import Runtime
from crossclass.core.trust import trusting
from crossclass.data import Shapes
from crossclass.models import AnyModel, PreActResNet, Python
from crossclass.paper.part_weights import cas_of_part_weights, fitted_weights, part_weights, standard_errors
from crossclass.paper.theory import closed
from crossclass.paper.verdict import Verdict, Word, exceeds
from crossclass.training.loop import iterate_epochs
from crossclass.training.recipes import AT
from crossclass.training.run import Run, Validation

PICTURES = Shapes(
    n_train=600,
    n_val=0,
    n_test=600,
    classes=3,
    edges=((1, 2), (0, 2), (0, 1)),  # part C_j is shown by all classes but j, as in eq. (8)
    size=16,
    mu=0.35,
    sigma=0.2,
    noise=0.1,
)
"""The paper's data model as small pictures."""

CONV = PreActResNet(width=16, stem=4, stem_stride=2, blocks=(1,), normalise="data")


def pixels(num_classes: int, side: int = 16) -> nn.Module:
    """A linear model on pictures of side x side pixels and three channels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, num_classes))


@dataclass(frozen=True)
class Effort:
    """How much the bridge trains; the default takes most of a minute on one core."""

    strengths: tuple[float, ...] = (0.0, 0.15, 0.3, 0.4, 0.45)
    """eps on the strengths, as multiples of mu."""
    pixels: tuple[float, ...] = (0.0, 1 / 255, 2 / 255, 4 / 255)
    """eps of the linear model on pictures."""
    conv: tuple[float, ...] = (0.0, 8 / 255, 16 / 255, 24 / 255)
    """eps of the convolutional model on pictures."""
    seeds: int = 3
    """Of the models on strengths."""
    picture_seeds: int = 1
    """Of those on pictures."""
    n: int = 1200
    """Samples of strengths that are trained on."""
    steps: int = 150
    epochs: int = 16
    data: Shapes = PICTURES


QUICK = Effort((0.0, 0.45), (0.0, 2 / 255), (0.0,), 2, 1, 300, 40, 2, PICTURES.replace(n_train=60, n_test=60))
"""Seconds: every part runs, nothing is decided."""

Loss = Literal["margin", "ce"]
_PENALTY = {"margin": 1.0, "ce": 0.01}


def fit_strengths(
    x: Float[Tensor, "n p"], y: Int[Tensor, " n"], eps: float, loss: Loss, steps: int
) -> Float[Tensor, "k p"]:
    """W [k, p] of an untied linear model after AT on strengths: no box, the whole sample a step.

    Margin loss: penalty 1 and steps 1/t, as in
    `theory_by_training`. Cross-entropy: penalty 0.01, constant step, momentum.
    """
    model = nn.utils.skip_init(nn.Linear, x.shape[1], int(y.max()) + 1, bias=False)
    nn.init.zeros_(model.weight)
    attack = _corner(eps, loss)
    recipe, penalty = AT(attack=attack), _PENALTY[loss]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.3, momentum=0.9 if loss == "ce" else 0.0, weight_decay=penalty
    )
    for t in range(1, steps + 1):
        if loss == "margin":
            optimizer.param_groups[0]["lr"] = 1 / (penalty * t)
        logits = model(recipe.craft(model, x, y))
        value = margin(logits, y) if loss == "margin" else cross_entropy(logits, y)
        optimizer.zero_grad()
        value.mean().backward()
        optimizer.step()
    return model.weight.detach().clone()


def _corner(eps: float, loss: Loss) -> PGD:
    """Twice to the corner that the gradient points to: from there another rival may be the worst."""
    return PGD(threat=Linf(eps=eps), steps=2, rel_step=2.0, start="none", loss=loss, box=None)


def _on_strengths(effort: Effort, loss: Loss, eps: float, seed: int) -> dict[str, float]:
    data = effort.data.replace(n_train=effort.n, n_test=max(effort.n, 300), seed=effort.data.seed + seed)
    x, x_test = (data.drawn(part).strengths / data.mu for part in ("train", "test"))
    y, y_test = (torch.arange(len(s)) % data.classes for s in (x, x_test))  # as the pictures come
    W = fit_strengths(x, y, eps, loss, effort.steps)
    x_adv = _corner(eps, "ce")(lambda s: s @ W.T, x_test, y_test)
    w_e, w_c = part_weights(W, data.graph)
    return {
        "exclusive": w_e,
        "shared": w_c,
        "error_exclusive": 0.0,
        "error_shared": 0.0,
        "cas_closed": cas_of_part_weights(w_e, w_c),
        "cas_closed_attacked": cas_of_part_weights(w_e, w_c, eps),
        "cas_clean": attribution.cas(attribution.correlation(attribution.class_means(x_test, W, y_test))),
        "cas": attribution.cas(attribution.correlation(attribution.class_means(x_adv, W, y_test))),
        "clean": evaluate.accuracy(predicted(x_test @ W.T), y_test),
        "robust": evaluate.accuracy(predicted(x_adv @ W.T), y_test),
    }


def _on_pictures(effort: Effort, settings: AnyModel, lr: float, eps: float, seed: int) -> dict[str, float]:
    data = effort.data.replace(seed=effort.data.seed + seed)
    attack = PGD(threat=Linf(eps=eps), steps=3, rel_step=0.5)
    run = Run(
        data=data,
        model=settings,
        recipe=AT(attack=attack),
        augment=None,
        epochs=effort.epochs,
        batch=50,
        lr=lr,
        schedule="cosine",
        lr_milestones=(),
        eps_warmup=effort.epochs // 2,
        validation=Validation(every=effort.epochs, n=30, attack=attack),
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as out:
        for folder, row in iterate_epochs(run, out, runtime=Runtime(device="cpu")):
            if row.epoch == run.epochs:  # `last` is written; the full evaluation is not needed
                model, _ = load_model(folder.checkpoint("last"))
                break
    test, s = data().test, data.drawn("test").strengths / data.mu
    clean = evaluate.evaluate(model, test, None)
    attacked = evaluate.evaluate(model, test, attack.replace(steps=10, rel_step=0.25)) if eps else clean
    with torch.no_grad():
        logits = clean.features @ clean.W.T
    w_e, w_c = part_weights(fitted_weights(logits, s), data.graph)
    error_e, error_c = standard_errors(logits, s, data.graph)
    return {
        "exclusive": w_e,
        "shared": w_c,
        "error_exclusive": error_e,
        "error_shared": error_c,
        "cas_clean": attribution.cas(clean.C),
        "cas": attribution.cas(attacked.C),
        "clean": evaluate.accuracy(attacked.clean, attacked.labels),
        "robust": evaluate.accuracy(attacked.robust, attacked.labels),
    }


def measure_bridge(effort: Effort) -> dict[str, Any]:
    """Train the three models at each eps; plain numbers to be judged.

    eps of the strengths is in units of mu, of pictures in those of pixels; weights are per unit of mu.
    """
    data = effort.data
    linear = Python(call=f"{__name__}:pixels", arguments={"side": data.size})
    families: dict[str, tuple[tuple[float, ...], int, Callable[[float, int], dict[str, float]]]] = {
        "strengths, margin": (effort.strengths, effort.seeds, partial(_on_strengths, effort, "margin")),
        "strengths, ce": (effort.strengths, effort.seeds, partial(_on_strengths, effort, "ce")),
        "pixels, ce": (effort.pixels, effort.picture_seeds, partial(_on_pictures, effort, linear, 0.02)),
        "conv, ce": (effort.conv, effort.picture_seeds, partial(_on_pictures, effort, CONV, 0.1)),
    }
    points: dict[str, list[dict[str, Any]]] = {}
    with trusting(linear.call):
        for name, (grid, seeds, train_and_measure) in families.items():
            points[name] = []
            for eps in grid:
                ones = [train_and_measure(eps, seed) for seed in range(seeds)]
                points[name].append({"eps": eps, **{key: [one[key] for one in ones] for key in ones[0]}})
    about = {key: getattr(data, key) for key in ("mu", "sigma", "classes", "size", "noise")}
    return {**about, "eps0": float(closed.eps0(1.0, data.sigma / data.mu)), "families": points}


REACH = 3.0
"""Standard errors that an interval takes to either side."""
KEPT = 0.05
"""A weight has fallen to 0 if less than this share of what it is at the smallest eps is left of it."""
NEAR = 0.1
"""How far from CAS its closed form may be."""

MeanError = tuple[float, float]
"""A mean with its standard error."""


def judge_bridge(numbers: Mapping[str, Any]) -> list[Verdict]:
    """On each family: a threshold; w_C/w_E falls; CAS follows it; on strengths, CAS is in closed form."""
    out = []
    for name, points in numbers["families"].items():
        ends = f"eps {points[0]['eps']:.4g} to {points[-1]['eps']:.4g}" if points else "no eps"
        unit = "mu" if name.startswith("strengths") else "the pixels' range"
        where = f"{name}: {ends} of {unit}; mu = {numbers['mu']:g}, sigma = {numbers['sigma']:g}"
        out += [_threshold(name, points, where), *_trend(name, points, where)]
        if points and "cas_closed" in points[0]:
            out.append(_closed(name, points, where))
    return out


def _pooled(point: Mapping[str, Any], key: str) -> MeanError:
    """Mean over seeds and its standard error: the spread between seeds, and each fit's own error."""
    values, own = np.array(point[key]), np.array(point[f"error_{key}"])
    between = float(values.var(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()), sqrt((between + float((own**2).mean())) / len(values))


def _quotient(a: MeanError, b: MeanError) -> tuple[float, float]:
    """The interval of a / b; everything if b may be 0."""
    if b[0] <= REACH * b[1]:
        return -np.inf, np.inf
    value = a[0] / b[0]
    half = REACH * sqrt(a[1] ** 2 + (value * b[1]) ** 2) / b[0]
    return value - half, value + half


def _threshold(name: str, points: Sequence[Mapping[str, Any]], where: str) -> Verdict:
    claim = f"{name}: beyond some eps the weight of shared parts is 0 while that of exclusive parts is not"
    if len(points) < 2 or points[0]["eps"] != 0:
        return Verdict(claim, "undecided", where, "it takes eps = 0 and one more")
    start = {key: _pooled(points[0], key) for key in ("exclusive", "shared")}
    if min(mean for mean, _ in start.values()) <= 0:
        return Verdict(claim, "undecided", where, "at eps = 0 nothing was learned")
    all_stay, reason = True, ""
    for point in points[1:]:
        now = {key: _pooled(point, key) for key in start}
        stays = {key: exceeds(_quotient(now[key], start[key]), KEPT) for key in start}
        left = {key: now[key][0] / start[key][0] for key in start}
        reason = f"at eps {point['eps']:.4g} {left['shared']:.1%} of w_C is left"
        reason += f" and {left['exclusive']:.1%} of w_E"
        if stays == {"exclusive": "holds", "shared": "does not hold"}:
            return Verdict(claim, "holds", where, reason, {"eps": point["eps"]})
        all_stay = all_stay and stays["shared"] == "holds"
    word: Word = "does not hold" if all_stay else "undecided"
    return Verdict(claim, word, where, f"nowhere; {reason}", {"eps": None})


def _trend(name: str, points: Sequence[Mapping[str, Any]], where: str) -> list[Verdict]:
    claims = (
        f"{name}: w_C/w_E falls from the smallest to the largest eps",
        f"{name}: clean CAS moves as w_C/w_E does, from the smallest to the largest eps",
    )
    if len(points) < 2:
        return [Verdict(c, "undecided", where, "it takes two values of eps") for c in claims]
    ends = points[0], points[-1]
    if any(np.mean(p["exclusive"]) <= 0 for p in ends):
        reason = "w_E is 0 at one end: nothing was learned there"
        return [Verdict(c, "undecided", where, reason) for c in claims]
    first, last = (_quotient(_pooled(p, "shared"), _pooled(p, "exclusive")) for p in ends)
    ratios = [float(np.mean(p["shared"]) / np.mean(p["exclusive"])) for p in ends]
    cas = [float(np.mean(p["cas_clean"])) for p in ends]
    fall = exceeds((first[0] - last[1], first[1] - last[0]))
    follow: Word = "undecided"
    if fall != "undecided":
        follow = "holds" if (cas[0] > cas[1]) == (fall == "holds") else "does not hold"
    numbers = {"ratio_first": ratios[0], "ratio_last": ratios[1], "cas_first": cas[0], "cas_last": cas[1]}
    reason = f"w_C/w_E from {ratios[0]:.3f} to {ratios[1]:.3f}, clean CAS from {cas[0]:.3f} to {cas[1]:.3f}"
    return [Verdict(c, w, where, reason, numbers) for c, w in zip(claims, (fall, follow), strict=True)]


def _closed(name: str, points: Sequence[Mapping[str, Any]], where: str) -> Verdict:
    """CAS of each trained W beside that of its w_E and w_C alone; what separates them is the noise in W."""
    claim = f"{name}: CAS, clean and attacked, is the closed form's of w_E and w_C within {NEAR:g}"
    pairs = (("cas_clean", "cas_closed"), ("cas", "cas_closed_attacked"))
    far = [(float(np.abs(np.subtract(p[a], p[b])).max()), p["eps"]) for p in points for a, b in pairs]
    most, eps = max(far)
    reason = f"at most {most:.3f} apart, at eps {eps:.4g}"
    return Verdict(claim, "holds" if most <= NEAR else "does not hold", where, reason, {"apart": most})
