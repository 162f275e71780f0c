"""What a network loses without its shared, its specific or random features, attacked through what is left."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from time import monotonic
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator
from torch import Tensor

from crossclass.analysis import ablation, intervals
from crossclass.analysis.ablated_networks import Ablated, Transplanted
from crossclass.analysis.ablation import SORTS, Losses, Outcome, Sort, estimate
from crossclass.analysis.ablation_records import (
    CALIBRATION,
    AblatedCheckpoint,
    AblatedSet,
    AblationFile,
    Finding,
    Lost,
    Matched,
    Summary,
    Transplant,
)
from crossclass.analysis.evaluate import EvaluationPass, evaluate, head_of
from crossclass.analysis.feature_shares import FeatureShares, feature_shares
from crossclass.analysis.measure import Measure, evaluate_checkpoint, measurement, settled
from crossclass.analysis.records import Measurement
from crossclass.attacks import PGD, AnyAttack
from crossclass.checkpoints.load import LoadedCheckpoint, Source, checkpoint_files, load_checkpoints
from crossclass.core.errors import UserError
from crossclass.core.progress import Log, Progress, duration, silent
from crossclass.core.rng import stream_seed
from crossclass.core.runtime import Runtime
from crossclass.core.torch_state import usual_torch_state
from crossclass.core.trust import trusting
from crossclass.data import Split, as_float
from crossclass.models import Classifier


class Ablate(Measure):
    """Which sets of features are removed, and how the networks without them are attacked."""

    n: int | None = Field(default=1000, ge=1)
    """Images of the split; every set of features is attacked on all of them."""
    fractions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    """Parts of the attribution mass that are removed, as nearly as whole features can."""
    losses: tuple[float, ...] = (0.02, 0.05, 0.1)
    """Parts of the images that are no longer classified rightly, at which sets are compared as well."""
    draws: int = Field(default=10, ge=2)
    """Random orders of the features."""
    transplant: bool = True
    """Of two checkpoints of one run, put components of each into the other too."""

    @field_validator("fractions", "losses")
    @classmethod
    def _parts(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(0 < v < 1 for v in value):
            raise ValueError("holds parts between 0 and 1, such as 0.05,0.1")
        return tuple(sorted(set(value)))


@dataclass
class _Plan:
    """How many attacks there are, and how long they still take."""

    log: Log
    progress: Progress
    total: int = 0
    done: int = 0
    passes: float = 0.0
    """Attacks that were done, one through two networks counted twice."""
    seconds: float = 0.0
    left: float = 0.0
    """Such attacks that are to be done."""

    def add(self, attacks: int, networks: int = 1) -> None:
        """So many attacks more are to be done, each through so many networks."""
        self.total += attacks
        self.left += attacks * networks

    @contextmanager
    def attack(self, what: str, networks: int = 1) -> Iterator[None]:
        """One of them."""
        started = monotonic()
        yield
        self.seconds += monotonic() - started
        self.passes += networks
        self.left -= networks
        self.done += 1
        self.progress(what, self.done, self.total)

    def say(self, what: str) -> None:
        """What is done now, and the time that is left."""
        left = self.seconds / max(1.0, self.passes) * self.left
        self.log(f"{what}: {self.done} of {self.total} attacks, about {duration(left)} left")


@dataclass(frozen=True)
class _Intact:
    """A network before anything is removed."""

    loaded: LoadedCheckpoint
    result: Measurement
    part: Split
    attack: AnyAttack
    shares: FeatureShares
    at: Float[Tensor, " d"]
    """The mean of each feature over the clean images."""
    g: Float[Tensor, "n d"]
    clean: Bool[Tensor, " n"]
    robust: Bool[Tensor, " n"]

    @property
    def model(self) -> Classifier:
        """The network."""
        return self.loaded.model


@usual_torch_state()
def ablate(
    targets: Sequence[str],
    settings: Ablate = Ablate(),
    source: Source = Source(),
    runtime: Runtime | None = None,
    progress: Progress = silent,
    log: Log = lambda text: None,
    *,
    trust: bool = False,
    allow_partial: bool = False,
) -> AblationFile:
    """Remove shared, specific and random features of networks and attack what is left.

    A removed feature is held at its mean over the clean images; the attack goes through what is left.

    Args:
        targets: One checkpoint, or two of one run; a run folder is its best and last.
        settings: The sets of features, the attack and the images.
        source: The network and the images of foreign files.
        runtime: Device and threads.
        progress: Called with how many attacks are done.
        log: Called with the plan, and with the time that is left.
        trust: Read pickles and import code that files name; both can run code.
        allow_partial: Leave weights that a file lacks at random values.

    Returns:
        The accuracies without each set, matched by mass and by clean accuracy lost, with intervals.

    Raises:
        UserError: for clean images only, for more than two checkpoints, for a network whose logits are not
            W g(x) + b, and for one with fewer than two features that count for a class.
    """
    runtime = runtime or Runtime()
    if settings.clean:
        raise UserError("ablate compares robust accuracy, so it needs an attack; leave out attack=none")
    if settings.saliency:
        raise UserError("saliency belongs to measure; ablate draws curves")
    if len(files := checkpoint_files(targets)) > 2:
        raise UserError("ablate takes one checkpoint, or two of one run; give no more than two")
    sets = (len(settings.fractions) + len(settings.losses)) * (2 + settings.draws)
    log(
        f"{len(files)} checkpoint{'s' * (len(files) > 1)}: at most {sets} sets of features each, all "
        f"attacked on {settings.n or 'all'} images"
    )
    plan = _Plan(log, progress)
    seen: list[_Intact] = []
    with trusting(everything=trust):
        for read in load_checkpoints(targets, source, runtime, allow_partial=allow_partial):
            if seen and read.about.sha256 == seen[0].loaded.about.sha256:
                break  # best and last of a run may be one
            seen.append(_look_at(read, settings, runtime, plan))
        checkpoints = [_without_sets(one, settings, runtime, plan) for one in seen]
        moved = _transplants(seen, settings, runtime, plan) if len(seen) == 2 and settings.transplant else []
    first = seen[0]
    several = len(seen) == 2
    said = [
        f"{one.result.checkpoint.name}: {w}" if several else w for one in seen for w in one.result.warnings
    ]
    return AblationFile(
        crossclass=version("crossclass"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        calibration=CALIBRATION,
        warnings=(*said, *_unreached(checkpoints, settings)),
        data=first.result.data,
        attack=str(first.attack),
        conditions=first.result.conditions,
        draws=settings.draws,
        class_names=tuple(first.result.class_names),
        checkpoints=checkpoints,
        transplants=tuple(moved),
    )


def _look_at(read: LoadedCheckpoint, settings: Ablate, runtime: Runtime, plan: _Plan) -> _Intact:
    attack = settings.attacks(read.threats)[0]
    assert attack is not None
    there = len(read.splits.part(settings.split))
    settings = settings.replace(images=0, n=min(settings.n or there, there))
    fed = settled(read, [attack], settings)
    one = fed.loaded
    part = one.splits.part(settings.split).drawn(
        settings.n, settings.seed, settings.balanced, proportional=True
    )
    head, _ = head_of(one.model, as_float(part.images[:64]))
    if not head.matches_logits:
        raise UserError(
            f"{read.name}: the logits are not W g(x) + b of the layer '{head.layer}', so removing one of its "
            "inputs says nothing of them; let the network return W g(x) + b"
        )
    seen = evaluate_checkpoint(one.model, one.splits, attack, settings, runtime)
    clean = _evaluate(one.model, part, None, settings, runtime)
    through = _to_the_first_success(attack)
    plan.add(1)
    with plan.attack("with all features"):
        judged = _evaluate(one.model, part, through, settings, runtime)
    return _Intact(
        one,
        measurement(seen, one.about, one.splits, attack, settings, fed),
        part,
        through,
        feature_shares(seen.means),
        clean.features.mean(dim=0),
        clean.features,
        clean.clean == clean.labels,
        judged.robust == judged.labels,
    )


def _to_the_first_success(attack: AnyAttack) -> AnyAttack:
    """The same attack, stopped on each image that it has solved: a little stronger, and much less work."""
    if isinstance(attack, PGD) and attack.return_iterate == "last" and attack.bn == "eval":
        return attack.replace(return_iterate="first")
    return attack


def _evaluate(
    model: Classifier, part: Split, attack: AnyAttack | None, settings: Ablate, runtime: Runtime
) -> EvaluationPass:
    return evaluate(
        model,
        part,
        attack,
        settings.seed,
        batch=settings.batch,
        memory_format=runtime.memory_format,
        distributed_map=runtime.group.map,
    )


@dataclass(frozen=True)
class _Path:
    """An order in which features are removed, and what became of the images."""

    sort: Sort
    draw: int | None
    """Of random orders which one."""
    order: Int[Tensor, " m"]
    held: Float[Tensor, " m"]
    """Part of the mass of the first 1, 2, ... features."""
    by_mass: list[int]
    """How many features are removed for each of the fractions."""
    outcomes: list[Outcome] = field(default_factory=list)

    def of(self, count: int) -> Outcome:
        """Without the first `count` features."""
        return next(o for o in self.outcomes if o.count == count)


def _paths(shares: FeatureShares, settings: Ablate) -> list[_Path]:
    """The shared features first, the specific ones first, and random orders."""
    out = []
    sorts: list[tuple[Sort, int | None]] = [("shared", None), ("specific", None)]
    for sort, draw in [*sorts, *(("random", i) for i in range(settings.draws))]:
        seed = stream_seed(settings.seed, 0, 1 + (draw or 0), "subset")
        order = ablation.path(shares, sort, torch.Generator().manual_seed(seed))
        held = shares.mass[order].cumsum(0) / shares.mass.sum()
        counts = [ablation.count_of_mass(shares.mass, order, f) for f in settings.fractions]
        out.append(_Path(sort, draw, order, held, counts))
    return out


def _without_sets(one: _Intact, settings: Ablate, runtime: Runtime, plan: _Plan) -> AblatedCheckpoint:
    shares, head, y = one.shares, one.model.head, one.part.labels.cpu()
    W = head.weight.detach().float().cpu()
    b = torch.zeros(len(W)) if head.bias is None else head.bias.detach().float().cpu()
    paths, wanted = _paths(shares, settings), []
    for p in paths:
        clean = ablation.clean_path(one.g, W, b, one.at, y, p.order)
        reach = [ablation.count_of_clean_loss(clean, loss) for loss in settings.losses]
        wanted.append(sorted({*p.by_mass, *(c for c in reach if c)}))
    plan.add(sum(map(len, wanted)))
    plan.say(one.loaded.name)
    for p, counts in zip(paths, wanted, strict=True):
        for count in counts:
            net = Ablated(one.model, p.order[:count], one.at)
            with plan.attack(f"without {p.sort} features"):
                e = _evaluate(net, one.part, one.attack, settings, runtime)
            held = float(p.held[count - 1])
            p.outcomes.append(Outcome(count, held, e.clean == e.labels, e.robust == e.labels))
        which = "" if p.draw is None else f", draw {p.draw + 1}"
        plan.say(f"{one.loaded.name}, without {p.sort} features{which}")
    losses = Losses(one.clean, one.robust, [(p.sort, p.outcomes) for p in paths], settings.seed)
    matched, summaries = _matched_sets(paths, losses, settings)
    return AblatedCheckpoint(
        checkpoint=one.result.checkpoint,
        clean=float(one.clean.double().mean()),
        robust=float(one.robust.double().mean()),
        width=len(shares.mass),
        dead=int((shares.mass == 0).sum()),
        shared=paths[0].order.tolist(),
        specific=paths[1].order.tolist(),
        sets=[_set(p, o, y) for p in paths for o in p.outcomes],
        matched=matched,
        summaries=summaries,
    )


def _matched_sets(
    paths: Sequence[_Path], losses: Losses, settings: Ablate
) -> tuple[list[Matched], list[Summary]]:
    """Sets alike in mass, then those alike in clean accuracy lost, and averages over the levels of each."""
    shared, specific = paths[0], paths[1]
    matched, by_mass, by_clean = [], [], []
    for i, fraction in enumerate(settings.fractions):
        counts = {s: [p.by_mass[i] for p in paths if p.sort == s] for s in SORTS}
        robust = {s: losses.of_mass(s, counts[s], "robust") for s in SORTS}
        held = {s: [float(p.held[p.by_mass[i] - 1]) for p in paths if p.sort == s] for s in SORTS}
        pair = [p.of(p.by_mass[i]).robust for p in (specific, shared)]  # lost: the other way round
        row = Matched(
            by="mass",
            level=fraction,
            mass={s: sum(v) / len(v) for s, v in held.items()},
            clean_lost={s: _lost(estimate(losses.of_mass(s, counts[s], "clean"))) for s in SORTS},
            robust_lost={s: _lost(estimate(v)) for s, v in robust.items()},
            random_range=losses.range_of_mass(counts["random"]),
            shared_minus_specific=_lost(intervals.accuracy_difference(*pair)),
            shared_minus_random=_lost(estimate(robust["shared"] - robust["random"])),
        )
        matched.append(row)
        by_mass.append(robust)
    for loss in settings.losses:
        if not losses.reach(loss):
            continue
        robust = {s: losses.of_clean_loss(s, loss) for s in SORTS}
        row = Matched(
            by="clean",
            level=loss,
            robust_lost={s: _lost(estimate(v)) for s, v in robust.items()},
            random_range=losses.range_of_clean_loss(loss),
            shared_minus_specific=_lost(estimate(robust["shared"] - robust["specific"])),
            shared_minus_random=_lost(estimate(robust["shared"] - robust["random"])),
        )
        matched.append(row)
        by_clean.append(robust)
    levels: list[tuple[Literal["mass", "clean"], list[dict[Sort, Tensor]]]]
    levels = [("mass", by_mass), ("clean", by_clean)]
    return matched, [_summary(by, of) for by, of in levels if of]


def _set(p: _Path, o: Outcome, y: Int[Tensor, " n"]) -> AblatedSet:
    clean, robust = (intervals.accuracy(right, y) for right in (o.clean, o.robust))
    return AblatedSet(
        sort=p.sort,
        draw=p.draw,
        count=o.count,
        mass=o.mass,
        clean=clean.estimate,
        clean_interval=(clean.low, clean.high),
        robust=robust.estimate,
        robust_interval=(robust.low, robust.high),
    )


def _lost(i: intervals.Interval) -> Lost:
    return Lost(value=i.estimate, interval=(i.low, i.high))


def _summary(by: Literal["mass", "clean"], levels: Sequence[dict[Sort, Tensor]]) -> Summary:
    mean = {s: torch.stack([level[s] for level in levels]).mean(dim=0) for s in SORTS}
    difference = estimate(mean["shared"] - mean["specific"])
    finding: Finding = "not decided"
    if difference.high < 0:
        finding = "less"
    elif difference.low > 0:
        finding = "more"
    return Summary(
        by=by,
        shared_minus_specific=_lost(difference),
        shared_minus_random=_lost(estimate(mean["shared"] - mean["random"])),
        finding=finding,
    )


def _transplants(
    seen: Sequence[_Intact], settings: Ablate, runtime: Runtime, plan: _Plan
) -> list[Transplant]:
    """Components of each of two checkpoints in the other, matched in mass of the donor."""
    if seen[0].model.head.weight.shape != seen[1].model.head.weight.shape:
        return []
    if seen[0].result.data.checksum != seen[1].result.data.checksum:
        return []
    plan.add(2 * len(settings.fractions) * (2 + settings.draws), networks=2)
    out = []
    for donor, recipient in (seen, seen[::-1]):
        paths = _paths(donor.shares, settings)
        for fraction in settings.fractions:
            right: dict[Sort, list[EvaluationPass]] = {s: [] for s in SORTS}
            for p in paths:
                count = p.by_mass[settings.fractions.index(fraction)]
                net = Transplanted(recipient.model, donor.model, p.order[:count])
                with plan.attack(f"{p.sort} components of {donor.result.checkpoint.name}", networks=2):
                    e = _evaluate(net, recipient.part, recipient.attack, settings, runtime)
                right[p.sort].append(e)
            robust = {s: [e.accuracy("robust") for e in many] for s, many in right.items()}
            clean = {s: [e.accuracy("clean") for e in many] for s, many in right.items()}
            shared, specific = (right[s][0].robust == right[s][0].labels for s in ("shared", "specific"))
            out.append(
                Transplant(
                    donor=donor.result.checkpoint.name,
                    recipient=recipient.result.checkpoint.name,
                    mass=fraction,
                    robust={s: sum(v) / len(v) for s, v in robust.items()},
                    clean={s: sum(v) / len(v) for s, v in clean.items()},
                    shared_minus_specific=_lost(intervals.accuracy_difference(shared, specific)),
                    random_range=(min(robust["random"]), max(robust["random"])),
                )
            )
            plan.say(
                f"{fraction:.0%} of {donor.result.checkpoint.name} into {recipient.result.checkpoint.name}"
            )
    return out


def _unreached(checkpoints: Sequence[AblatedCheckpoint], settings: Ablate) -> list[str]:
    out = []
    for one in checkpoints:
        there = {m.level for m in one.matched if m.by == "clean"}
        if missing := [loss for loss in settings.losses if loss not in there]:
            levels = ", ".join(f"{loss:.0%}" for loss in missing)
            out.append(
                f"{one.checkpoint.name}: not every order of the features loses {levels} of the clean images, "
                "so sets are not compared there"
            )
    return out
