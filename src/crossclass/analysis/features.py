"""Features one by one: which classes share them, which were forgotten, on which images they are strong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from pydantic import Field, field_validator
from torch import Tensor

from crossclass.analysis import feature_shares as by_feature, pictures
from crossclass.analysis.attribution import cas, correlation
from crossclass.analysis.description import description
from crossclass.analysis.evaluate import EvaluationPass
from crossclass.analysis.feature_images import SheetRow, sheet_rows
from crossclass.analysis.feature_records import (
    Feature,
    FeatureFile,
    FeatureOfClass,
    PartOfFeature,
    PlantedParts,
    Why,
)
from crossclass.analysis.measure import Measure, evaluate_checkpoint, settled
from crossclass.analysis.planted_parts import FoundParts, found_parts
from crossclass.analysis.records import Measurement
from crossclass.checkpoints.load import LoadedCheckpoint, Source, checkpoint_files, load_checkpoints
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.progress import Progress, silent
from crossclass.core.runtime import Runtime
from crossclass.core.torch_state import usual_torch_state
from crossclass.core.trust import trusting
from crossclass.data.base import Planted

KEPT_BYTES = 2**30
"""Adversarial images in float32 that are kept to choose from."""
SHOWN_CLASSES = 3
"""On the sheet a feature is shown for at most so many classes."""


class Features(Measure):
    """Which features are looked at, and on which images."""

    pair: tuple[str, str] | None = None
    """Two classes, such as automobile,truck: the features that carry their entry of C."""
    top: int = Field(default=12, ge=1)
    """So many features of each sort."""
    images: int = Field(default=6, ge=0, le=24)
    """Images of each class on the sheet; 0 draws none."""

    @field_validator("pair", mode="before")
    @classmethod
    def _two(cls, value: object) -> object:
        if value is None:
            return None
        names = value.split(",") if isinstance(value, str) else value
        if (
            not isinstance(names, list | tuple)
            or len(names) != 2
            or not all(isinstance(n, str) for n in names)
        ):
            raise ValueError("is two classes with a comma between them, such as automobile,truck")
        return tuple(name.strip() for name in names)


@dataclass(frozen=True)
class _Seen:
    loaded: LoadedCheckpoint
    evaluation: EvaluationPass
    result: Measurement


@usual_torch_state()
def features(
    targets: Sequence[str],
    settings: Features = Features(),
    source: Source = Source(),
    runtime: Runtime | None = None,
    progress: Progress = silent,
    *,
    trust: bool = False,
    allow_partial: bool = False,
    draw: Callable[[list[SheetRow], FeatureFile], str] | None = None,
) -> FeatureFile:
    """The features of one checkpoint, or those that were forgotten between two of one run.

    Args:
        targets: One checkpoint, or two; a run folder is its best and last.
        settings: The pair of classes, how many features, the attack and the images.
        source: The network and the images of foreign files.
        runtime: Device and threads.
        progress: Called with how many images are done.
        trust: Read pickles and import code that files name; both can run code.
        allow_partial: Leave weights that a file lacks at random values.
        draw: Draws the sheet and returns the name of its file; none draws nothing.

    Returns:
        The features with their numbers.

    Raises:
        UserError: for more than two checkpoints, two networks of other shapes, a class that does not exist,
            and more features than there are.
    """
    runtime = runtime or Runtime()
    if len(checkpoint_files(targets)) > 2:
        raise UserError("features looks at one checkpoint, or compares two; give no more than two")
    seen: list[_Seen] = []
    progress("read the checkpoint", 0, 1)
    with trusting(everything=trust):
        for read in load_checkpoints(targets, source, runtime, allow_partial=allow_partial):
            _require_there(read, settings)
            seen.append(_look_at(read, settings, runtime, progress, with_images=not seen))
    if len(seen) == 2 and seen[0].result.checkpoint.sha256 == seen[1].result.checkpoint.sha256:
        seen = seen[:1]  # best and last of a run may be one
    _require_comparable(seen)
    file = _file(seen, settings)
    if draw is None or not settings.images:
        return file
    rows, note = _sheet(seen, file, settings)
    if note:
        file = file.model_copy(update={"warnings": (*file.warnings, note)})
    if not rows:
        return file
    # drawing writes a file, which is the first process's task
    sheet = runtime.group.on_main_process(lambda: draw(rows, file))
    return file.model_copy(update={"sheet": sheet})


def _look_at(
    read: LoadedCheckpoint, settings: Features, runtime: Runtime, progress: Progress, *, with_images: bool
) -> _Seen:
    attacks = settings.attacks(read.threats)[:1]
    fed = settled(read, attacks, settings)
    part = fed.loaded.splits.part(settings.split).drawn(
        settings.n, settings.seed, settings.balanced, proportional=True
    )
    room = max(1, KEPT_BYTES // (4 * part.images[0].numel()))
    keep = pictures.chosen(part.labels, min(room, len(part)) if settings.images and with_images else 0)
    evaluation = evaluate_checkpoint(
        fed.loaded.model, fed.loaded.splits, attacks[0], settings, runtime, progress, keep=keep
    )
    about = description(evaluation, fed.loaded.about, fed.loaded.splits, attacks[0], settings, fed)
    return _Seen(fed.loaded, evaluation, about)


def _require_there(read: LoadedCheckpoint, settings: Features) -> None:
    """Raise UserError before the attack for features and classes that the network does not have."""
    d, names = read.model.head.weight.shape[1], read.splits.class_names
    if settings.top > d and settings.top != Features.model_fields["top"].default:  # nobody asked for 12
        raise UserError(
            f"top={settings.top} is more than the {d} features of the network; give top={d} or less"
        )
    for name in settings.pair or ():
        if name not in names:
            raise UserError(f"pair: there is no class '{name}'{did_you_mean(name, names)}")
    if settings.pair and settings.pair[0] == settings.pair[1]:
        raise UserError("pair needs two different classes, such as pair=automobile,truck")
    if settings.saliency:
        raise UserError("saliency belongs to measure; features draws a sheet of its own, of images=N images")


def _require_comparable(seen: Sequence[_Seen]) -> None:
    first = seen[0]
    k, d = first.evaluation.W.shape
    if len(seen) == 2:
        other = tuple(seen[1].evaluation.W.shape)
        if other != (k, d):
            raise UserError(
                f"the checkpoints have {k} and {other[0]} classes, {d} and {other[1]} features; features are "
                "compared between two checkpoints of one run"
            )
        if first.result.data.checksum != seen[1].result.data.checksum:
            raise UserError("the checkpoints are measured on different images; give data.path= for both")


def _file(seen: Sequence[_Seen], settings: Features) -> FeatureFile:
    first = seen[0]
    names = first.result.class_names
    A = [one.evaluation.means for one in seen]
    C = [correlation(a).nan_to_num(0.0) for a in A]
    shares = [by_feature.feature_shares(a) for a in A]
    pair = None if settings.pair is None else (names.index(settings.pair[0]), names.index(settings.pair[1]))
    of_pair = None if pair is None else [by_feature.pair_shares(a, *pair) for a in A]
    lost = by_feature.forgotten(A[0], A[1]) if len(A) == 2 else None
    chosen = _chosen(settings.top, shares, of_pair, lost)
    low, high = by_feature.share_intervals(*first.evaluation.attributed)
    lost_ends = None
    if lost is not None and all(one.evaluation.used is None for one in seen):
        both = [(one.evaluation.features, one.evaluation.W) for one in seen]
        lost_ends = by_feature.forgotten_intervals(both[0], both[1], first.evaluation.labels)
    planted = first.loaded.splits.planted
    found = _found_parts(first, settings)
    rows = [
        Feature(
            k=k,
            why=why,
            share=float(shares[0].share[k]),
            share_interval=_ends(low, high, k),
            effective_classes=float(shares[0].effective_classes[k]),
            mass=float(shares[0].mass[k]),
            pair=None if of_pair is None else float(of_pair[0][k]),
            share_second=float(shares[1].share[k]) if lost is not None else None,
            pair_second=float(of_pair[1][k]) if of_pair is not None and lost is not None else None,
            lost=None if lost is None else float(lost.share[k]),
            lost_interval=None if lost_ends is None else _ends(*lost_ends, k),
            classes=tuple(_classes(A, k, names)),
            parts=_parts_of(found, k, names, planted),
        )
        for k, why in chosen.items()
    ]
    return FeatureFile(
        crossclass=version("crossclass"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=tuple(_warnings(seen)),
        checkpoints=[one.result.checkpoint for one in seen],
        data=first.result.data,
        attack=first.result.attack,
        conditions=first.result.conditions,
        class_names=tuple(names),
        pair=settings.pair,
        pair_cosine=None if pair is None else [float(c[pair]) for c in C],
        cas=[cas(c) for c in C],
        robust=[one.evaluation.accuracy("robust") for one in seen],
        changed_sign=None if lost is None else lost.changed_sign,
        width=len(shares[0].share),
        dead=int((shares[0].mass == 0).sum()),
        half=by_feature.half_of_sharing(shares[0]),
        planted=None if found is None else _summary(found),
        features=rows,
    )


def _found_parts(one: _Seen, settings: Features) -> FoundParts | None:
    """Features against planted parts, where it is known how strongly each image shows each."""
    planted, part = one.loaded.splits.planted, one.loaded.splits.part(settings.split)
    strengths = None if planted is None else planted.strengths.get(settings.split)
    if planted is None or strengths is None or len(strengths) != len(part):
        return None
    index = (
        torch.arange(len(part))
        if settings.n is None
        else part.sample(settings.n, settings.seed, settings.balanced, proportional=True)
    )
    return found_parts(one.evaluation.features, strengths[index], one.evaluation.labels, planted.shows)


def _summary(found: FoundParts) -> PlantedParts:
    return PlantedParts(
        pure=int(found.pure.sum()),
        mixed=int(found.mixed.sum()),
        dead=int(found.dead.sum()),
        parts=len(found.found),
        parts_found=int((found.found > 0).sum()),
    )


def _parts_of(
    found: FoundParts | None, k: int, names: Sequence[str], planted: Planted | None
) -> tuple[PartOfFeature, ...]:
    if found is None or planted is None:
        return ()
    return tuple(
        PartOfFeature(
            part=p,
            classes=tuple(name for name, own in zip(names, planted.shows, strict=False) if p in own),
            response=float(found.response[k, p]),
            share=float(found.share[k, p]),
        )
        for p in by_feature.largest(found.share[k], 3)
    )


def _chosen(
    top: int,
    shares: Sequence[by_feature.FeatureShares],
    of_pair: Sequence[Tensor] | None,
    lost: by_feature.Forgotten | None,
) -> dict[int, list[Why]]:
    """The features to name, and why: those of a pair; else forgotten, shared and specific ones."""
    orders: dict[Why, list[int]] = {}
    if of_pair is not None:
        if len(of_pair) == 2:
            carried = torch.where(of_pair[0] > 0, of_pair[0] - of_pair[1], 0.0)
            orders["pair forgotten"] = by_feature.largest(carried, top)
        orders["pair"] = by_feature.largest(of_pair[0], top)
    else:
        if lost is not None:
            orders["forgotten"] = by_feature.largest(lost.share, top)
        orders["shared"] = by_feature.largest(shares[0].share, top)
        heavy = (shares[0].mass >= shares[0].mass.median()) & (shares[0].mass > 0)
        heavy[orders["shared"]] = False
        few = torch.where(heavy, 1 / shares[0].effective_classes.clamp(min=1), 0.0)
        orders["specific"] = by_feature.largest(few, top)
    out: dict[int, list[Why]] = {}
    for why, order in orders.items():
        for k in order:
            out.setdefault(k, []).append(why)
    return out


def _classes(A: Sequence[Tensor], k: int, names: Sequence[str]) -> list[FeatureOfClass]:
    order = A[0][:, k].argsort(descending=True)[:5].tolist()
    second = A[1] if len(A) == 2 else None
    return [
        FeatureOfClass(name=names[i], a=float(A[0][i, k]), b=None if second is None else float(second[i, k]))
        for i in order
    ]


def _ends(low: Tensor, high: Tensor, k: int) -> tuple[float, float] | None:
    ends = float(low[k]), float(high[k])
    return ends if all(map(torch.isfinite, (low[k], high[k]))) else None


def _warnings(seen: Sequence[_Seen]) -> list[str]:
    several = len(seen) == 2
    out = []
    for one in seen:
        out += [f"{one.result.checkpoint.name}: {w}" if several else w for w in one.result.warnings]
    runs = {one.result.checkpoint.run for one in seen}
    if several and (len(runs) > 1 or "" in runs):
        out.append(
            "features are compared by their number, and only in two checkpoints of one run is feature k the "
            "same; nobody says that these are of one run"
        )
    return out


def _sheet(seen: Sequence[_Seen], file: FeatureFile, settings: Features) -> tuple[list[SheetRow], str]:
    """The images of each class that shares a feature on which it adds most, with the feature's map."""
    first = seen[0].evaluation
    assert first.kept is not None
    names, total = file.class_names, len(first.labels)
    wanted = [
        (feature.k, names.index(name))
        for feature in _on_the_sheet(file, settings.top)
        for name in _shown_classes(feature, file.pair)
    ]
    try:
        rows = sheet_rows([(s.loaded.model, s.evaluation) for s in seen], wanted, names, settings.images)
    except UserError as e:
        return [], f"no sheet is drawn, because the network shows no map of the image: {e}"
    planted = seen[0].loaded.splits.planted
    if planted is not None:
        of = {
            f.k: planted.parts[f.parts[0].part].cpu()
            for f in file.features
            if f.parts and f.parts[0].response > 0
        }
        rows = [replace(row, part=of.get(row.k)) for row in rows]
    missing = len(first.kept) < total
    return rows, f"the sheet chooses from {len(first.kept)} of {total} images" if missing else ""


def _on_the_sheet(file: FeatureFile, top: int) -> list[Feature]:
    """At most `top` features: what was forgotten, or the pair's, or half of them shared and half specific."""
    first: list[Why] = ["pair forgotten", "forgotten", "pair"]
    for why in first:
        if some := [f for f in file.features if why in f.why]:
            return some
    halves: list[Why] = ["shared", "specific"]
    return [f for why in halves for f in [f for f in file.features if why in f.why][: -(-top // 2)]]


def _shown_classes(feature: Feature, pair: tuple[str, str] | None) -> list[str]:
    if pair is not None:
        return list(pair)
    largest = max(c.a for c in feature.classes)
    least = 0.25 * largest
    return [c.name for c in feature.classes if c.a > 0 and c.a >= least][:SHOWN_CLASSES]
