"""One pass over a split gives every number: clean and robust accuracy, per class, confusion, C, CAS.

Everything reported is float32 with the model in eval mode; the attack may craft in lower precision, its
images are judged in float32. Every image is visited. Noise comes from streams of (seed, batch), so
evaluating never moves a training stream.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crossclass.analysis import attribution, instances
from crossclass.analysis.invariant_matrices import KINDS, Invariant, Kind, invariant_matrices
from crossclass.analysis.metrics import METRICS, Part, collapsed
from crossclass.analysis.neural_collapse import (
    NeuralCollapse,
    logit_entropy,
    neural_collapse,
    wrong_probability,
)
from crossclass.analysis.records import Head, Matrix, Pair
from crossclass.attacks import AnyAttack, Attack
from crossclass.core.classes import (
    NO_CLASS,
    Classes,
    known_labels,
    predicted,
    require_labels,
    require_predictions,
    whole_labels,
)
from crossclass.core.device import full_precision
from crossclass.core.errors import UserError
from crossclass.core.progress import Progress, shown
from crossclass.core.rng import Purpose, generator, isolated_rng, stream_seed
from crossclass.core.torch_state import usual_torch_state
from crossclass.data import Split, as_float, batches
from crossclass.models import Classifier
from crossclass.models.model_state import evaluating, in_float32, other_floats

DistributedMap = Callable[[Sequence[Tensor], Callable[[int, Tensor], Any]], list[Any]]
"""`distributed_map(batches, work)`: the results of `work(i, batch)` of all batches, in order."""
_CHECKED = 64
"""On so many images the head is checked."""
ROUNDING = 1e-3
"""Kernels of other batch sizes differ by about 1e-6 of the largest output; another function by far more."""


def local_map(items: Sequence[Tensor], work: Callable[[int, Tensor], Any]) -> list[Any]:
    """`DistributedMap` in one process."""
    return [work(i, item) for i, item in enumerate(items)]


@dataclass(frozen=True, repr=False)
class EvaluationPass:
    """What one pass over a split gave; predictions and features on the CPU, in the split's order.

    All numbers are computed from it, each matrix once, when it is first asked for.
    """

    labels: Int[Tensor, " n"]
    clean: Int[Tensor, " n"]
    """Predicted class of the image, -1 where the output is no number."""
    robust: Int[Tensor, " n"]
    """Predicted class of the adversarial image."""
    features: Float[Tensor, "n d"]
    """g(x_adv)."""
    W: Float[Tensor, "k d"]
    dead: int = 0
    """Samples with a zero or non-finite gradient at every step of the attack, or at some step if they are
    classified right after it."""
    images: Float[Tensor, "m c h w"] | None = None
    """The images that were judged (x_adv, or x without an attack), those of `kept`."""
    kept: Int[Tensor, " m"] | None = None
    """Which samples' images were to be kept."""
    used: Bool[Tensor, " n"] | None = None
    """Which samples attributions are taken from; unset is all of them, as in the paper."""
    sharing: Int[Tensor, "k k"] | None = None
    """Which classes truly share a feature, where the data tell (Shapes)."""
    entropy: Float[Tensor, " n"] | None = None
    """Of the softmax on each adversarial image, in nats; NaN where the output is no number."""
    wrong: Float[Tensor, " n"] | None = None
    """What the softmax gives to wrong classes on each adversarial image."""

    head: Head | None = None
    """Which layer W is of, and whether it gives the logits, if that was checked."""
    head_warnings: tuple[str, ...] = ()
    """What a reader of C and CAS must know of it."""
    warnings: tuple[str, ...] = ()
    """What the settings and a sample of the images say of the attack."""

    def __repr__(self) -> str:
        known = f"clean {self.accuracy('clean'):.1%}, robust {self.accuracy('robust'):.1%}"
        return f"<{len(self.labels)} images of {self.classes} classes: {known}, CAS {self.cas:.2f}>"

    @cached_property
    def attributed(self) -> tuple[Float[Tensor, "m d"], Float[Tensor, "k d"], Int[Tensor, " m"]]:
        """Features, W and labels of the samples that attributions are taken from."""
        used = slice(None) if self.used is None else self.used
        return self.features[used], self.W, self.labels[used]

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return len(self.W)

    @property
    def largest_cas(self) -> int:
        """K(K-1), the largest possible value of CAS."""
        return self.classes * (self.classes - 1)

    @cached_property
    def means(self) -> Float[Tensor, "k d"]:
        """Mean attribution vector of each class (eq. 5), float64."""
        return attribution.class_means(*self.attributed)

    @cached_property
    def C(self) -> Float[Tensor, "k k"]:  # noqa: N802 - the paper's symbol
        """The correlation matrix of class attributions (eq. 6), float64."""
        return attribution.correlation(self.means).nan_to_num(0.0)  # `warnings` names such classes

    @cached_property
    def cas(self) -> float:
        """CAS(C) (eq. 7)."""
        return attribution.cas(self.C)

    @property
    def negative_mass(self) -> float:
        """What eq. 7 leaves out."""
        return attribution.negative_mass(self.C)

    @cached_property
    def neighbours(self) -> instances.Neighbours:
        """The two most similar samples of each class to each sample; O(m^2 d)."""
        return instances.neighbours(*self.attributed)

    @property
    def nearest(self) -> Float[Tensor, "m k"]:
        """The largest cosine of each sample to a sample of each class."""
        return self.neighbours.best

    @cached_property
    def icas_matrix(self) -> Float[Tensor, "k k"]:
        """The instance-wise matrix I (section 5.3)."""
        return instances.instance_correlation(self.nearest, self.attributed[2])

    @property
    def icas(self) -> float:
        """I-CAS."""
        return attribution.cas(self.icas_matrix)

    @cached_property
    def all_pairs_matrix(self) -> Float[Tensor, "k k"]:
        """The mean cosine over all pairs of samples of two classes."""
        return instances.all_pairs(*self.attributed).nan_to_num(0.0)

    @property
    def all_pairs_cas(self) -> float:
        """CAS of `all_pairs_matrix`."""
        return attribution.cas(self.all_pairs_matrix)

    @cached_property
    def invariants(self) -> "dict[Kind, Invariant]":
        """The matrices of `invariant_matrices`, with their scores and intervals."""
        return invariant_matrices(*self.attributed)

    @cached_property
    def collapse(self) -> NeuralCollapse:
        """NC1 to NC3."""
        return neural_collapse(*self.attributed)

    @cached_property
    def confusion(self) -> Int[Tensor, "k k"]:
        """Counts [true, predicted] of the adversarial images."""
        return confusion(self.robust, self.labels, self.classes)

    @property
    def sharing_confusion(self) -> float | None:
        """Spearman's correlation over pairs of classes between C[i, j] and how often i and j are confused.

        Confusion of a pair is the mean of both error rates; pairs with a class without images are left out.
        None where it is undefined: fewer than three pairs, or all alike.
        """
        from scipy.stats import spearmanr  # slow to import

        n = torch.bincount(self.labels, minlength=self.classes)
        rates = self.confusion / n.clamp(min=1)[:, None]
        i, j = torch.triu_indices(self.classes, self.classes, offset=1)
        both = (n[i] > 0) & (n[j] > 0)
        shared, confused = self.C[i, j][both].double(), (rates + rates.T)[i, j][both].double()
        if len(shared) < 3 or len(shared.unique()) == 1 or len(confused.unique()) == 1:
            return None
        return float(spearmanr(shared.numpy(), confused.numpy()).statistic)

    @property
    def predicted_classes(self) -> int:
        """How many classes are predicted at least once."""
        return int((_counts(self.robust, self.classes) > 0).sum())

    @property
    def largest_share(self) -> float:
        """The share of the images that go to the most frequent class."""
        return float(_counts(self.robust, self.classes).max()) / max(1, len(self.robust))

    @property
    def sharing_auc(self) -> float | None:
        """The AUC of C for pairs that truly share; None where all pairs share, none does, or nobody knows."""
        if self.sharing is None:
            return None
        share = attribution.off_diagonal(self.sharing) > 0
        return attribution.separation(self.C, self.sharing) if share.any() and not share.all() else None

    def accuracy(self, kind: Literal["clean", "robust"]) -> float:
        """Fraction of the (adversarial) images that are classified correctly."""
        return accuracy(getattr(self, kind), self.labels)


