"""The best and the last checkpoint of a run, and what happened between them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from crossclass.analysis.metrics import METRICS, Metric, metric
from crossclass.analysis.records import Comparison, Matrix, Measurement, ResultFile
from crossclass.analysis.run_record import RunRecord
from crossclass.report import plots
from crossclass.report.format import holds_zero, split_name, value, value_interval
from crossclass.report.measurement import level


class End(NamedTuple):
    """The best or the last checkpoint of a run."""

    epoch: int | None
    metrics: Mapping[str, Any]
    matrices: Mapping[str, Matrix]
    classwise_robust: Sequence[float | None]
    empty_classes: Sequence[int] = ()


class Ends(NamedTuple):
    """Best and last of a run under the same attack on the same images."""

    best: End
    last: End
    chosen_by: str
    """The split that chose the best."""
    split: str
    n: int | None
    attack: str | None
    conditions: Mapping[str, Any]
    source: str
    """The file the numbers are from."""
    comparison: Comparison | None = None
    """The stored comparison of the two, with its paired intervals."""

    def both(self, m: Metric) -> tuple[float, float] | None:
        """The values of a metric at best and last; None where one is unknown."""
        a, b = self.best.metrics.get(m.key), self.last.metrics.get(m.key)
        return None if a is None or b is None else (a, b)

    def interval(self, m: Metric) -> Any:
        """The paired interval of best minus last."""
        intervals = self.comparison and self.comparison.intervals
        return intervals.ends(f"d_{m.key}") if intervals else None

    def fell(self, key: str) -> bool | None:
        """Whether a metric is lower at last, at the precision shown; None where unknown."""
        if (both := self.both(metric(key))) is None:
            return None
        a, b = (round(v, 3 if metric(key).unit == "accuracy" else 2) for v in both)
        return b < a


VERDICTS = {
    (True, True): "Both are lower at the last epoch than at the best one, as when robust overfitting forgets "
    "cross-class features.",
    (True, False): "Robust accuracy fell, CAS did not: this run does not show the two falling together.",
    (False, True): "CAS fell, robust accuracy did not: this run does not show the two falling together.",
    (False, False): "Neither fell: this run shows no robust overfitting.",
}


def measured_ends(file: ResultFile) -> Ends | None:
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
            return Ends(
                best=_end(best),
                last=_end(last),
                chosen_by=best.checkpoint.chosen_by or best.checkpoint.name.removeprefix("best."),
                split=best.data.split or "test",
                n=best.data.n,
                attack=best.attack,
                conditions=best.conditions,
                source="measure.json",
                comparison=_comparison(file.comparisons, best, last),
            )
    return None


def _end(m: Measurement) -> End:
    matrices = m.matrices if isinstance(m.matrices, dict) else {}
    return End(m.checkpoint.epoch, m.metrics, matrices, m.classwise_robust or (), m.empty_classes)


def _comparison(comparisons: Sequence[Comparison], best: Measurement, last: Measurement) -> Comparison | None:
    """The comparison of these two under this attack, on these images."""
    for c in comparisons:
        alike = (c.attack, c.data.n, c.data.split) == (best.attack, best.data.n, best.data.split)
        named = [c.a, c.b] == [best.checkpoint.name, last.checkpoint.name]
        if alike and named and list(c.metrics.get("robust") or ()) == [best["robust"], last["robust"]]:
            return c
    return None


def checked_ends(run: RunRecord, rows: Sequence[Mapping[str, Any]]) -> Ends | None:
    """Best and last of the checks during training; None without a check on test images."""
    tested = {row["epoch"]: row for row in rows if row.get("test_robust") is not None}
    best = plots.best_epoch(rows)
    if best is None or best[0] not in tested:
        return None
    on_test = [m for m in METRICS if "test" in m.per_epoch]
    first, last = (
        End(
            epoch,
            {m.key: tested[epoch].get(m.column("test")) for m in on_test},
            {"C": tested[epoch]["C"]} if tested[epoch].get("C") else {},
            tested[epoch].get("classwise_robust") or (),
        )
        for epoch in (best[0], max(tested))
    )
    check, sizes = run.config.get("validation") or {}, run.env.get("sizes") or {}
    n = sizes.get("test") and min(sizes["test"], check.get("n") or sizes["test"])
    return Ends(first, last, best[1], "test", n, run.env.get("check"), {}, "events.jsonl")


def finding(ends: Ends, done: bool = True) -> str:
    """What happened between the best and the last checkpoint, in one sentence."""
    robust, cas = metric("robust"), metric("cas")
    best, last = ends.best, ends.last
    what, at = f"{ends.split.capitalize()} robust accuracy", f"epoch {best.epoch}"
    first, second = (value(end.metrics.get("robust"), robust) for end in (best, last))
    shared = [value(end.metrics.get("cas"), cas) for end in (best, last)]
    if best.epoch == last.epoch:
        at += (
            f", the best by {split_name(ends.chosen_by)} and the last one checked{'' if done else ' so far'}"
        )
        return f"{what} is {first} in {at}; CAS there is {shared[0]}."
    by_test = ends.chosen_by == "test"
    head = f"{what} {'peaked at' if by_test else 'was'} {first} in {at}"
    head += "" if by_test else f", the best by {split_name(ends.chosen_by)},"
    tail = f"{'ended' if done else 'stands'} at {second} in epoch {last.epoch}"
    tail = f"and {'' if ends.fell('robust') else 'did not fall: it '}{tail}{'' if done else ' so far'}"
    text = {
        None: "CAS was not measured",
        True: f"CAS went from {shared[0]} to {shared[1]}",
        False: f"CAS did not fall: {shared[0]} to {shared[1]}",
    }
    return f"{head} {tail}; {text[ends.fell('cas')]}."


def certainty(ends: Ends) -> str:
    """Whether the loss of robust accuracy may be chance, by the paired interval of the comparison alone."""
    interval = ends.interval(metric("robust"))
    if interval is None:
        return "No interval of the difference was computed, so this page makes no statement about chance."
    text = f"The {level(ends.comparison and ends.comparison.intervals)} interval of the loss is "
    text += f"{value_interval(interval, metric('robust'))} points (paired: the same images for both)"
    return f"{text}; it holds 0, so the loss may be chance." if holds_zero(interval) else f"{text}."


def verdict(ends: Ends) -> str:
    """Whether robust accuracy and CAS fell together; empty where best and last are one checkpoint."""
    if ends.best.epoch == ends.last.epoch:
        return ""
    robust, cas = ends.fell("robust"), ends.fell("cas")
    text = "Not everything was measured that a verdict needs."
    if robust is not None and cas is not None:
        text = VERDICTS[robust, cas]
    if robust:
        text += f" {certainty(ends)}"
    if ends.chosen_by == "test":
        text += " The best checkpoint was chosen on the test set itself, so the loss is biased upwards."
    return text
