"""Does removing features from a network show what removing parts from its pictures does?

On `Shapes` the shared and the exclusive parts are known, and can be taken out of the pictures. Three things
are held against each other, each at equal cost (attribution mass, or clean accuracy lost):

- `network`: features are removed as `ablate` does it, the most shared against the most specific ones;
- `pictures`: the same network is shown pictures whose shared, or whose exclusive, parts are fainter or gone;
- `retrained`: networks are trained and tested on pictures without shared, or without exclusive, parts.

Either the shared or the exclusive parts are faint: they serve clean accuracy, and an attack hides them, so
they carry less robust accuracy than the others at equal cost. The method recovers the planted effect if the
network decides as the pictures do wherever these decide, and these decide both ways: a method that always
calls the same sort less necessary would pass otherwise.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from crossclass.analysis import ablation
from crossclass.analysis.ablate import Ablate, ablate
from crossclass.analysis.evaluate import EvaluationPass, evaluate
from crossclass.analysis.feature_shares import feature_shares
from crossclass.attacks import PGD
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.load import load_model
from crossclass.core.progress import Log
from crossclass.core.runtime import Runtime
from crossclass.data import Npz, Shapes, Split
from crossclass.models import Classifier, PreActResNet
from crossclass.paper.verdict import Verdict, Word
from crossclass.training.loop import iterate_epochs
from crossclass.training.recipes import AT
from crossclass.training.run import Run, Validation

Sort = Literal["shared", "exclusive"]
CPU = Runtime(device="cpu")
LEVELS = {"mass": (0.1, 0.2, 0.3), "clean": (0.02, 0.05, 0.1)}
"""At which mass removed, and at which clean accuracy lost, shared and exclusive are compared."""


PICTURES = Shapes(n_train=600, n_val=0, n_test=600, classes=6, size=16, mu=0.3, sigma=0.25, noise=0.12)
CONV = PreActResNet(width=16, stem=4, stem_stride=2, blocks=(1, 1), normalise="data")


@dataclass(frozen=True)
class Effort:
    """How much is trained; the default takes about 20 minutes on one core."""

    data: Shapes = PICTURES
    model: PreActResNet = CONV
    conditions: tuple[tuple[float, float], ...] = ((1.0, 0.4), (0.4, 1.0))
    """Strengths of exclusive and of shared parts, as multiples of mu."""
    keep: tuple[float, ...] = (0.8, 0.6, 0.4, 0.2, 0.0)
    """What is left of the strength of parts that are taken out of the pictures."""
    seeds: int = 2
    epochs: int = 14
    draws: int = 3
    eps: float = 8 / 255
    """Of the attack."""
    train_eps: float = 2 / 255
    """Smaller: faint parts are used although an attack of `eps` hides them, which is the planted effect."""


QUICK = Effort(
    Shapes(n_train=60, n_val=0, n_test=60, classes=4, size=16),
    PreActResNet(width=4, stem=4, stem_stride=2, blocks=(1,), normalise="data"),
    conditions=((1.0, 1.0),),
    keep=(0.5, 0.0),
    seeds=1,
    epochs=2,
    draws=2,
)
"""Seconds: every part runs, nothing is decided."""


def with_parts(
    data: Shapes, split: Literal["train", "test"], exclusive: float = 1.0, shared: float = 1.0
) -> Split:
    """The pictures of `data` with these multiples of the strengths of their parts; 0 takes them out.

    Backgrounds, places and the draws of the strengths are the same for all multiples.
    """
    whole, empty = data.drawn(split), data.replace(mu=1e-9, sigma=0.0).drawn(split)
    images, background = whole.images.float(), empty.images.float()
    kept = torch.ones_like(images)
    for mask, part in ((whole.exclusive, exclusive), (whole.shared, shared)):
        kept = torch.where(mask[:, None], part, kept)
    return Split((background + kept * (images - background)).round().byte(), whole.labels)


def measure_calibration(
    effort: Effort = Effort(), log: Log = lambda text: None, write: Callable[[Any], None] = lambda rows: None
) -> dict[str, Any]:
    """Train and compare under every condition and seed; plain numbers to be judged.

    Args:
        effort: How much is trained.
        log: Called with a line for each comparison.
        write: Called with the rows so far.
    """
    rows = []
    for seed in range(effort.seeds):
        for exclusive, shared in effort.conditions:
            row = _compare(effort, exclusive, shared, seed)
            rows.append({"exclusive": exclusive, "shared": shared, "seed": seed, **row})
            log(f"exclusive {exclusive:g}, shared {shared:g}, seed {seed}: {row}")
            write(rows)
    return {"eps": effort.eps, "levels": {k: list(v) for k, v in LEVELS.items()}, "rows": rows}


def _compare(effort: Effort, exclusive: float, shared: float, seed: int) -> dict[str, Any]:
    data = effort.data.replace(seed=effort.data.seed + seed)
    attack = PGD(threat=Linf(eps=effort.eps), steps=10, return_iterate="first")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        target = _trained(effort, data, exclusive, shared, seed, folder / "whole")
        model, _ = load_model(target)
        settings = Ablate(
            n=None,
            draws=effort.draws,
            fractions=LEVELS["mass"],
            losses=LEVELS["clean"],
            attack=attack.replace(return_iterate="last"),
            seed=seed,
        )
        (one,) = ablate([str(target)], settings, runtime=CPU).checkpoints
        retrained = {}
        for sort in ("shared", "exclusive"):
            left = (exclusive, 0.0) if sort == "shared" else (0.0, shared)
            alone, _ = load_model(_trained(effort, data, *left, seed, folder / sort))
            e = evaluate(alone, with_parts(data, "test", *left), attack)
            retrained[sort] = {kind: e.accuracy(kind) for kind in ("clean", "robust")}
    network = {
        s.by: {
            "value": s.shared_minus_specific.value,
            "interval": list(s.shared_minus_specific.interval),
        }
        for s in one.summaries
    }
    return {
        "clean": one.clean,
        "robust": one.robust,
        "network": network,
        "pictures": _from_pictures(effort, model, data, exclusive, shared, attack, seed),
        "retrained": retrained,
        "features": _found_by(model, data, exclusive, shared, attack),
    }


def _trained(effort: Effort, data: Shapes, exclusive: float, shared: float, seed: int, folder: Path) -> Path:
    """The last checkpoint of a network trained on such pictures, which lie beside it."""
    folder.mkdir()
    for name in ("train", "test"):
        part = with_parts(data, name, exclusive, shared)
        images, labels = part.images.movedim(1, -1).numpy(), part.labels.numpy()
        np.savez(folder / f"{name}.npz", images=images, labels=labels)
    attack = PGD(threat=Linf(eps=effort.train_eps), steps=3, rel_step=0.5)
    run = Run(
        data=Npz(path=str(folder), n_train=data.n_train, n_test=data.n_test, balanced=False),
        model=effort.model,
        recipe=AT(attack=attack),
        augment=None,
        epochs=effort.epochs,
        batch=50,
        lr=0.1,
        schedule="cosine",
        lr_milestones=(),
        eps_warmup=effort.epochs // 2,
        validation=Validation(every=effort.epochs, n=30, attack=attack),
        seed=seed,
    )
    for out, row in iterate_epochs(run, folder / "runs", runtime=CPU):
        if row.epoch == run.epochs:  # `last` is written; the full evaluation is not needed
            return out.checkpoint("last")
    raise AssertionError("the run has no last epoch")


def _from_pictures(
    effort: Effort,
    model: Classifier,
    data: Shapes,
    exclusive: float,
    shared: float,
    attack: PGD,
    seed: int,
) -> dict[str, Any]:
    """Robust accuracy lost by fainter shared parts minus that by fainter exclusive ones, at equal cost."""

    def seen(e: float, s: float) -> EvaluationPass:
        return evaluate(model, with_parts(data, "test", e, s), attack.replace(return_iterate="last"))

    whole = seen(exclusive, shared)
    mass = float(feature_shares(whole.means).mass.sum())
    sorts = {"shared": [seen(exclusive, k * shared) for k in effort.keep]}
    sorts["exclusive"] = [seen(k * exclusive, shared) for k in effort.keep]
    y = whole.labels
    n, g = len(y), torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (ablation.RESAMPLES, n), generator=g)
    weight = torch.zeros(ablation.RESAMPLES, n).scatter_add_(1, drawn, torch.ones(drawn.shape)).double()
    weight = torch.cat([torch.ones(1, n).double(), weight]).T / n

    def lost(many: list[EvaluationPass], kind: str) -> Tensor:
        before = (getattr(whole, kind) == y).double()
        return torch.stack([before - (getattr(e, kind) == y).double() for e in many]) @ weight

    gone = {
        s: torch.tensor([1 - float(feature_shares(e.means).mass.sum()) / mass for e in many]).double()
        for s, many in sorts.items()
    }
    cost = {
        "clean": {s: lost(many, "clean") for s, many in sorts.items()},
        "mass": {s: v[:, None].expand(-1, weight.shape[1]) for s, v in gone.items()},
    }
    out: dict[str, Any] = {
        "points": {
            s: [
                {"keep": k, "mass_lost": m, "clean": e.accuracy("clean"), "robust": e.accuracy("robust")}
                for k, m, e in zip(effort.keep, gone[s].tolist(), many, strict=True)
            ]
            for s, many in sorts.items()
        }
    }
    for by, costs in cost.items():
        levels = [v for v in LEVELS[by] if all(float(c[:, 0].max()) >= v for c in costs.values())]
        if not levels:
            continue
        each = [
            ablation.at_clean_loss(costs["shared"], lost(sorts["shared"], "robust"), v)
            - ablation.at_clean_loss(costs["exclusive"], lost(sorts["exclusive"], "robust"), v)
            for v in levels
        ]
        found = ablation.estimate(torch.stack(each).mean(dim=0))
        out[by] = {"value": found.estimate, "interval": [found.low, found.high], "levels": levels}
    return out


def _found_by(
    model: Classifier, data: Shapes, exclusive: float, shared: float, attack: PGD
) -> dict[str, float | int | None]:
    """How far the effective number of classes tells which features see shared parts.

    What a feature sees is how much it changes when shared parts are taken out, as a part of what it changes
    when shared and when exclusive parts are.
    """
    whole = evaluate(model, with_parts(data, "test", exclusive, shared), None).features
    by_shared = (
        (evaluate(model, with_parts(data, "test", exclusive, 0.0), None).features - whole).abs().mean(0)
    )
    by_own = (evaluate(model, with_parts(data, "test", 0.0, shared), None).features - whole).abs().mean(0)
    shares = feature_shares(
        evaluate(
            model, with_parts(data, "test", exclusive, shared), attack.replace(return_iterate="last")
        ).means
    )
    part = by_shared / (by_shared + by_own).clamp(min=1e-12)
    live = (shares.mass > 0) & (by_shared + by_own > 0)
    heavy = live & (shares.mass >= shares.mass[live].median()) if bool(live.any()) else live
    out: dict[str, float | int | None] = {"live": int(live.sum())}
    for name, some in (("rank", live), ("rank_heavy", heavy)):
        r = spearmanr(shares.effective_classes[some], part[some]).statistic if int(some.sum()) > 2 else np.nan
        out[name] = float(r) if np.isfinite(r) else None
    for sort in ("shared", "specific"):
        if int(live.sum()) >= 2:
            order = ablation.path(shares, sort)
            first = order[: ablation.count_of_mass(shares.mass, order, 0.2)]
            weight = shares.mass[first]
            out[f"sees_shared_{sort}"] = float((part[first].double() * weight).sum() / weight.sum())
    return out


APART = 0.1
"""By so much more the most shared features see of the shared parts, if the sorts differ in what they see."""


def judge_calibration(numbers: Mapping[str, Any]) -> list[Verdict]:
    """Whether network and pictures decide alike, by mass and by clean accuracy lost, and for which reason."""
    where, rows = f"Shapes, eps {numbers['eps']:.4g}", numbers["rows"]
    out = []
    for by in ("mass", "clean"):
        signs = [(_sign(row["network"].get(by)), _sign(row["pictures"].get(by))) for row in rows]
        alike = sum(net * pic > 0 for net, pic in signs)
        against = sum(net * pic < 0 for net, pic in signs)
        decided = [pic for _, pic in signs if pic]
        both_ways = len(set(decided)) == 2
        word: Word = "does not hold" if against else "undecided"
        if both_ways and alike == len(decided):
            word = "holds"
        claim = (
            f"at equal {by}, features removed from the network show the effect of parts removed from pictures"
        )
        reason = (
            f"pictures decide {len(decided)} of {len(rows)} times, {'both ways' if both_ways else 'one way'}"
        )
        reason += f"; the network {alike} times alike, {against} times the other way"
        out.append(Verdict(claim, word, where, reason))
    differ = [row["features"]["sees_shared_shared"] - row["features"]["sees_shared_specific"] for row in rows]
    seen = sum(d > APART for d in differ)
    out.append(
        Verdict(
            "the most shared features see more of the shared parts than the most specific ones do",
            "holds" if seen == len(rows) else "does not hold",
            where,
            f"by more than {APART:g} in {seen} of {len(rows)} networks",
        )
    )
    return out


def _sign(found: Mapping[str, Any] | None) -> int:
    if found is None:
        return 0
    low, high = found["interval"]
    return int(low > 0) - int(high < 0)
