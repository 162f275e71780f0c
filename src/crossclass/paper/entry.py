"""An experiment is one entry: the claim, what to train, what to measure, how to draw it, how to judge it.

    runs -> evidence of each run and seed -> numbers (plain, stored) -> figure, verdicts

Measuring is slow and done once; drawing and judging read the stored numbers and take no time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from crossclass.paper.claims import Claim, Numbers
from crossclass.paper.evidence import Evidence
from crossclass.paper.verdict import Verdict
from crossclass.report import plots

Size = Literal["smoke", "mini", "paper"]
Found = Mapping[str, Sequence[Evidence]]
"""The evidence of an experiment: for each of its runs, one per seed."""


@dataclass(frozen=True)
class Experiment:
    """One figure, table or theorem of the paper."""

    id: str
    title: str
    claim: str
    """The paper's claim in one sentence."""
    measure: Callable[[Found, Size], Numbers]
    """Evidence to plain numbers; the size is for experiments that compute without runs."""
    draw: Callable[[Numbers], plots.Figure]
    claims: tuple[Claim, ...] = ()
    runs: Mapping[str, str] = field(default_factory=dict)
    """What each trained run is called here, and the name of the paper's run that it is."""
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Which further measurements each of these runs needs (`experiments.extras`)."""
    printed: str | None = None
    """The key of the paper's printed numbers."""
    judge: Callable[[Numbers], Sequence[Verdict]] | None = None
    """Instead of `claims`, where verdicts come with the numbers."""
    code: Callable[[], str] | None = None
    """The fingerprint of what computes the numbers, for experiments that take long without any run: stored
    numbers of the same code are not computed again."""

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        """Every sentence of this experiment, judged on its numbers."""
        own = list(self.judge(numbers)) if self.judge is not None else []
        return own + [claim.judge(numbers) for claim in self.claims]
