"""What a person is told about how a network is fed: one sentence for each thing that was put right."""

from collections.abc import Mapping, Sequence

from jaxtyping import Bool
from torch import Tensor

from crossclass.analysis.feedings import Feeding, apart, normalise_setting, same_constants
from crossclass.analysis.input_alternatives import InputTrial, Trial
from crossclass.checkpoints.foreign_weights import Aspect
from crossclass.checkpoints.load import LoadedCheckpoint
from crossclass.models.base import Statistics
from crossclass.models.reordered import TURNS

CONSTANTS: frozenset[Aspect] = frozenset(("normalisation", "range"))
CLOSE = 0.03
"""Constants are called those of a data set if they are no farther `apart`."""
NEAREST = 3
"""So many of the ways that were tried and not taken are named."""
WORDS = {name: f"images {name}" for name in TURNS.values()} | {
    "none": "no normalisation",
    "bytes": "images in 0..255",
    "half": "images in [-1, 1]",
    "transposed": "height and width exchanged",
    "inverted": "dark and bright exchanged",
    "each image by itself": "each image standardised by its own mean and deviation",
}


class Sentences:
    """The lines that stand on top of the numbers of a checkpoint."""

    def __init__(self, one: LoadedCheckpoint, split: str) -> None:
        self.one, self.split = one, split
        self._put_right: list[tuple[frozenset[Aspect], str]] = []
        self._others: list[str] = []

    @property
    def lines(self) -> list[str]:
        """What was put right, in this order, then what else there is to say."""
        return [*(sentence for _, sentence in self._put_right), *self._others]

    def add(self, *sentences: str) -> None:
        """Something that is to be known and was not put right."""
        self._others += sentences

    def taken(self, trial: InputTrial, best: Trial, start: Feeding) -> None:
        """A way that nobody asked for is taken; what was told before about the same is forgotten."""
        aspects = frozenset(best.feeding.aspects)
        aspects |= CONSTANTS if aspects & CONSTANTS else frozenset()
        self._put_right = [(of, told) for of, told in self._put_right if not of <= aspects]
        self._put_right.append((aspects, self._taken(trial, best, start)))

    def chosen(self, best: Trial, before: Trial, rivals: Sequence[Feeding] = ()) -> None:
        """Of several ways that are as good the one that is right most often is taken."""
        now, then = _pair(best, before)
        equal = ", ".join(in_words(f.name) for f in rivals)
        of = f"as good on these images: {equal}; " * bool(rivals) or "of constants that are nearly as good "
        told = f"{of}{in_words(best.feeding.name)} is right most often: {now} of {self.images(best)}"
        told += "" if best is before else f", {before.feeding.name} {then}"
        self._put_right.append((CONSTANTS, told))

    def only_scaled(self, now: Trial, others: Sequence[Trial]) -> None:
        """Images in 0..255 are as good, and are not taken."""
        numbers = ", ".join(f"{in_words(t.feeding.name)} {percent(t.accuracy)}" for t in others)
        self.add(
            f"nobody says how images are normalised: on {self.images(now)} {now.feeding.name} "
            f"({percent(now.accuracy)}) is taken, since images in [0, 1] are usual, and as good: {numbers}; "
            f"robust accuracy depends on it: {others[0].feeding.remedy} if that is what it was trained on"
        )

    def not_excluded(self, now: Trial, others: Sequence[Trial]) -> None:
        """Ways that are worse on few images, which may be chance."""
        if others:
            worse = ", ".join(f"{in_words(t.feeding.name)} ({_pair(t, now)[0]})" for t in others)
            self.add(
                f"nobody says the normalisation, and {now.feeding.name} is kept: {percent(now.accuracy)} of "
                f"{self.images(now)} are right, too few to exclude {worse}"
            )

    def more_robust(self, feeding: Feeding, robust: Bool[Tensor, " m"], before: Bool[Tensor, " m"]) -> None:
        """An arrangement is taken that only an attack tells from the images as they are."""
        now, then = (percent(float(r.double().mean())) for r in (robust, before))
        told = (
            f"nobody says the {feeding.aspect}, and the network gets {in_words(feeding.name)}: as many clean "
            f"images are right, and one step of the attack leaves {now} of {len(robust)}, before {then}"
        )
        self._put_right.append((frozenset(feeding.aspects), told))

    def forget_what_was_undone(self, start: Feeding, now: Feeding) -> None:
        """Nothing is told of what is in the end as it was loaded."""
        undone = frozenset[Aspect]()
        if same_constants(start.constants, now.constants) and not now.arrangement.each_by_itself:
            undone |= CONSTANTS
        a, b = start.arrangement, now.arrangement
        undone |= {"channel order"} if a.channels == b.channels else set()
        turned = [(c.transposed, c.upside_down, c.mirrored) for c in (a, b)]
        undone |= {"orientation"} if turned[0] == turned[1] else set()
        undone |= {"brightness"} if a.inverted == b.inverted else set()
        self._put_right = [(of, told) for of, told in self._put_right if not of <= undone]

    def _taken(self, trial: InputTrial, best: Trial, start: Feeding) -> str:
        now, before = _pair(best, trial.loaded)
        feeding = best.feeding
        if feeding.variant is not None:
            also = [t.feeding.setting for t in trial.tied(best) if t.feeding.variant is not None]
            equals = f" (not to be told from {', '.join(also)})" if also else ""
            return (
                f"nobody says which network the weights are for, and {feeding.setting}{equals} "
                f"is taken: so {now} of {self.images(best)} are right, before {before}; "
                f"{self.undo(best)} sets it otherwise"
            )
        numbers = f"{now} of {self.images(best)} are right, with {trial.loaded.feeding.name} {before}"
        what = " or the ".join("normalisation" if a in CONSTANTS else a for a in feeding.aspects)
        if not CONSTANTS & set(feeding.aspects):
            return f"nobody says the {what}, and the network gets {in_words(feeding.name)}: so {numbers}"
        undo = normalise_setting(start.name, start.constants)
        who = f"nobody says the {what}"
        if self.one.normalised_by == "library":
            who = f"the network's library says another {what}"
        taken = f"{who}, and {in_words(feeding.name)} is taken: so {numbers}"
        return f"{taken}; {undo} sets it otherwise"

    def undo(self, best: Trial) -> str:
        """What to type for the network as it was before a variant."""
        assert best.feeding.variant is not None
        changed = best.feeding.variant.changed
        return f"model.{changed}={getattr(self.one.settings, changed)}"

    def obeyed(self, trial: InputTrial, best: Trial) -> None:
        """Somebody says how the network is fed, and another way is clearly better."""
        now, before = _pair(best, trial.loaded)
        if best.feeding.variant is not None:
            self.add(
                f"with {self.undo(best)}, as you set, {before} of {self.images(best)} are right, with "
                f"{best.feeding.variant.name} {now}; set {best.feeding.setting} unless you mean it"
            )
            return
        says = {"user": "as you set", "file": "as the file says", "network": "as the network itself does"}
        says["beside"] = "as the file beside it says"
        who = says.get(self.one.normalised_by, "as the run says")
        todo = "give the images so" if best.feeding.of_arrangement else best.feeding.remedy
        self.add(
            f"normalised {who} ({trial.loaded.feeding.name}), {before} of {self.images(best)} are right, "
            f"with {in_words(best.feeding.name)} {now}; {todo} unless you mean it"
        )

    def suspected(self, trial: InputTrial) -> None:
        """Ways that may be better."""
        for t in trial.suspected():
            now, before = _pair(t, trial.loaded)
            todo = "" if t.feeding.of_arrangement else f"; {t.feeding.remedy.removeprefix('set ')}"
            self.add(
                f"perhaps the network wants {in_words(t.feeding.name)}: {now} of {self.images(t)} are right, "
                f"now ({trial.loaded.feeding.name}) {before}, which may be chance{todo}"
            )

    def cannot_tell(self, t: Trial, loaded: Trial) -> str:
        """A variant of the network that is as good."""
        other, now = _pair(t, loaded)
        return (
            f"nobody says which network the weights are for, and {self.images(t)} cannot tell: with "
            f"{t.feeding.setting} {other} are right, now ({self.undo(t)}) {now}; set what is meant"
        )

    def confirmed(self, trial: InputTrial) -> str:
        """A note on what was tried, where nothing is better."""
        now, others = trial.loaded, sorted(trial.others, key=lambda t: t.accuracy, reverse=True)
        nearest = [f"{in_words(t.feeding.name)} {percent(t.accuracy)} of {t.n}" for t in others[:NEAREST]]
        return (
            f"{in_words(now.feeding.name)} is right on {percent(now.accuracy)} of {self.images(now)}, and "
            f"none of {len(others)} other ways to feed it is clearly better (nearest: {', '.join(nearest)})"
        )

    def images(self, t: Trial) -> str:
        """How many there were, and of which part."""
        return f"{t.n} clean {self.split} images"


