"""The paper's theorems as entries."""

from crossclass.experiments.entry import Experiment

THEOREMS: tuple[Experiment, ...] = ()
