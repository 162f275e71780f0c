"""How a loaded network is fed where nobody says it: the way that is clearly best on clean images is taken.

What was guessed is replaced and said; what the user, the file or the network says is obeyed, and a better way
is named beside it. Two ways that are equally good and lead to other results are for the user to decide.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from crossclass.analysis import input_alternatives as ways
from crossclass.analysis.accuracy_tests import lead
from crossclass.analysis.feedings import (
    ALIKE,
    SMALL,
    Feeding,
    apart,
    as_loaded,
    close_constants,
    feedings,
    known_constants,
    same_constants,
    with_both,
    with_variants,
)
from crossclass.analysis.input_alternatives import MATTERS, InputTrial, Trial
from crossclass.analysis.input_sentences import Sentences, of_no_data_set, of_renumbering, percent
from crossclass.analysis.records import InputCheck
from crossclass.analysis.renumbering import best_renumbering, explaining_renumbering, orders_of_names
from crossclass.attacks import FGSM, AnyAttack
from crossclass.checkpoints.foreign_weights import Aspect
from crossclass.checkpoints.load import LoadedCheckpoint, constants
from crossclass.core.classes import predicted
from crossclass.core.device import full_precision
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.models import (
    Classifier,
    Variant,
    channel_statistics,
    describe,
    variants_of,
    with_weights_of,
)
from crossclass.models.base import Statistics, size_of
from crossclass.models.reordered import Arrangement, as_fed, renumber_head

MOST = 2000
"""At most so many images are looked at."""
SHARE = 0.02
"""Of the cost of the attack."""
LEAST = 1500.0
"""Forward passes of one image that are spent in any case: with 800, a loss of 6 points was not seen."""
ENOUGH = 200
"""Images on which two networks are called alike; fewer only if there are fewer."""
FOR_NEIGHBOURS = 800
"""Images on which constants that hardly differ are compared, where the usual ones were wrong."""
FEW = 100
"""Images of which one step shows whether a network is more robust on images arranged otherwise."""
ROUNDS = 6
"""So many things are put right at most: constants, channels, orientation, brightness, a variant, again."""
GOOD = 0.75
"""A network that was not fed as was guessed may be better still if fewer images are right."""
PER_CLASS = 50
"""Images of each class from which a renumbering of the classes is read."""


@dataclass(frozen=True)
class Settled:
    """A checkpoint as it is to be measured, and what there is to say about it."""

    loaded: LoadedCheckpoint
    warnings: tuple[str, ...] = ()
    check: InputCheck | None = None


def forward_passes(attacks: Sequence[AnyAttack | None], n: int) -> float:
    """What evaluating n images costs, in forward passes of one image; a gradient counts as two."""
    return float(sum(n * (2 + 2 * (a.gradients or 100) if a is not None else 1) for a in attacks))


def settle(
    one: LoadedCheckpoint,
    split: str,
    attacks: Sequence[AnyAttack | None],
    n: int,
    *,
    seed: int = 0,
    batch: int = 250,
) -> Settled:
    """The checkpoint with what was guessed put right.

    Normalisation, order of channels, orientation, brightness and variants of the network are searched one
    after the other, each with what was taken of the others, until none improves.

    Args:
        one: The checkpoint; another normalisation or order of classes is put into its network.
        split: The part of the data from which images are drawn.
        attacks: What the network will be measured with, on which the effort depends; None is clean images.
        n: Images that will be measured.
        seed: Of the drawing.
        batch: Images in a forward pass.

    Raises:
        UserError: Two ways to normalise are equally good, or the classes are numbered in a way that cannot be
            made out.
    """
    if not one.guessed and not one.obeyed:
        return Settled(one)
    whole = one.splits.part(split)
    x, y = ways.clean_sample(whole, MOST, seed)
    images = one.splits.train.images if len(one.splits.train) else whole.images
    data = channel_statistics(images[:: max(1, len(images) // MOST)])
    known = known_constants(x.shape[1], data, one.file_normalisation)
    cost, said = forward_passes(attacks, n), Sentences(one, split)
    budget, spent = max(SHARE * cost, LEAST), 0
    orders = orders_of_names(one.splits.class_names)
    where = _Where(one, known)
    start = where.feeding()
    first: InputTrial | None = None
    for _ in range(ROUNDS):
        loaded, alternatives = where.feeding(), (known, x.shape[1], (x.shape[2], x.shape[3]), one.usual)
        others = feedings(loaded, *alternatives) + with_variants(where.variants(), loaded, [loaded])
        # what is said of the constants stays, where only the order of the channels is guessed
        others = [f for f in others if len(f.aspects) == 1 or where.is_guessed(f)]

        def attempt(
            among: Sequence[Feeding],
            most: float,
            before: InputTrial | None = None,
            loaded: Feeding = loaded,
            model: Classifier = where.model,
        ) -> InputTrial:
            return ways.try_feedings(
                model, x, y, loaded, among, budget=most, batch=batch, orders=orders, before=before
            )

        trial = wide = attempt(others, budget)
        spent, first = spent + trial.cost, first or trial
        if not trial.better() and (doubtful := _doubtful(trial, one)):  # worth more than a check costs
            trial = attempt(doubtful, inf, wide)
            spent += trial.cost
        # two things may be wrong of which neither alone makes it better
        low = ways.hardly_learned(trial.loaded.right, y[: trial.loaded.n])
        low |= loaded != start and trial.loaded.accuracy < GOOD
        for more in (where.pairs(wide), where.both(loaded, alternatives) if low else []):
            if more and not trial.better():
                both = attempt(more, max(budget - spent, 2 * LEAST), wide)
                spent += both.cost
                if not both.better() and (doubtful := [t.feeding for t in both.worth_more_images()]):
                    both = attempt(doubtful, inf, wide)
                    spent += both.cost
                trial = both if both.better() else trial
        found = trial.better()
        if not found:
            break
        best = found[0]
        if not where.is_guessed(best.feeding):
            said.obeyed(trial, best)
            break
        said.taken(trial, best, start)
        where.take(best.feeding)
    else:
        trial = wide = ways.try_feedings(
            where.model, x, y, where.feeding(), (), budget=budget, batch=batch, orders=orders
        )
    assert first is not None
    said.forget_what_was_undone(start, where.feeding())
    if not trial.better():
        equal, more_cost = where.variants_as_good(trial, x, y, batch, said)
        rivals = [t.feeding for t in _undecided(trial, one)]
        outputs = y  # that are right
        if trial.renumbering is not None:
            outputs = ways.outputs_of(trial.renumbering, y)
        spent += more_cost + where.choose(start, rivals, x, outputs, batch, budget, said)
        spent += _refuse_a_tie(where, [trial.loaded.feeding, *rivals], x, outputs, attacks, batch, said)
        spent += _take_the_more_robust(where, wide, x, outputs, attacks, batch, said)
        if where.feeding() == trial.loaded.feeding:
            said.suspected(trial)
        said.add(*equal)
    numbering = None
    if trial.renumbering is not None and "class order" in one.guessed:
        numbering, sentence = _renumber(where, trial.renumbering, orders, x, y, batch)
        said.add(sentence)
    check = InputCheck(
        n=trial.loaded.n,
        split=split,
        taken=where.feeding().whole_name + where.variant_name(),
        accuracies={t.feeding.name: round(t.accuracy, 4) for t in (trial.loaded, *trial.others)},
        as_loaded=first.loaded.feeding.name,
        accuracy_as_loaded=round(first.loaded.accuracy, 4),
        class_of_output=None if numbering is None else list(numbering),
        forward_passes=spent,
    )
    notes = [*one.about.loaded, *([] if said.lines else [said.confirmed(trial)])]
    if one.normalised_by == "user" and (unknown := of_no_data_set(start.constants, known)):
        notes.append(unknown)
    model = where.whole()
    about = replace(one.about, normalise=constants(model), loaded=notes)
    if where.settings is not None and where.settings != one.settings:
        about = replace(about, model=describe(where.settings, len(one.splits.class_names)))
    return Settled(replace(one, model=model, about=about), tuple(said.lines), check)


class _Where:
    """A network on its way to being fed rightly."""

    def __init__(self, one: LoadedCheckpoint, known: dict[str, Statistics]) -> None:
        self.one, self.known, self.model = one, known, one.model
        self.settings, self.arrangement = one.settings, Arrangement()

    def feeding(self) -> Feeding:
        return as_loaded(self.model, self.known, self.arrangement)

    def whole(self) -> Classifier:
        """The network for the images as they are."""
        return as_fed(self.model, self.arrangement)

    def variant_name(self) -> str:
        if self.settings is None or self.one.settings is None:
            return ""
        before, now = self.one.settings.to_dict(), self.settings.to_dict()
        return "".join(f", {name}={now[name]}" for name in now if now[name] != before.get(name))

    def variants(self) -> tuple[Variant, ...]:
        """Networks that the file may be meant for as well."""
        return variants_of(self.settings)

    def pairs(self, trial: InputTrial) -> list[Feeding]:
        """The variants under the two best of the other normalisations, where nobody says either."""
        of_constants = [t for t in trial.others if t.feeding.aspect in ("normalisation", "range")]
        best = sorted((t for t in of_constants if self.is_guessed(t.feeding)), key=lambda t: -t.accuracy)[:2]
        variants = [v for v in self.variants() if v.changed not in self.one.given]
        return with_variants(variants, trial.loaded.feeding, [t.feeding for t in best])

    def both(self, loaded: Feeding, alternatives: tuple[Any, ...]) -> list[Feeding]:
        """Another normalisation and another arrangement at once, where nobody says either."""
        return [f for f in with_both(loaded, *alternatives) if self.is_guessed(f)]

    def is_guessed(self, feeding: Feeding) -> bool:
        """Whether nobody says what this way would change."""
        given = feeding.variant is not None and feeding.variant.changed in self.one.given
        return set(feeding.aspects) <= self.one.guessed and not given

    def take(self, feeding: Feeding) -> None:
        if feeding.variant is not None:
            self.settings = feeding.variant.settings
            images = self.one.splits.test.images
            self.model = with_weights_of(self.model, self.settings, images.shape[1], size_of(images))
        self.arrangement = feeding.arrangement
        for buffer, values in zip(("mean", "std"), feeding.constants, strict=True):
            setattr(self.model, buffer, getattr(self.model, buffer).new_tensor(values).view(1, -1, 1, 1))

    def choose(
        self,
        start: Feeding,
        rivals: Sequence[Feeding],
        x: Tensor,
        labels: Tensor,
        batch: int,
        budget: float,
        said: Sentences,
    ) -> int:
        """Of constants that are as good, or hardly differ, those that are right most often; what that cost.

        Only where the usual ones were wrong, or where channels are in another order: then the constants may
        be those of the network's channels or of the images'.
        """
        guessed, spent = "normalisation" in self.one.guessed, 0
        changed = not _same_constants(self.feeding(), start)
        if guessed and changed and rivals:
            every, spent = ways.try_all(self.model, x, labels, [self.feeding(), *rivals], batch)
            best, before = ways.most_right(every), every[0]
            if best is not before:
                self.take(best.feeding)
            equal = [t for t in every if t.n == best.n and _as_good(t, best)]
            if best is not before or len(equal) > 1:
                said.chosen(best, before, [t.feeding for t in equal if t is not best])
        others = close_constants(self.feeding(), self.known, neighbours=changed) if guessed else []
        if others and not self.arrangement.each_by_itself:
            few = int(
                min(len(x), MOST if len(others) == 1 else max(FOR_NEIGHBOURS, budget / (1 + len(others))))
            )
            every, cost = ways.try_all(self.model, x[:few], labels[:few], [self.feeding(), *others], batch)
            best, before, spent = ways.most_right(every), every[0], spent + cost
            # a neighbour in the same order of channels must be right a little more often than by chance
            by_chance = best.feeding.name in self.known and lead(*_common(best, before))[1] > 0.2
            if best is not before and not by_chance:
                self.take(best.feeding)
                said.chosen(best, before)
        return spent

    def variants_as_good(
        self, trial: InputTrial, x: Tensor, y: Tensor, batch: int, said: Sentences
    ) -> tuple[list[str], int]:
        """A sentence on each variant that clean images cannot tell from the network; what that cost."""
        few = [t.feeding for t in _rivals(trial, {"architecture"}) if self.is_guessed(t.feeding)]
        if not few:
            return [], 0
        again = ways.try_feedings(self.model, x, y, trial.loaded.feeding, few, batch=batch)
        out = []
        for t in _rivals(again, {"architecture"}):
            alike = lead(*_common(t, again.loaded))[0] > -MATTERS and t.n >= min(len(x), ENOUGH)
            if alike and ways.disagreement(t, again.loaded) > MATTERS:
                out.append(said.cannot_tell(t, again.loaded))
        return out, again.cost


def _doubtful(trial: InputTrial, one: LoadedCheckpoint) -> list[Feeding]:
    """Ways that look better, and normalisations that are as good where nobody says which."""
    few = [*trial.worth_more_images(), *_undecided(trial, one)]
    return [t.feeding for t in trial.others if any(t is doubtful for doubtful in few)]


def _undecided(trial: InputTrial, one: LoadedCheckpoint) -> list[Trial]:
    """The normalisations that are as good as the one as loaded, where nobody says which.

    Not images that are each standardised: after batch norm most networks are as good with them.
    """
    if one.normalised_by == "library":  # its word decides where images do not
        return []
    rivals = _rivals(trial, one.guessed & {"normalisation", "range"})
    return [t for t in rivals if not t.feeding.arrangement.each_by_itself]


def _same_constants(a: Feeding, b: Feeding) -> bool:
    alike = same_constants(a.constants, b.constants)
    return alike and a.arrangement.each_by_itself == b.arrangement.each_by_itself


def _neighbours(a: Feeding, b: Feeding) -> bool:
    alike = apart(a.constants, b.constants) < ALIKE
    return alike and a.arrangement.each_by_itself == b.arrangement.each_by_itself


def _rivals(trial: InputTrial, aspects: Collection[Aspect]) -> list[Trial]:
    """The other ways of these aspects that are no worse than as loaded; none if that is guessing."""
    if not ways.above_chance(trial.loaded.right, trial.labels[: trial.loaded.n]):
        return []
    of = [t for t in trial.others if t.feeding.aspect in aspects]
    return [t for t in of if lead(*_common(trial.loaded, t))[1] > 0.05]  # all images will tell


def _as_good(t: Trial, now: Trial) -> bool:
    """Whether a way is right as often; it may be right less often by two points and by what chance does."""
    share, _ = lead(*_common(t, now))
    _, worse = lead(*_common(now, t))
    return share >= 0 or worse > 0.2 or (worse > 0.025 and share > -MATTERS)


def _common(a: Trial, b: Trial) -> tuple[Tensor, Tensor]:
    n = min(a.n, b.n)
    return a.right[:n], b.right[:n]


def _refuse_a_tie(
    where: _Where,
    ways_as_good: Sequence[Feeding],
    x: Tensor,
    y: Tensor,
    attacks: Sequence[AnyAttack | None],
    batch: int,
    said: Sentences,
) -> int:
    """Raise UserError if several normalisations are equally good on all images and differ under attack.

    Equally good are those within two points that are no neighbours, better than guessing and not clearly
    apart: else the usual way is kept, and those are named that so few images cannot exclude. Images in 0..255
    are no reason to refuse: a network without constants of its own scales its logits with its inputs, nearly,
    so it is as good with them whatever it was trained on. That is said, and the images stay as they are
    usual. Returns what that cost.
    """
    others = [f for f in ways_as_good if not _neighbours(f, where.feeding())]
    if not others:
        return 0
    (now, *again), cost = ways.try_all(where.model, x, y, [where.feeding(), *others], batch)
    rivals = [t for t in again if t.n == now.n and _as_good(t, now) and ways.learned(t.right, y[: t.n])]
    rivals = [t for t in rivals if ways.disagreement(t, now) > MATTERS]
    attack = next((a for a in attacks if a is not None), None)
    if attack is None or not rivals:
        return cost
    few, labels = x[:200], y[:200]
    cost += 4 * len(few) * (1 + len(rivals))
    robust = [_robust(where, t.feeding, attack, few, labels, batch) for t in (now, *rivals)]
    differ = [t for t, r in zip(rivals, robust[1:], strict=True) if _share_apart(r, robust[0]) > MATTERS]
    if differ and all(_of_bytes(t.feeding) for t in differ) and not _of_bytes(now.feeding):
        said.only_scaled(now, differ)
        return cost
    alike = [t for t in differ if _share_apart(t.right, now.right) <= MATTERS]
    if not alike:
        said.not_excluded(now, differ)
        return cost
    order = [f.name for f in ways_as_good]
    every = [now, *alike]
    every.sort(key=lambda t: order.index(t.feeding.name) if t.feeding.name in order else len(order))
    table = ", ".join(f"{t.feeding.name} {percent(t.accuracy)}" for t in every)
    every.sort(key=lambda t: t.feeding.arrangement.each_by_itself)
    settings = " or ".join(t.feeding.remedy.removeprefix("set ") for t in every)
    raise UserError(
        f"{where.one.name}: nobody says how its images are normalised, and on {now.n} clean images "
        f"these are equally good: {table}; robust accuracy depends on it, so set {settings}"
    )


def _of_bytes(feeding: Feeding) -> bool:
    return max(feeding.constants[1]) < SMALL


def _share_apart(a: Tensor, b: Tensor) -> float:
    return abs(float(a.double().mean() - b.double().mean()))


def _robust(where: _Where, feeding: Feeding, attack: AnyAttack, x: Tensor, y: Tensor, batch: int) -> Tensor:
    """Which images stay right under one step in the ball of the attack."""
    step = FGSM(threat=attack.threat)
    parts, model = [], as_fed(where.model, feeding.arrangement)
    with full_precision(), ways.with_normalisation(model, *feeding.constants), torch.no_grad():
        for i, (a, b) in enumerate(zip(x.split(batch), y.split(batch), strict=True)):
            with torch.enable_grad():
                x_adv = step(model, a, b, generator(0, 6, i, "doctor"))
            parts.append(predicted(model(x_adv)) == b)
    return torch.cat(parts)


def _take_the_more_robust(
    where: _Where,
    trial: InputTrial,
    x: Tensor,
    y: Tensor,
    attacks: Sequence[AnyAttack | None],
    batch: int,
    said: Sentences,
) -> int:
    """Take an arrangement that is as good on clean images and far more robust; what that cost.

    Other orders of channels may leave clean accuracy as it is. A network is hardly more robust with an order
    that it was not trained with: on a network for digits one step leaves 95 % right, with a wrong one 50 %.
    """
    attack = next((a for a in attacks if a is not None), None)
    seen = max((t.n for t in trial.others), default=0)
    rivals = [t for t in trial.others if t.feeding.of_arrangement and where.is_guessed(t.feeding)]
    rivals = [t for t in rivals if t.n == seen >= min(len(x), FEW) and _as_good(t, trial.loaded)]
    # mirrored images are as good for most networks, and robust to the same attacks
    rivals = [t for t in rivals if t.feeding.name != "mirrored"]
    if attack is None or not rivals:
        return 0
    few, labels, now = x[:FEW], y[:FEW], where.feeding()
    as_now = _robust(where, now, attack, few, labels, batch)
    one_step = [
        _robust(where, replace(t.feeding, constants=now.constants), attack, few, labels, batch)
        for t in rivals
    ]
    best = max(zip(rivals, one_step, strict=True), key=lambda pair: int(pair[1].sum()))
    if ways.beats(best[1], as_now, by=0.05, tests=len(rivals)):
        where.take(replace(best[0].feeding, constants=now.constants))
        said.more_robust(best[0].feeding, best[1], as_now)
    return 4 * len(few) * (1 + len(rivals))


def _renumber(
    where: _Where,
    seen: tuple[int, ...],
    orders: Sequence[tuple[int, ...]],
    x: Tensor,
    y: Tensor,
    batch: int,
) -> tuple[tuple[int, ...], str]:
    """Put the head's rows into the order of the data's classes. Raises UserError if it cannot be made out."""
    names = where.one.splits.class_names
    few = min(len(x), PER_CLASS * len(names))
    x, y = x[:few], y[:few]
    said = _now(where, x, batch)
    halves = [torch.arange(few, device=y.device) // len(names) % 2 == i for i in (0, 1)]
    found = seen if seen in orders else explaining_renumbering(said, y, orders)
    known = found in orders
    k = len(found or ())
    parts = [best_renumbering(said[h], y[h], k) for h in halves] if found and not known else []
    before = float((said == y).double().mean())
    if found is not None and all(part == found for part in parts):
        renumber_head(where.model, found)
        after = float((_now(where, x, batch) == y).double().mean())
        if after > before:
            return found, of_renumbering(names, found, known, few, before, after)
    raise UserError(
        f"{where.one.name} numbers its classes otherwise than the data ({percent(before)} of {few} clean "
        "images are right), and which output is which class cannot be made out for all; name the classes in "
        "its order in class_names, or measure it as it is with check_inputs=false"
    )


def _now(where: _Where, x: Tensor, batch: int) -> Tensor:
    with full_precision():
        return ways.predictions(where.model, where.feeding(), x, batch)
