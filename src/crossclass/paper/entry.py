"""The type of an entry: the claim of a figure, table or theorem, what to train and measure, how to judge.

    runs -> evidence of each run and seed -> numbers (plain, stored) -> verdicts, figure

Measuring is slow and done once; judging and drawing read the stored numbers and take no time. The drawings
are in `report.plots.entries`, by the id of the entry. Entries are data and need no torch until they measure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from crossclass.paper.claims import Claim, Numbers
from crossclass.paper.verdict import Verdict

if TYPE_CHECKING:
    from crossclass.paper.evidence import Evidence

Size = Literal["smoke", "mini", "paper"]
RunEvidence = Mapping[str, Sequence["Evidence"]]
"""For each run of an entry, the evidence of each seed."""


@dataclass(frozen=True)
class Experiment:
    """One figure, table or theorem of the paper."""

    id: str
    title: str
    claim: str
    """The paper's claim in one sentence."""
    measure: Callable[[RunEvidence, Size], Numbers]
    """Evidence to plain numbers; the size is for entries that compute without runs."""
    claims: tuple[Claim, ...] = ()
    runs: Mapping[str, str] = field(default_factory=dict)
    """The entry's name of each trained run, and the name of the run in `runs.NAMED`."""
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Which further measurements each of these runs needs (`extras.EXTRAS`)."""
    printed: Mapping[str, Any] | None = None
    """The numbers that the paper prints; accuracies (`ra`) in percent."""
    judge: Callable[[Numbers], Sequence[Verdict]] | None = None
    """Used instead of `claims` where the verdicts are stored with the numbers."""
    code: Callable[[], str] | None = None
    """A checksum of the source that computes the numbers, for entries that take long without any run:
    numbers stored with the same checksum are not computed again."""

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        """Every sentence of this experiment, judged on its numbers."""
        judged = list(self.judge(numbers)) if self.judge is not None else []
        return judged + [claim.judge(numbers) for claim in self.claims]