@usual_torch_state()
@torch.no_grad()
def evaluate(
    model: Classifier,
    split: Split,
    attack: AnyAttack | None,
    seed: int = 0,
    *,
    batch: int = 250,
    epoch: int = 0,
    purpose: Purpose = "measure",
    memory_format: torch.memory_format = torch.contiguous_format,
    advance: Callable[[int], None] = lambda n: None,
    keep: Int[Tensor, " m"] | None = None,
    distributed_map: DistributedMap = local_map,
    progress: Progress | bool = False,
) -> EvaluationPass:
    """Evaluate a model on a split under an attack (none: clean only, features of clean images).

    `keep` are the indices, rising, of the samples whose judged images are kept.
    `progress=True` shows a bar, or is a function of what is done, how far and out of how many.
    `distributed_map` may let several processes take batches each (`ProcessGroup.map`); the result is
    the same, in all of them. Raises UserError for labels that the network has no output for, for no images,
    and for what is no `Classifier`, no `Split` or no `Attack`.
    """
    _require(model, split, attack)
    attack = attack and attack.for_evaluation()
    require_labels(split.labels, len(model.head.weight))

    def evaluate_batch(step: int, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, Tensor]:
        index = index.to(split.labels.device)
        x = as_float(split.images[index]).contiguous(memory_format=memory_format)
        y = split.labels[index]
        x_adv, dead = x, 0
        with isolated_rng(stream_seed(seed, epoch, step, "evaluation"), x.device):
            if attack is not None:
                result = attack.search(model, x, y, generator(seed, epoch, step, purpose))
                x_adv = result.x_adv
            g, logits = model.outputs(x_adv)
            unlike = _unlike(g, layer, logits) if head is not None and head.matches_logits else 0
            if attack is not None and attack.gradients:
                lost, right = result.dead_gradients, predicted(logits) == y
                dead = int(((lost >= attack.gradients) | ((lost > 0) & right)).sum())
            robust, of_softmax = predicted(logits).cpu(), _softmax_numbers(logits.cpu(), y.cpu())
            clean = predicted(model(x)).cpu() if attack is not None else robust
        advance(len(index))
        step_bar("evaluate", step * batch + len(index), len(split))
        images = x_adv.new_empty(0)
        if keep is not None:
            images = x_adv[torch.isin(index, keep.to(index.device))].cpu()
        return clean, robust, g.float().cpu(), of_softmax, dead, unlike, images

    few = as_float(split.images[: min(batch, _CHECKED)]).contiguous(memory_format=memory_format)
    # during training, the epochs are not held up by it
    head, said = head_of(model, few) if purpose == "measure" and len(few) else (None, ())
    with (
        full_precision(),
        evaluating(model),
        in_float32(model),
        known_labels(),
        shown(progress) as step_bar,
    ):
        layer = model.head
        parts = distributed_map(batches(len(split), batch, None), evaluate_batch)
    clean, robust, features, of_softmax, dead, unlike, images = zip(*parts, strict=True)
    if head is not None and sum(unlike):
        of = f"of {sum(unlike)} of the {len(split)} images"
        head = Head(layer=head.layer, matches_logits=False)
        said = (*said, f"the logits {of} are not W g(x) + b of '{head.layer}': C and CAS do not explain them")
    W = model.head.weight.detach().float().cpu()
    labels = split.labels.cpu()
    judged = None if keep is None else torch.cat(images)
    seen = torch.cat(clean), torch.cat(robust), torch.cat(features)
    entropy, wrong = torch.cat(of_softmax, dim=1)
    cast = tuple(f"the network is in {kind}, and was computed in float32" for kind in other_floats(model))
    return EvaluationPass(
        *(labels, *seen, W, sum(dead), judged, keep),
        **{"entropy": entropy, "wrong": wrong, "head": head, "head_warnings": said, "warnings": cast},
    )


