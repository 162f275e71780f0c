"""How a loaded network is fed where nobody says it: the way that is clearly best on clean images is taken.

What was guessed is replaced and said; what the user, the file or the network says is obeyed, and a better way
is named beside it. Two ways that are equally good and lead to other results are for the user to decide.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from crossclass.analysis import input_alternatives as ways
from crossclass.analysis.accuracy_tests import lead
from crossclass.analysis.input_alternatives import MATTERS, Feeding, InputTrial, Trial
from crossclass.analysis.records import InputCheck
from crossclass.attacks import FGSM, AnyAttack
from crossclass.checkpoints.foreign_weights import Aspect
from crossclass.checkpoints.load import LoadedCheckpoint, constants
from crossclass.core.device import full_precision
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.models import Variant, channel_statistics, describe, variants_of, with_weights_of
from crossclass.models.base import Statistics, size_of
from crossclass.models.reordered import Reordered, renumber_head

MOST = 2000
"""At most so many images are looked at."""
SHARE = 0.02
"""Of the cost of the attack."""
LEAST = 1500.0
"""Forward passes of one image that are spent in any case: with 400, a loss of 7 points was not seen."""
ENOUGH = 200
"""Images on which two networks are called alike; fewer only if there are fewer."""
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
    if not one.guessed:
        return Settled(one)
    whole = one.splits.part(split)
    x, y = ways.clean_sample(whole, MOST, seed)
    images = one.splits.train.images if len(one.splits.train) else whole.images
    data = channel_statistics(images[:: max(1, len(images) // MOST)])
    known = ways.known_constants(x.shape[1], data, one.file_normalisation)
    cost, said = forward_passes(attacks, n), list[str]()
    budget, spent = max(SHARE * cost, LEAST), 0
    where = _Where(one, split, known)
    first: InputTrial | None = None
    for _ in range(4):  # a normalisation, a variant of the network, then an order of channels or sides
        loaded = where.feeding()
        others = ways.feedings(loaded, known, x.shape[1], (x.shape[2], x.shape[3]), one.usual)
        others += ways.with_variants(where.variants(), loaded, [loaded])
        trial = ways.try_feedings(where.model, x, y, loaded, others, budget=budget, batch=batch)
        spent, first = spent + trial.cost, first or trial
        if not trial.better() and (
            doubtful := trial.worth_more_images()
        ):  # worth more than the price of a check
            rest = [t.feeding for t in doubtful]
            trial = ways.try_feedings(where.model, x, y, loaded, rest, batch=batch)
            spent += trial.cost
        if not trial.better() and (pairs := where.pairs(trial)):
            both = ways.try_feedings(where.model, x, y, loaded, pairs, budget=budget - spent, batch=batch)
            spent += both.cost
            trial = both if both.better() else trial
        found = trial.better()
        if not found:
            break
        best = found[0]
        if not where.is_guessed(best.feeding):
            said.append(where.obeyed(trial, best))
            break
        if best.feeding.variant is None:
            _refuse_a_tie(where, trial, [best, *trial.tied(best)], x, y, attacks, batch)
        said.append(where.taken(trial, best))
        where.take(best.feeding)
    else:
        trial = ways.try_feedings(where.model, x, y, where.feeding(), (), budget=budget, batch=batch)
    assert first is not None
    if not trial.better():
        said += [where.suspected(trial, t) for t in trial.suspected()]
        equal, cost = where.variants_as_good(trial, x, y, batch)
        said, spent = said + equal, spent + cost
        _refuse_a_tie(where, trial, _undecided(trial, one), x, y, attacks, batch)
    numbering = None
    if trial.renumbering is not None and "class order" in one.guessed:
        numbering, sentence = _renumber(where, x, y, batch)
        said.append(sentence)
    check = InputCheck(
        n=trial.loaded.n,
        split=split,
        taken=where.name(),
        accuracies={t.feeding.name: round(t.accuracy, 4) for t in (trial.loaded, *trial.others)},
        as_loaded=first.loaded.feeding.name,
        accuracy_as_loaded=round(first.loaded.accuracy, 4),
        class_of_output=None if numbering is None else list(numbering),
        forward_passes=spent,
    )
    normalise = constants(where.model)
    notes = [*one.about.loaded, *([] if said else [where.confirmed(trial)])]
    about = replace(one.about, normalise=normalise, loaded=notes)
    if where.settings is not None and where.settings != one.settings:
        about = replace(about, model=describe(where.settings, len(one.splits.class_names)))
    return Settled(replace(one, model=where.model, about=about), tuple(said), check)


class _Where:
    """A network on its way to being fed rightly, and the words about it."""

    def __init__(self, one: LoadedCheckpoint, split: str, known: dict[str, Statistics]) -> None:
        self.one, self.split, self.known, self.model = one, split, known, one.model
        self.order: list[str] = []
        self.settings = one.settings

    def feeding(self) -> Feeding:
        return ways.as_loaded(self.model, self.known)

    def name(self) -> str:
        return ", ".join([self.feeding().name, *self.order])

    def variants(self) -> tuple[Variant, ...]:
        """Networks that the file may be meant for as well."""
        return variants_of(self.settings)

    def pairs(self, trial: InputTrial) -> list[Feeding]:
        """The variants under the two best of the other normalisations, where nobody says either."""
        constants = [t for t in trial.others if t.feeding.aspect in ("normalisation", "range")]
        best = sorted((t for t in constants if self.is_guessed(t.feeding)), key=lambda t: -t.accuracy)[:2]
        variants = [v for v in self.variants() if v.changed not in self.one.given]
        return ways.with_variants(variants, trial.loaded.feeding, [t.feeding for t in best])

    def is_guessed(self, feeding: Feeding) -> bool:
        """Whether nobody says what this way would change."""
        given = feeding.variant is not None and feeding.variant.changed in self.one.given
        return feeding.aspect in self.one.guessed and not given

    def take(self, feeding: Feeding) -> None:
        if feeding.variant is not None:
            self.settings = feeding.variant.settings
            images = self.one.splits.test.images
            self.model = with_weights_of(self.model, self.settings, images.shape[1], size_of(images))
            self.order = [o for o in self.order if not o.startswith(f"{feeding.variant.changed}=")]
            self.order.append(feeding.variant.name)
        if feeding.reversed_channels or feeding.transposed:
            self.order.append(feeding.name)
            self.model = Reordered(
                self.model, reversed_channels=feeding.reversed_channels, transposed=feeding.transposed
            )
            self.model.eval()
        else:
            for buffer, values in zip(("mean", "std"), feeding.constants, strict=True):
                setattr(self.model, buffer, getattr(self.model, buffer).new_tensor(values).view(1, -1, 1, 1))

    def images(self, t: Trial) -> str:
        return f"{t.n} clean {self.split} images"

    def variants_as_good(self, trial: InputTrial, x: Tensor, y: Tensor, batch: int) -> tuple[list[str], int]:
        """A sentence on each variant that clean images cannot tell from the network; what that cost."""
        few = [t.feeding for t in _rivals(trial, {"architecture"}) if self.is_guessed(t.feeding)]
        if not few:
            return [], 0
        again = ways.try_feedings(self.model, x, y, trial.loaded.feeding, few, batch=batch)
        out = []
        for t in _rivals(again, {"architecture"}):
            alike = lead(*_common(t, again.loaded))[0] > -MATTERS and t.n >= min(len(x), ENOUGH)
            if alike and again.disagreement(t, again.loaded) > MATTERS:
                other, now = _pair(t, again.loaded)
                out.append(
                    f"nobody says which network the weights are for, and {self.images(t)} cannot tell: with "
                    f"{t.feeding.setting} {other} are right, now ({self.undo(t)}) {now}; set what is meant"
                )
        return out, again.cost

    def taken(self, trial: InputTrial, best: Trial) -> str:
        now, before = _pair(best, trial.loaded)
        if best.feeding.variant is not None:
            also = [t.feeding.setting for t in trial.tied(best)]
            equals = f" (not to be told from {', '.join(also)})" if also else ""
            return (
                f"nobody says which network the weights are for, and {best.feeding.setting}{equals} "
                f"is taken: so {now} of {self.images(best)} are right, before {before}; "
                f"{self.undo(best)} sets it otherwise"
            )
        numbers = f"{now} of {self.images(best)} are right, with {trial.loaded.feeding.name} {before}"
        if best.feeding.aspect in ("channel order", "height and width"):
            order = "blue, green, red" if best.feeding.reversed_channels else "height and width exchanged"
            return f"nobody says the {best.feeding.aspect}, and the network gets {order}: so {numbers}"
        undo = ways.normalise_setting(trial.loaded.feeding.name, trial.loaded.feeding.constants)
        who = "the network's library says another normalisation"
        who = who if self.one.normalised_by == "library" else "nobody says the normalisation"
        return f"{who}, and {_in_words(best.feeding.name)} is taken: so {numbers}; {undo} sets it otherwise"

    def undo(self, best: Trial) -> str:
        """What to type for the network as it was before a variant."""
        assert best.feeding.variant is not None
        changed = best.feeding.variant.changed
        return f"model.{changed}={getattr(self.settings, changed)}"

    def obeyed(self, trial: InputTrial, best: Trial) -> str:
        now, before = _pair(best, trial.loaded)
        if best.feeding.variant is not None:
            return (
                f"with {self.undo(best)}, as you set, {before} of {self.images(best)} are right, with "
                f"{best.feeding.variant.name} {now}; set {best.feeding.setting} unless you mean it"
            )
        says = {"user": "as you set", "file": "as the file says", "network": "as the network itself does"}
        says["beside"] = "as the file beside it says"
        who = says.get(self.one.normalised_by, "as the run says")
        return (
            f"normalised {who} ({trial.loaded.feeding.name}), {before} of {self.images(best)} are right, "
            f"with {_in_words(best.feeding.name)} {now}; set {best.feeding.setting} unless you mean it"
        )

    def suspected(self, trial: InputTrial, t: Trial) -> str:
        now, before = _pair(t, trial.loaded)
        todo = "" if t.feeding.aspect in ("channel order", "height and width") else f"; {t.feeding.setting}"
        return (
            f"perhaps the network wants {_in_words(t.feeding.name)}: {now} of {self.images(t)} are right, "
            f"now ({trial.loaded.feeding.name}) {before}, which may be chance{todo}"
        )

    def confirmed(self, trial: InputTrial) -> str:
        numbers = [f"{t.feeding.name} {_percent(t.accuracy)} of {t.n}" for t in (trial.loaded, *trial.others)]
        return f"tried on clean {self.split} images, none is clearly better: {', '.join(numbers)}"


def _pair(a: Trial, b: Trial) -> tuple[str, str]:
    """Both accuracies on the images that both saw."""
    n = min(a.n, b.n)
    return tuple(_percent(float(t.right[:n].double().mean())) for t in (a, b))  # type: ignore[return-value]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _in_words(name: str) -> str:
    words = {"none": "no normalisation", "bytes": "images in 0..255", "half": "images in [-1, 1]"}
    return words.get(name, name)


def _undecided(trial: InputTrial, one: LoadedCheckpoint) -> list[Trial]:
    """The way as loaded and the normalisations that are as good, where nobody says which; else none."""
    if one.normalised_by == "library":  # its word decides where images do not
        return []
    rivals = _rivals(trial, one.guessed & {"normalisation", "range"})
    return [trial.loaded, *rivals] if rivals else []


def _rivals(trial: InputTrial, aspects: Collection[Aspect]) -> list[Trial]:
    """The other ways of these aspects that are no worse than as loaded; none if that is guessing."""
    if not ways.above_chance(trial.loaded.right, trial.labels[: trial.loaded.n]):
        return []
    out = []
    for t in trial.others:
        share, _ = lead(*_common(t, trial.loaded))
        _, worse = lead(*_common(trial.loaded, t))
        if t.feeding.aspect in aspects and (share >= 0 or worse > 0.05):
            out.append(t)
    return out


def _common(a: Trial, b: Trial) -> tuple[Tensor, Tensor]:
    n = min(a.n, b.n)
    return a.right[:n], b.right[:n]


def _refuse_a_tie(
    where: _Where,
    trial: InputTrial,
    good: list[Trial],
    x: Tensor,
    y: Tensor,
    attacks: Sequence[AnyAttack | None],
    batch: int,
) -> None:
    """Raise UserError if several ways are equally good on all images and differ under attack."""
    tied = [t.feeding for t in good if t.feeding.aspect in ("normalisation", "range")]
    if len(tied) < 2:
        return
    again = ways.try_feedings(where.model, x, y, tied[0], tied[1:], batch=batch)
    alike = [t for t in again.others if t.n == again.loaded.n and not _differs(t, again.loaded)]
    alike = [t for t in alike if again.disagreement(t, again.loaded) > MATTERS]
    attack = next((a for a in attacks if a is not None), None)
    if attack is None or not alike:
        return
    few, labels = x[:200], y[:200]
    robust = [_robust(where, t.feeding, attack, few, labels, batch) for t in (again.loaded, *alike)]
    others = [t for t, r in zip(alike, robust[1:], strict=True) if _share_apart(r, robust[0]) > MATTERS]
    if not others:
        return
    every = [again.loaded, *others]
    table = ", ".join(f"{t.feeding.name} {_percent(t.accuracy)}" for t in every)
    settings = " or ".join(t.feeding.setting for t in every)
    raise UserError(
        f"{where.one.name}: nobody says how its images are normalised, and on {where.images(again.loaded)} "
        f"these are equally good: {table}; robust accuracy depends on it, so set {settings}"
    )


def _differs(a: Trial, b: Trial) -> bool:
    return min(lead(*_common(a, b))[1], lead(*_common(b, a))[1]) < 0.025


def _share_apart(a: Tensor, b: Tensor) -> float:
    return abs(float(a.double().mean() - b.double().mean()))


def _robust(where: _Where, feeding: Feeding, attack: AnyAttack, x: Tensor, y: Tensor, batch: int) -> Tensor:
    """Which images stay right under one step in the ball of the attack."""
    step = FGSM(threat=attack.threat)
    parts = []
    with full_precision(), ways.with_normalisation(where.model, *feeding.constants):
        for i, (a, b) in enumerate(zip(x.split(batch), y.split(batch), strict=True)):
            x_adv = step(where.model, a, b, generator(0, 6, i, "doctor"))
            parts.append(ways.predictions(where.model, feeding, x_adv, batch) == b)
    return torch.cat(parts)


def _renumber(where: _Where, x: Tensor, y: Tensor, batch: int) -> tuple[tuple[int, ...], str]:
    """Put the head's rows into the order of the data's classes. Raises UserError if it cannot be made out."""
    names = where.one.splits.class_names
    few = min(len(x), PER_CLASS * len(names))
    x, y = x[:few], y[:few]
    predicted = _now(where, x, batch)
    halves = [torch.arange(few, device=y.device) // len(names) % 2 == i for i in (0, 1)]
    found = ways.explaining_renumbering(predicted, y)
    k = len(found or ())
    parts = [ways.best_renumbering(predicted[h], y[h], k) for h in halves] if found else []
    before = float((predicted == y).double().mean())
    if found is not None and all(part == found for part in parts):
        renumber_head(where.model, found)
        after = float((_now(where, x, batch) == y).double().mean())
        if after > before:
            moved = [i for i, c in enumerate(found) if i != c]
            shown = ", ".join(f"output {i} is {_name(names, found[i])}" for i in moved[:10])
            more = f" and {len(moved) - 10} more" if len(moved) > 10 else ""
            return found, (
                "the network numbers its classes otherwise than the data, and its head is put into their "
                f"order: so {_percent(after)} of {few} clean {where.split} images are right, before "
                f"{_percent(before)} ({shown}{more})"
            )
    raise UserError(
        f"{where.one.name} numbers its classes otherwise than the data ({_percent(before)} of {few} clean "
        f"{where.split} images are right), and which output is which class cannot be made out for all; name "
        "the classes in its order in class_names, or measure it as it is with check_inputs=false"
    )


def _now(where: _Where, x: Tensor, batch: int) -> Tensor:
    with full_precision():
        return ways.predictions(where.model, where.feeding(), x, batch)


def _name(names: Sequence[str], i: int) -> Any:
    return names[i] if i < len(names) else i
