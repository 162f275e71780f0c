"""The measures as torchmetrics classes: `update` with batches, `compute` once, exact over processes.

Thin over `attribution` and `instances`, their functional twins. States are float64 sums and int64 counts, so
uneven shards, any batch size and any number of processes give one result, and `.half()` changes nothing.

    C = ClassCorrelation(num_classes=10, num_features=512)
    C.update(features, labels, W)  # or C.update(g * W[y], labels, attributions=True)
    C.compute()  # [10, 10]

A confusion matrix is torchmetrics' own: `MulticlassConfusionMatrix(num_classes)`. Its classwise accuracy,
`MulticlassAccuracy(num_classes, average=None)`, is 0 for a class without samples; `ClasswiseAccuracy` is NaN.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from crossclass.analysis import attribution, instances
from crossclass.analysis.feature_shares import feature_shares
from crossclass.core.classes import Classes, require_labels, require_predictions, whole_labels
from crossclass.core.errors import UserError
from crossclass.core.logits import require_tensor


class ClassCorrelation(Metric):
    """C[i, j], the cosine of the mean attributions of classes i and j (eq. 6), float64.

    Its state is each class's sum of attributions, [K, D], and number of samples; it does not grow.
    """

    full_state_update = False
    is_differentiable = False
    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, num_features: int | None = None) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, _width(num_features)
        zeros = torch.zeros(num_classes, self.num_features, dtype=torch.float64)
        self.add_state("sums", default=zeros, dist_reduce_fx="sum")
        self.add_state("counts", default=torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        features: Float[Tensor, "n d"],
        labels: Classes,
        W: Float[Tensor, "k d"] | None = None,
        *,
        attributions: bool = False,
    ) -> None:
        """Add a batch of features g(x) with the head's weights W.

        With `attributions=True` the first argument holds attributions g(x) * W[y], and W is left out.
        Raises UserError for labels or widths that the metric was not made for, and if W is missing.
        """
        labels = _checked(self.num_classes, self.num_features, features, labels, W, attributions)
        batch = torch.zeros_like(self.sums).index_add_(0, labels.long(), features.to(torch.float64))
        self.sums += batch if W is None else batch * W.to(torch.float64)
        self.counts += torch.bincount(labels, minlength=self.num_classes)

    def compute(self) -> Float[Tensor, "k k"]:
        """C over all samples; a class without samples has a row and a column of 0.

        Those of a class with an attribution that is not finite, such as of an image for which the network
        returns NaN, are NaN.
        """
        return attribution.correlation(self.sums / self.counts.clamp(min=1)[:, None])


class CAS(ClassCorrelation):
    """CAS = sum over i != j of max(C[i, j], 0) (eq. 7), a float64 scalar; read it beside accuracy."""

    def compute(self) -> Float[Tensor, ""]:
        """CAS over all samples, between 0 and K(K-1); NaN with an attribution that is not finite."""
        return self.sums.new_tensor(attribution.cas(super().compute()))


class CASByFeature(ClassCorrelation):
    """What each feature adds to CAS (`feature_shares`), a float64 vector [D]; their sum is CAS."""

    def compute(self) -> Float[Tensor, " d"]:
        """Shares of CAS over all samples; NaN with an attribution that is not finite."""
        A = self.sums / self.counts.clamp(min=1)[:, None]
        if not bool(A.isfinite().all()):
            return torch.full_like(A[0], torch.nan)
        return feature_shares(A).share


class InstanceCAS(Metric):
    """I-CAS (section 5.3), a float64 scalar.

    A nearest neighbour needs all the others: the metric keeps the unit attribution vector of every sample
    (n x D float32 values, gathered into every process), and `compute` costs O(n^2 D).
    """

    full_state_update = False
    is_differentiable = False
    units: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_classes: int, num_features: int | None = None, block: int = 2048) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.block = num_classes, _width(num_features), block
        self.add_state("units", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        # a process that never sees a sample must still gather tensors of the right type and width
        self.units.append(torch.zeros(0, self.num_features, device=self.device))
        self.labels.append(torch.zeros(0, dtype=torch.int64, device=self.device))

    def update(
        self,
        features: Float[Tensor, "n d"],
        labels: Classes,
        W: Float[Tensor, "k d"] | None = None,
        *,
        attributions: bool = False,
    ) -> None:
        """Keep a batch; arguments and errors are those of `ClassCorrelation`."""
        labels = _checked(self.num_classes, self.num_features, features, labels, W, attributions)
        if W is None:
            W = features.new_ones(self.num_classes, self.num_features)
        units = instances.unit_attributions(features, W, labels).float()
        odd = instances.undefined(features, W, labels)
        self.units.append(units.masked_fill_(odd[:, None], torch.nan))
        self.labels.append(labels.long())

    def compute(self) -> Float[Tensor, ""]:
        """I-CAS over all samples, between 0 and K(K-1); NaN with an attribution that is not finite."""
        units, labels = dim_zero_cat(self.units), dim_zero_cat(self.labels)
        if not bool(units.isfinite().all()):
            return units.new_tensor(torch.nan, dtype=torch.float64)
        nearest = instances.unit_neighbours(units, labels, self.num_classes, self.block).best
        I = instances.instance_correlation(nearest, labels)  # noqa: E741 - the paper's matrix
        return I.new_tensor(attribution.cas(I))


class ClasswiseAccuracy(Metric):
    """The fraction of each class that is classified rightly, float64; NaN for a class without samples."""

    full_state_update = False
    is_differentiable = False
    correct: Tensor
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("correct", "counts"):
            self.add_state(name, default=torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Int[Tensor, " n"], labels: Classes) -> None:
        """Count a batch of predicted classes; raises UserError for logits and for a label out of range."""
        predicted = require_predictions(predicted)
        labels = _checked_labels(self.num_classes, labels, len(predicted))
        self.counts += torch.bincount(labels, minlength=self.num_classes)
        self.correct += torch.bincount(labels[predicted == labels], minlength=self.num_classes)

    def compute(self) -> Float[Tensor, " k"]:
        """Accuracies in [0, 1]."""
        return self.correct.to(torch.float64) / self.counts


def _width(num_features: int | None) -> int:
    if num_features is None:
        raise UserError(
            "num_features is missing: give the width of the features, which is that of the last layer, "
            "num_features=model.fc.in_features"
        )
    return num_features


def _checked_labels(k: int, labels: Classes, n: int) -> Int[Tensor, " n"]:
    labels = whole_labels(labels, n)
    require_labels(labels, k, "the metric", f"num_classes={k}")
    return labels


def _checked(
    k: int, d: int, features: Tensor, labels: Classes, W: Tensor | None, attributions: bool
) -> Int[Tensor, " n"]:
    """The classes [n]; raises UserError unless all fits the metric."""
    require_tensor(features, "features")
    if W is not None:
        require_tensor(W, "weights W")
    labels = _checked_labels(k, labels, len(features))
    if attributions == (W is not None):
        raise UserError(
            "attributions=True holds W already; leave W out"
            if attributions
            else "W is missing: give the weight of the last layer, update(features, labels, W), or "
            "attributions=True if the first argument is g(x) * W[y] already"
        )
    shape = (k, d) if W is None else tuple(W.shape)
    if features.ndim != 2 or features.shape[1] != d or shape != (k, d):
        given = "" if W is None else f" and W is {' x '.join(map(str, W.shape))}"
        width = f"width {features.shape[1]}" if features.ndim == 2 else f"shape {list(features.shape)}"
        raise UserError(
            f"features have {width}{given}, but the metric was made for "
            f"num_classes={k}, num_features={d}; make it with the shape of the model's head"
        )
    return labels
