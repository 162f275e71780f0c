"""The records in which numbers are written down: an epoch, a measurement, a comparison, a result file.

Each is a frozen pydantic model, so that what is read back is typed and `crossclass schema` can print the JSON
Schema. The scalar numbers are those of `metrics.METRICS` and stand flat beside the other keys. No number in a
file is NaN or infinite: what is undefined is null. Nothing here imports torch.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from crossclass.analysis import display
from crossclass.analysis.forgotten_records import SharedAndForgotten
from crossclass.analysis.frames import to_frame
from crossclass.analysis.input_check import InputCheck as InputCheck
from crossclass.analysis.metrics import METRICS, Part
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.printable import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1
"""The version of the result file and of the rows of events.jsonl."""

Ends = tuple[int | float | None, int | float | None]


def as_array(values: Any) -> "NDArray[np.float64]":
    """Numbers or a matrix as an array, with NaN for None."""
    import numpy as np

    return np.array(values, dtype=np.float64)


def _square(value: list[list[float | None]]) -> list[list[float | None]]:
    if any(len(row) != len(value) for row in value):
        raise ValueError("is not a square matrix")
    return value


Matrix = Annotated[list[list[float | None]], AfterValidator(_square)]


class Record(BaseModel):
    """Base of all records: frozen, and with names as they are written."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    def __str__(self) -> str:
        return repr(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data as it is written to JSON."""
        out: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return out


class _WithMetrics(Record):
    """A record whose further keys are metrics."""

    model_config = ConfigDict(extra="allow")

    def __getitem__(self, key: str) -> Any:
        """A metric, such as `record["cas"]`, or a field; raises KeyError if the record lacks it."""
        if key in type(self).model_fields:
            return getattr(self, key)
        if key not in self.metrics:
            raise KeyError(f"there is no '{key}' here{did_you_mean(key, self.metrics)}")
        return self.metrics[key]

    def get(self, key: str) -> Any:
        """A metric or a field by its name; None if the record lacks it."""
        return getattr(self, key) if key in type(self).model_fields else self.metrics.get(key)

    @property
    def metrics(self) -> dict[str, Any]:
        """All numbers by key."""
        return dict(self.__pydantic_extra__ or {})


class CheckpointRef(Record):
    """Which weights were measured."""

    name: str
    """`best.val`, `last`, or the name of a file without its ending."""
    sha256: str | None = None
    """Of the file's bytes; null in files from before it was kept."""
    source: str | None = None
    """The file name; never a folder of this machine."""
    run: str = ""
    """The name of the run folder; empty for a file that belongs to none."""
    epoch: int | None = None
    chosen_by: str | None = None
    """The part on which the checkpoint was chosen: `val`, `test` or null."""

    @property
    def title(self) -> str:
        """The name, with its run where there is one."""
        return f"{self.name} of {self.run}" if self.run else self.name


class DataRef(Record):
    """Which images were used; null is unknown."""

    name: str | None = None
    checksum: str | None = None
    n: int | None = None
    split: str | None = None


class Head(Record):
    """Where the weights W of the attribution come from."""

    layer: str
    """The name of the linear layer in the network."""
    matches_logits: bool | None = None
    """Whether g(x) @ W.T + b is what the network returns for the first batch; null: not checked."""


class Pair(Record):
    """Two classes and how much they share."""

    i: int
    j: int
    classes: tuple[str, str]
    C: float


class PairChange(Record):
    """Two classes and how much they share in either checkpoint."""

    i: int
    j: int
    classes: tuple[str, str]
    a: float
    b: float
    change: float


class ClassChange(Record):
    """Robust accuracy of a class in either checkpoint."""

    name: str = Field(alias="class")
    a: float
    b: float
    change: float


class Intervals(Record):
    """Confidence intervals by key; `method` says how they come about."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Ends | None] = Field(init=False)

    level: float = 0.95
    method: str | None = None
    bias: dict[str, float | None] = {}
    """How far estimates are expected to lie above the truth."""

    def ends(self, key: str) -> Ends | None:
        """The two ends for one key, or None if there is no interval of it."""
        return (self.__pydantic_extra__ or {}).get(key)


class MatrixFile(Record):
    """Matrices too large for JSON: an npz file beside it."""

    file: str
    keys: list[str]
    sha256: str | None = None
    """Of the file's bytes; null in files from before it was kept."""


class Measurement(_WithMetrics):
    """One checkpoint under one attack: its numbers and their conditions."""

    __pydantic_extra__: dict[str, int | float | None] = Field(init=False)

    warnings: list[str] = []
    checkpoint: CheckpointRef
    data: DataRef = DataRef()
    model: str | None = None
    normalise: dict[str, list[float]] | None = None
    loaded: list[str] = []
    """How the weights of a foreign file were read."""
    inputs: InputCheck | None = None
    """What was tried where nobody says how the network is fed."""
    head: Head | None = None
    attack: str | None = None
    """In words; `conditions.attack` holds its settings."""
    conditions: dict[str, Any] = {}
    class_names: list[Annotated[str, AfterValidator(printable)]] = []
    classwise_clean: list[float | None] | None = None
    classwise_robust: list[float | None] | None = None
    empty_classes: list[int] = []
    intervals: Intervals | None = None
    pairs: list[Pair] = []
    """The pairs of classes that share most, the largest C first."""
    matrices: dict[str, Matrix] | MatrixFile = {}
    """`C`, `icas_matrix`, `all_pairs_matrix`, `decision_matrix`, `offer_matrix`, `profile_matrix`,
    `confusion` [true, predicted], `sharing` if it is known."""
    pictures: SkipJsonSchema[Any] = Field(default=None, exclude=True, repr=False)
    """A few of the images (`pictures.Pictures`), in the process that measured them; never in the file."""
    per_image: SkipJsonSchema[Any] = Field(default=None, exclude=True, repr=False)
    """What each image was taken for (`PerImage`), in the process that measured them; never in the file."""

    @property
    def attacked(self) -> bool:
        """Whether the numbers are of adversarial images."""
        return not (self.attack or "").startswith("none")

    def matrix(self, key: str) -> Matrix:
        """One matrix; raises KeyError if there is none of this name."""
        assert not isinstance(self.matrices, MatrixFile), "read the file with load_results"
        return self.matrices[key]

    @property
    def C(self) -> "NDArray[np.float64]":  # noqa: N802 - the paper's symbol
        """The correlation matrix of class attributions, an array [K, K] with entries in [-1, 1].

        Raises KeyError if the record holds none.
        """
        return as_array(self.matrix("C"))

    def __repr__(self) -> str:
        return f"<{self.checkpoint.title}: {display.line(self)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: warnings, the numbers with intervals, and C."""
        return display.page([self])


class PerImage(NamedTuple):
    """What the network says of each image, in the order in which they were measured."""

    labels: tuple[int, ...]
    clean: tuple[int, ...]
    """The predicted class of the image; -1 where the output is no number."""
    robust: tuple[int, ...]
    """The predicted class of the adversarial image."""

    @property
    def correct_clean(self) -> "NDArray[np.bool_]":
        """Whether each image is classified correctly, [n]."""
        return as_array(self.clean) == as_array(self.labels)

    @property
    def correct_robust(self) -> "NDArray[np.bool_]":
        """Whether each adversarial image is classified correctly, [n]."""
        return as_array(self.robust) == as_array(self.labels)


class Saliency(Record):
    """Grad-CAM maps of two checkpoints on the images that the first gets right and the second wrong."""

    model_config = ConfigDict(extra="allow")
    grid: str | None = None


class Comparison(_WithMetrics):
    """Two checkpoints on the same images; numbers are [first, second], `d_<key>` is first minus second."""

    __pydantic_extra__: dict[str, Ends | int | float | None] = Field(init=False)

    warnings: list[str] = []
    """Those of both, each behind the name of its checkpoint."""
    a: str
    b: str
    of: tuple[CheckpointRef, CheckpointRef] | None = None
    data: DataRef = DataRef()
    attack: str | None = None
    conditions: dict[str, Any] = {}
    intervals: Intervals | None = None
    pairs: list[PairChange] = []
    classes: list[ClassChange] = []
    matrices: dict[str, Matrix] | MatrixFile = {}
    """`C_difference`."""
    saliency: Saliency | None = None
    features: SharedAndForgotten | None = None
    """Of two checkpoints of one run: which features carried the sharing, and were forgotten."""
    feature_pictures: SkipJsonSchema[Any] = Field(default=None, exclude=True, repr=False)
    """Images of these features (`FeaturePicture`), in the process that made them; never in the file."""

    def __repr__(self) -> str:
        return f"<{self.a} minus {self.b}: {display.changes(self)}>"


class ResultFile(Record):
    """What `measure` writes, and `measure.json` of a run folder."""

    model_config = ConfigDict(title="crossclass result file")

    schema_version: Literal[1] = Field(default=1, alias="schema")
    crossclass: str | None = None
    torch: str | None = None
    date: str | None = None
    made_by: str | None = None
    """The command line that wrote the file (`core.made_by`)."""
    results: list[Measurement] = []
    comparisons: list[Comparison] = []

    def __repr__(self) -> str:
        lines = [repr(one) for one in (*self.results, *self.comparisons)]
        return "\n".join(lines) if lines else "<no results>"

    def _repr_html_(self) -> str:
        """What a notebook shows: warnings, the numbers with intervals, and C of each."""
        return display.page(self.results)

    def of(self, name: str) -> Measurement:
        """The first measurement of a checkpoint, such as `last`; raises KeyError if there is none."""
        for r in self.results:
            if r.checkpoint.name == name:
                return r
        raise KeyError(name)

    @property
    def only(self) -> Measurement:
        """The one measurement of the file; raises UserError if there are several, or none."""
        if len(self.results) != 1:
            names = ", ".join(r.checkpoint.name for r in self.results) or "nothing"
            raise UserError(f"there are {len(self.results)} results ({names}); take one, as in .results[0]")
        return self.results[0]

    @property
    def C(self) -> "NDArray[np.float64]":  # noqa: N802 - the paper's symbol
        """C of the one measurement, an array [K, K]; raises UserError if there are several, or none."""
        return self.only.C

    def __getitem__(self, key: str) -> Any:
        """A number of the one measurement; raises UserError if there are several, or none."""
        return self.only[key]

    def to_pandas(self) -> Any:
        """One row per measurement, without matrices. Raises UserError where pandas is not installed."""
        rows = []
        for r in self.results:
            flat = {k: v for k, v in r.to_dict().items() if not isinstance(v, dict | list)}
            at, data = r.checkpoint, r.data
            flat |= {"checkpoint": at.name, "run": at.run, "epoch": at.epoch, "chosen_by": at.chosen_by}
            rows.append(flat | {"data": data.name, "n": data.n, "split": data.split})
        return to_frame(rows)


@dataclass(frozen=True)
class Alarm:
    """One thing that went wrong in a run, when, and the numbers that show it."""

    name: str
    epoch: int
    """The validated epoch in which it was raised."""
    since: int
    """The epoch from which it holds: of the best checkpoint for what builds up, else the same."""
    evidence: str
    level: Literal["alarm", "note"] = "alarm"
    last_good: int | None = None
    """The last validated epoch before the trouble, to go back to; None if there was none."""

    def __str__(self) -> str:
        when = f"since epoch {self.since}" if self.since < self.epoch else f"in epoch {self.epoch}"
        return f"{self.name.replace('-', ' ')} {when}: {self.evidence}"


class EpochRow(_WithMetrics):
    """One epoch of training, as in events.jsonl: `row.lr`, and a metric by its column, `row["test_robust"]`.

    What is measured by a validation is null in epochs without one. Numbers named `watched_*` are of the part
    that alarms read: validation images, or test images where nothing is held out.
    """

    __pydantic_extra__: dict[str, Any] = Field(init=False)

    schema_version: Annotated[int, Field(le=SCHEMA)] = Field(default=SCHEMA, alias="schema")
    epoch: int
    """Counted from 1."""
    lr: float | None = None
    """Learning rate of the last step."""
    seconds: float | None = None
    """Of training, without the validation."""
    train_loss: float | None = None
    train_clean: float | None = None
    """Accuracy on training images: of the last visit for standard training, else by the validation."""
    train_robust: float | None = None
    """Accuracy on the adversarial training images as they were trained on."""
    check_seconds: float | None = None
    watched: Part | None = None
    watched_n: int | None = None
    """Images of the watched part."""
    watched_attack: str | None = None
    watched_correct: str | None = None
    """Which of these images are right under the attack: a bit each (numpy's packbits) in base64."""
    watched_fgsm: float | None = None
    """Accuracy under one full step from x (FGSM), on the first `fgsm_n` images."""
    watched_predicted_classes: int | None = None
    watched_largest_share: float | None = None
    """Share of the adversarial images that go to the most frequent class."""
    fgsm_n: int | None = None
    fgsm_gap: float | None = None
    """Accuracy under FGSM minus under the validation's attack, on the same images."""
    gradient_cosine: float | None = None
    """Mean cosine of the input gradients at x and at a random point of the ball (GradAlign's)."""
    test_n: int | None = None
    robust_gap: float | None = None
    """Robust accuracy: training minus watched."""
    cas_since_peak: float | None = None
    """CAS minus its largest value so far."""
    C: Matrix | None = None
    """The correlation matrix of class attributions on test images."""
    classwise_robust: list[float | None] | None = None
    warnings: list[str] = []
    alarms: list[Alarm] = []
    """Those that start in this epoch."""
    stopped_by: Alarm | None = None
    """The alarm that ended the training."""
    restored_epoch: int | None = None
    """The epoch whose network `last` holds instead, after such an end."""

    def __repr__(self) -> str:
        return f"<{display.epoch_line(self)}>"


RESERVED = frozenset(
    {
        "C",
        *Measurement.model_fields,
        *Comparison.model_fields,
        *EpochRow.model_fields,
        *("C_difference", "icas_matrix", "all_pairs_matrix", "confusion", "sharing", "n", "split"),
        *("decision_matrix", "offer_matrix", "profile_matrix"),
    }
)
"""Names that no metric may take."""

_BEFORE = ("epoch", "lr", "seconds", "train_clean", "train_robust")
_AFTER = (
    *("train_loss", "check_seconds", "robust_gap", "cas_since_peak", "watched_fgsm", "fgsm_gap"),
    *("gradient_cosine", "watched_predicted_classes", "watched_largest_share"),
    *("watched", "watched_n", "fgsm_n"),
)


def metric_columns() -> list[str]:
    """The columns of metrics.csv that the metrics fill: validation, then test accuracies, then the rest."""
    accuracies = [m for m in METRICS if m.unit == "accuracy"]
    columns = [m.column(part) for part in ("val", "test") for m in accuracies if part in m.per_epoch]
    return [*columns, *(m.column(p) for m in METRICS if m not in accuracies for p in m.per_epoch[::-1])]


def columns() -> list[str]:
    """All columns of metrics.csv. Accuracies are in [0, 1]; empty where an epoch was not checked."""
    return [*_BEFORE, *metric_columns(), *_AFTER]


def metrics_csv(rows: Sequence[EpochRow | Mapping[str, Any]]) -> str:
    """The scalars of all epochs as the text of metrics.csv."""
    text, names = io.StringIO(), columns()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {k: row.get(k) for k in names}
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in cells.items()})
    return text.getvalue()


def result_file(results: Sequence[Measurement], comparisons: Sequence[Comparison] = ()) -> ResultFile:
    """Results with the versions and the date of now."""
    return ResultFile(
        crossclass=version("crossclass"),
        torch=version("torch"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        results=list(results),
        comparisons=list(comparisons),
    )


def first_error(e: ValidationError) -> str:
    """The first thing that is wrong in a record: its path in the file, and why."""
    first = e.errors(include_url=False)[0]
    # pydantic puts the type that it tried for a union into the path, such as `dict[str,...]`
    where = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
    return f"'{where}': {first['msg'].removeprefix('Value error, ')}"
