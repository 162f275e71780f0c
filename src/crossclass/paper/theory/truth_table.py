"""The truth table: each theorem as claims with a verdict, the region that it is about, and its numbers.

The verdicts are computed (`judge`) on closed forms, samples and descents: a wrong formula changes them.
"""

import numpy as np

from crossclass.paper.theory.theorem1 import lemma1, theorem1
from crossclass.paper.theory.theorem2 import theorem2
from crossclass.paper.theory.theorem3 import corollary1, theorem3
from crossclass.paper.verdict import Verdict

SEED = 20250605
"""The seed of all samples, fixed before any was drawn."""


def truth_table(n: int = 4000) -> dict[str, list[Verdict]]:
    """The verdicts on lemma1, thm1, thm2, thm3 and cor1, each with its extensions; n samples per setting.

    Takes a few seconds; depends on nothing but n.
    """
    return {
        "lemma1": lemma1(np.random.default_rng([SEED, 0]), 250 * n),
        "thm1": theorem1(np.random.default_rng([SEED, 1]), n),
        "thm2": theorem2(np.random.default_rng([SEED, 2]), 100 * n),
        "thm3": theorem3(np.random.default_rng([SEED, 3]), n),
        "cor1": corollary1(np.random.default_rng([SEED, 4]), n),
    }