def _softmax_numbers(logits: Float[Tensor, "n k"], y: Int[Tensor, " n"]) -> Float[Tensor, "2 n"]:
    """Entropy, and what wrong classes get; kept instead of the logits, which are K numbers an image."""
    return torch.stack([logit_entropy(logits), wrong_probability(logits, y)])


def _require(model: object, split: object, attack: object) -> None:
    """Raise UserError unless these are what `evaluate` takes."""
    name = type(model).__name__
    if not isinstance(getattr(model, "head", None), nn.Module) or not hasattr(model, "outputs"):
        raise UserError(
            f"evaluate needs the features and the head of a network, which a {name} does not show; give "
            "Wrapped(net, classes, channels, mean, std, size)"
        )
    if not isinstance(split, Split):
        raise UserError(
            f"evaluate takes a Split of images and labels, not a {type(split).__name__}; give "
            "Split(images, labels) from crossclass.data, images as bytes [n, c, h, w]"
        )
    if not len(split):
        raise UserError("there are no images to evaluate on")
    if attack is not None and not isinstance(attack, Attack):
        raise UserError(
            f"the attack is a {type(attack).__name__}; give settings such as PGD(steps=20), or other code as "
            "External(call='MODULE:FUNCTION')"
        )


@torch.no_grad()
def head_gap(model: Classifier, x: Float[Tensor, "n c h w"]) -> float:
    """How far W g(x) + b is from what the network returns, as a share of its largest output.

    Infinite where the two cannot be compared. Both forward passes draw the same noise, if they draw any.
    """
    with full_precision(), evaluating(model), in_float32(model):
        with isolated_rng(0, x.device):
            g, _ = model.outputs(x)
        with isolated_rng(0, x.device):
            logits = model(x)
        some = logits.isfinite().all(dim=1)
        if bool(some.any()) and g.ndim == logits.ndim == 2:  # what is no number is said elsewhere
            g, logits = g[some], logits[some]
        W, b = model.head.weight, model.head.bias  # not its forward, which may be anything in a subclass
        return relative_difference(F.linear(g.to(W), W, b).float(), logits.float())


