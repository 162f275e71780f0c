"""The best and the last checkpoint of a run, and what happened between them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from crossclass.analysis.binomial import upper_tail
from crossclass.analysis.metrics import METRICS, Metric, metric
from crossclass.analysis.records import (
    CheckpointRef,
    Comparison,
    DataRef,
    Ends,
    Intervals,
    Measurement,
    ResultFile,
)
from crossclass.analysis.run_record import RunRecord
from crossclass.report import plots
from crossclass.report.format import NO_ATTACK, holds_zero, level, split_name, value, value_interval

CHANCE = 0.01
"""Guessing that reaches an accuracy more often than this is one explanation of it."""
VERDICTS = {
    (True, True): "Both are lower at the last epoch than at the best one, as when robust overfitting forgets "
    "cross-class features.",
    (True, False): "Robust accuracy fell, CAS did not: this run does not show the two falling together.",
    (False, True): "CAS fell, robust accuracy did not: this run does not show the two falling together.",
    (False, False): "Neither fell: this run shows no robust overfitting.",
}


class BestAndLast(NamedTuple):
    """Two checkpoints of a run, measured under the same attack on the same images."""

    best: Measurement
    last: Measurement
    source: str
    """The file the numbers are from."""
    comparison: Comparison | None = None
    """The stored comparison of the two, with its paired intervals."""

    @property
    def checkpoints(self) -> tuple[Measurement, Measurement]:
        """The best, then the last."""
        return self.best, self.last

    @property
    def one(self) -> bool:
        """Whether the best checkpoint is the last one too."""
        epoch = self.best.checkpoint.epoch
        return epoch is not None and epoch == self.last.checkpoint.epoch

    @property
    def attack(self) -> str:
        """The attack in words."""
        return self.best.attack or NO_ATTACK

    @property
    def chosen_by(self) -> str:
        """The split that chose the best."""
        return self.best.checkpoint.chosen_by or self.best.checkpoint.name.removeprefix("best.")

    @property
    def split(self) -> str:
        """The split of the images."""
        return self.best.data.split or "test"

    def values(self, m: Metric) -> tuple[float, float] | None:
        """The values of a metric at best and last; None where one is unknown."""
        a, b = self.best.metrics.get(m.key), self.last.metrics.get(m.key)
        return None if a is None or b is None else (a, b)

    @property
    def intervals(self) -> Intervals | None:
        """The paired intervals of best minus last."""
        return self.comparison.intervals if self.comparison else None

    def interval(self, m: Metric) -> Ends | None:
        """The paired interval of the difference of a metric."""
        return self.intervals.ends(f"d_{m.key}") if self.intervals else None

    def fell(self, key: str) -> bool | None:
        """Whether a metric is lower at last, at the precision shown; None where unknown."""
        if (values := self.values(metric(key))) is None:
            return None
        a, b = (round(v, 3 if metric(key).unit == "accuracy" else 2) for v in values)
        return b < a

    @property
    def not_learned(self) -> str:
        """A sentence where the clean accuracy of both is one of guessing; empty for any other run."""
        for m in self.checkpoints:
            n, K, clean = m.data.n, len(m.classwise_robust or ()), m.metrics.get("clean")
            if not n or not K or clean is None or upper_tail(round(clean * n), n, 1 / K) < CHANCE:
                return ""
        best = value(self.best.metrics.get("clean"), metric("clean"))
        return (
            f"This run has not learned to tell the classes apart: clean accuracy is {best} at its best, and "
            f"guessing one of {K} classes gives {value(1 / K, metric('clean'))}; CAS means nothing here."
        )

    def finding(self, done: bool) -> str:
        """What happened between the best and the last checkpoint, in one sentence."""
        if self.not_learned:
            return self.not_learned
        robust, cas = metric("robust"), metric("cas")
        best, last = self.best, self.last
        epochs = [m.checkpoint.epoch for m in (best, last)]
        what, at = f"{self.split.capitalize()} robust accuracy", f"epoch {epochs[0]}"
        first, second = (value(m.metrics.get("robust"), robust) for m in (best, last))
        shared = [value(m.metrics.get("cas"), cas) for m in (best, last)]
        if epochs[0] == epochs[1]:
            at += f", the best by {split_name(self.chosen_by)} and the last one checked"
            return f"{what} is {first} in {at}{'' if done else ' so far'}; CAS there is {shared[0]}."
        by_test = self.chosen_by == "test"
        head = f"{what} {'peaked at' if by_test else 'was'} {first} in {at}"
        head += "" if by_test else f", the best by {split_name(self.chosen_by)},"
        tail = f"{'ended' if done else 'stands'} at {second} in epoch {epochs[1]}"
        tail = f"and {'' if self.fell('robust') else 'did not fall: it '}{tail}{'' if done else ' so far'}"
        text = {
            None: "CAS was not measured",
            True: f"CAS went from {shared[0]} to {shared[1]}",
            False: f"CAS did not fall: {shared[0]} to {shared[1]}",
        }
        return f"{head} {tail}; {text[self.fell('cas')]}."

    def _certainty(self) -> str:
        """Whether the loss of robust accuracy may be chance, by the stored paired interval alone."""
        interval = self.interval(metric("robust"))
        if interval is None:
            return "No interval of the difference was computed, so this page makes no statement about chance."
        text = f"The {level(self.intervals)} interval of the loss is "
        text += f"{value_interval(interval, metric('robust'))} points (paired: the same images for both)"
        return f"{text}; it holds 0, so the loss may be chance." if holds_zero(interval) else f"{text}."

    def verdict(self) -> str:
        """Whether robust accuracy and CAS fell together; empty where best and last are one checkpoint."""
        if self.one or self.not_learned:
            return ""
        robust, cas = self.fell("robust"), self.fell("cas")
        text = "Not everything was measured that a verdict needs."
        if robust is not None and cas is not None:
            text = VERDICTS[robust, cas]
        if robust:
            text += f" {self._certainty()}"
        if self.chosen_by == "test":
            text += " The best checkpoint was chosen on the test set itself, so the loss is biased upwards."
        return text


def measured(file: ResultFile) -> BestAndLast | None:
    """Best and last as they were measured after training, alike in data, attack and n."""
    groups: dict[tuple[Any, ...], dict[str, Measurement]] = {}
    for m in file.results:
        if m.metrics.get("robust") is not None:
            groups.setdefault((m.data.name, m.data.split, m.data.n, m.attack), {}).setdefault(
                m.checkpoint.name, m
            )
    for group in groups.values():
        best, last = group.get("best.val") or group.get("best.test"), group.get("last")
        if best and last:
            return BestAndLast(best, last, "measure.json", _comparison(file.comparisons, best, last))
    return None


def _comparison(comparisons: Sequence[Comparison], best: Measurement, last: Measurement) -> Comparison | None:
    """The comparison of these two under this attack, on these images."""
    for c in comparisons:
        alike = (c.attack, c.data.n, c.data.split) == (best.attack, best.data.n, best.data.split)
        named = [c.a, c.b] == [best.checkpoint.name, last.checkpoint.name]
        if alike and named and list(c.metrics.get("robust") or ()) == [best["robust"], last["robust"]]:
            return c
    return None


def checked(run: RunRecord, rows: Sequence[Mapping[str, Any]]) -> BestAndLast | None:
    """Best and last of the checks during training; None without a check on test images."""
    tested = {row["epoch"]: row for row in rows if row.get("test_robust") is not None}
    best = plots.best_epoch(rows)
    if best is None or best[0] not in tested:
        return None
    check, sizes = run.config.get("validation") or {}, run.env.get("sizes") or {}
    n = sizes.get("test") and min(sizes["test"], check.get("n") or sizes["test"])
    first, last = (
        Measurement(
            checkpoint=CheckpointRef(name=name, epoch=epoch, chosen_by=chosen_by),
            data=DataRef(n=n, split="test"),
            attack=run.env.get("check"),
            classwise_robust=tested[epoch].get("classwise_robust"),
            matrices={"C": tested[epoch]["C"]} if tested[epoch].get("C") else {},
            **{m.key: tested[epoch].get(m.column("test")) for m in METRICS if "test" in m.per_epoch},
        )
        for name, epoch, chosen_by in (("best", *best), ("last", max(tested), None))
    )
    return BestAndLast(first, last, "events.jsonl")