def of_no_data_set(constants: Statistics, known: Mapping[str, Statistics]) -> str:
    """A note where constants that somebody typed are none that is known; else empty."""
    if min(apart(constants, s) for s in known.values()) <= CLOSE:
        return ""
    return (
        "the constants that you set are those of no known data set and not those of these images: clean "
        "accuracy hardly shows constants that are a little off, robust accuracy depends on them"
    )


def percent(share: float) -> str:
    """`91.7 %`."""
    return f"{100 * share:.1f} %"


def in_words(name: str) -> str:
    """The name of a way in a sentence."""
    return WORDS.get(name, name)


def _pair(a: Trial, b: Trial) -> Sequence[str]:
    """Both accuracies on the images that both saw."""
    n = min(a.n, b.n)
    return [percent(float(t.right[:n].double().mean())) for t in (a, b)]


def of_renumbering(
    names: Sequence[str], found: Sequence[int], known: bool, n: int, before: float, after: float
) -> str:
    """That the head was put into the order of the data's classes.

    Args:
        names: The data's classes.
        found: For each output its class in the data.
        known: Whether the order is one of the names as numbers or as text.
        n: Images on which it was tried.
        before: Share of them that was right.
        after: Share of them that is right now.
    """
    moved = [i for i, c in enumerate(found) if i != c]
    shown = [f"output {i} is {names[found[i]] if found[i] < len(names) else found[i]}" for i in moved[:10]]
    more = f" and {len(moved) - 10} more" if len(moved) > 10 else ""
    why = ", which sorts the names as numbers or as text" if known else ""
    return (
        f"the network numbers its classes otherwise than the data{why}, and its head is put into their "
        f"order: so {percent(after)} of {n} clean images are right, before {percent(before)} "
        f"({', '.join(shown)}{more})"
    )