def head_of(model: Classifier, x: Float[Tensor, "n c h w"]) -> tuple[Head, tuple[str, ...]]:
    """The head, checked on some images in [0, 1], and what a reader of C and CAS must know of it."""
    layer, said = getattr(model, "head_name", "head"), tuple(getattr(model, "head_warnings", ()))
    gap = head_gap(model, x)
    matches = gap <= ROUNDING
    if gap == inf and not said:
        said = (f"no output is finite, to be compared with W g(x) + b of the layer '{layer}'",)
    elif not matches and not said:
        said = (
            f"the logits are not W g(x) + b of the layer '{layer}' (a softmax, a scale, a second head?): C "
            "and CAS do not explain them",
        )
    return Head(layer=layer, matches_logits=matches), said


def _unlike(g: Float[Tensor, "n d"], layer: nn.Linear, logits: Float[Tensor, "n k"]) -> int:
    """Of how many images the logits are not W g(x) + b; those that are no number are not counted."""
    far = (F.linear(g.to(layer.weight), layer.weight, layer.bias) - logits).float().abs().amax(dim=1)
    size = logits.float().abs().amax().clamp(min=1e-12)
    return int((far > ROUNDING * size).sum())  # false where either is NaN


def relative_difference(a: Float[Tensor, "n k"], b: Float[Tensor, "n j"]) -> float:
    """Largest difference as a share of the largest output b; infinite if they are not comparable."""
    if a.shape != b.shape or not bool(a.isfinite().all() & b.isfinite().all()):
        return inf
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def accuracy(predictions: Int[Tensor, " n"], labels: Classes) -> float:
    """Fraction in [0, 1]; a prediction of -1 (no number) is wrong."""
    predictions = require_predictions(predictions)
    if not len(predictions):
        raise UserError("there are no images, so there is no accuracy")
    return float((predictions == whole_labels(labels, len(predictions))).double().mean())


def classwise(predictions: Int[Tensor, " n"], labels: Classes, k: int) -> list[float | None]:
    """Accuracy of each class; None for a class without images."""
    labels = whole_labels(labels, len(require_predictions(predictions)))
    require_labels(labels, k)
    n, right = (torch.bincount(y, minlength=k).tolist() for y in (labels, labels[predictions == labels]))
    return [r / m if m else None for r, m in zip(right, n, strict=True)]


def confusion(predictions: Int[Tensor, " n"], labels: Classes, k: int) -> Int[Tensor, "k k"]:
    """Counts [true, predicted]; an output that is no number stands in no column."""
    labels = whole_labels(labels, len(require_predictions(predictions)))
    require_labels(labels, k)
    some = predictions != NO_CLASS
    return torch.bincount(labels[some] * k + predictions[some], minlength=k * k).view(k, k)


