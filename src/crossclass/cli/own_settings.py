"""The settings that belong to a command and not to what it is about, such as `out`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from crossclass.core.config import Settings
from crossclass.core.runtime import Runtime


class Execution(Settings):
    """Of every command that computes."""

    runtime: Runtime = Runtime()
    """Where and how it is computed; no part of a result."""


class Training(Execution):
    """Of every command that trains."""

    out: Path = Path("runs")
    """The folder that holds the run folders."""


class Train(Training):
    """Of `train` and `demo`."""

    images: int = Field(default=10, ge=0, le=48)
    """At most so many test images are kept beside the run's measure.json, for its page; 0 keeps none."""
    keep_state: tuple[Annotated[int, Field(ge=1)] | Literal["best"], ...] = ()
    """Epochs after which the whole state of training is kept, such as [15,30] or [best], for `fork`."""


class Fork(Execution):
    """Of `fork`."""

    out: Path | None = None
    """The folder that holds the forks' folders; unset is the one that holds their parent's."""
    images: int = Field(default=10, ge=0, le=48)
    """At most so many test images are kept beside a fork's measure.json, for its page; 0 keeps none."""
    keep_state: tuple[Annotated[int, Field(ge=1)] | Literal["best"], ...] = ()
    """Epochs after which the fork's own state is kept, so that it can be forked again."""


class Sweep(Training):
    """Of `sweep`."""

    jobs: int = Field(default=1, ge=1)
    """Runs that are trained at the same time on this machine."""
    plan: bool = False
    """Print one command for each run instead of training it."""
    slurm: dict[str, Any] | None = None
    """Hand the runs to SLURM with these options, such as {partition: gpu, timeout_min: 600}."""


class Measure(Execution):
    """Of `measure`."""

    out: Path | None = None
    """The result, FILE.json; unset is measure.json, or measure-2.json where other settings made that."""


class Features(Execution):
    """Of `features`."""

    out: Path | None = None
    """The result, FILE.json, with FILE-sheet.png beside it; unset is features.json, or features-2.json where
    other settings made that."""


class Ablate(Execution):
    """Of `ablate`."""

    out: Path | None = None
    """The result, FILE.json, with FILE-curves.svg beside it; unset is ablation.json, or ablation-2.json where
    other settings made that."""


class Doctor(Execution):
    """Of `doctor`."""

    transfer: str | None = None
    """A second network, RUN or FILE, whose adversarial images are tried on the first."""
    everything: bool = False
    """Print the evidence of sound findings too."""
    out: Path | None = None
    """FILE.json holds all findings, FILE.html is a page; unset writes no file."""


class Verify(Settings):
    """Of `verify`."""

    against: str = "rice2020"
    """The published curve; an unknown name lists all."""
    tolerance: float = Field(default=0.02, ge=0)
    """Difference in accuracy that still agrees."""
    out: Path | None = None
    """A picture of both curves, FILE.svg, .png or .pdf; unset draws none."""


class Report(Settings):
    """Of `report`."""

    out: Path | None = None
    """The page; unset, it lies in the run's folder, beside one result, or is report.html."""


class Table(Settings):
    """Of `table`."""

    out: Path | None = None
    """The table, FILE.csv, .tex, .md, .json or .parquet; unset prints it only."""
    rows: Literal["settings", "runs"] = "settings"
    """`settings` has a row for all seeds of a setting, `runs` a row for each run."""
    pool: tuple[str, ...] = ("seed",)
    """Settings over which a row is the mean, such as seed,data.seed."""
    metrics: tuple[str, ...] = ("clean", "robust", "cas")
    """The numbers, such as robust,cas,icas,cas_normalised; an unknown one lists all."""