def _counts(predictions: Int[Tensor, " n"], k: int) -> Int[Tensor, " k"]:
    """How often each class is predicted."""
    return torch.bincount(predictions[predictions != NO_CLASS], minlength=k)


def no_number(e: EvaluationPass) -> str | None:
    """A warning if outputs are NaN or infinite: they count as wrong."""
    bad = int((e.robust == NO_CLASS).sum()), int((e.clean == NO_CLASS).sum())
    if not any(bad):
        return None
    of = f"{bad[0]:,} of {len(e.labels):,}" + (f" ({bad[1]} on the clean images)" if bad[0] != bad[1] else "")
    return f"{of} outputs are not finite; they count as wrong, and as no class"


def collapse(predictions: Int[Tensor, " n"], k: int) -> str | None:
    """A warning if the predictor is near-constant: it then maximises CAS, and CAS means nothing."""
    counts = _counts(predictions, k)
    share, used = float(counts.max()) / max(1, len(predictions)), int((counts > 0).sum())
    if used and collapsed(share, used, k):
        return (
            f"predictor collapsed: {share:.0%} of the images go to one class, {used} of {k} classes are "
            "predicted at all; CAS is meaningless here"
        )
    return None


def top_pairs(scores: Float[Tensor, "k k"], most: int) -> list[tuple[int, int]]:
    """The pairs of classes i < j with the largest scores, the largest first."""
    i, j = torch.triu_indices(len(scores), len(scores), offset=1)
    order = scores[i, j].argsort(descending=True, stable=True)[:most]
    return list(zip(i[order].tolist(), j[order].tolist(), strict=True))


def warnings(e: EvaluationPass, class_names: tuple[str, ...], *, of_collapse: bool = True) -> list[str]:
    """What a reader of the numbers must know: collapse, another head, empty classes, masked gradients.

    While a network is trained its alarms say a collapse (`of_collapse=False`).
    """
    out = [w for w in (no_number(e), collapse(e.robust, e.classes) if of_collapse else None) if w]
    out += e.head_warnings
    empty = attribution.empty_classes(e.means)
    drawn = torch.bincount(e.labels, minlength=e.classes) > 0
    for what, which in (
        ("no image was drawn of these classes, which C and CAS count as sharing nothing", ~drawn),
        ("classes without any attribution, counted as sharing nothing", drawn),
    ):
        if names := [class_names[i] for i in empty if which[i]]:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            out.append(f"{what}: {', '.join(names[:10])}{more}")
    if e.dead:
        out.append(
            f"the attack saw no usable gradient for {e.dead:,} of {len(e.labels):,} images, at all steps or "
            "at some: robust accuracy may be overstated (gradient masking)"
        )
    return out


def summary(e: EvaluationPass, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Everything that is known of one evaluation, as plain numbers under the names of a `Measurement`.

    Raises UserError unless there is a name for each class.
    """
    if len(class_names) < e.classes:
        raise UserError(f"{len(class_names)} class names are given for {e.classes} classes")
    matrices = {"C": rounded(e.C), "icas_matrix": rounded(e.icas_matrix)}
    matrices |= {"all_pairs_matrix": rounded(e.all_pairs_matrix), "confusion": e.confusion.tolist()}
    matrices |= {f"{kind}_matrix": rounded(e.invariants[kind].matrix) for kind in KINDS}
    if e.sharing is not None:
        matrices["sharing"] = e.sharing.tolist()
    return {
        "warnings": warnings(e, class_names),
        **{m.key: m.value(e) for m in METRICS},
        "classwise_clean": classwise(e.clean, e.labels, e.classes),
        "classwise_robust": classwise(e.robust, e.labels, e.classes),
        "empty_classes": attribution.empty_classes(e.means),
        "pairs": [
            Pair(i=i, j=j, classes=(class_names[i], class_names[j]), C=float(e.C[i, j]))
            for i, j in top_pairs(e.C, 10)
        ],
        "matrices": matrices,
    }


def epoch_metrics(e: EvaluationPass, part: Part) -> dict[str, int | float | None]:
    """The metrics that are computed after every epoch on this part, by their column in metrics.csv."""
    return {m.column(part): m.value(e) for m in METRICS if part in m.per_epoch}


def rounded(C: Float[Tensor, "k k"]) -> Matrix:
    """A matrix for JSON: six decimals, three more than anyone plots."""
    return [[round(v, 6) for v in row] for row in C.tolist()]
