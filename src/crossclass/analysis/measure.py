"""A model, a split and an attack in; plain numbers with their conditions and intervals out.

One adversarial pass serves every number: accuracy, confusion, C, CAS, I-CAS, and what is resampled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal, overload

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from crossclass import models
from crossclass.analysis import compare, evaluate, intervals, network_faults, pictures, settle_inputs
from crossclass.analysis.attack_strength import strength_warnings
from crossclass.analysis.description import description
from crossclass.analysis.evaluate import EvaluationPass
from crossclass.analysis.input_alternatives import clean_sample
from crossclass.analysis.metrics import METRICS
from crossclass.analysis.records import (
    CheckpointRef,
    Comparison,
    Intervals,
    Measurement,
    PerImage,
    ResultFile,
    Saliency,
    result_file,
)
from crossclass.attacks import PGD, AnyAttack, Attack, reference_attack
from crossclass.attacks.attack_warnings import attack_warnings
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.checkpoints.in_memory import from_memory, in_python
from crossclass.checkpoints.load import (
    Identity,
    LoadedCheckpoint,
    Source,
    checkpoint_files,
    load_checkpoints,
)
from crossclass.core.calls import bind
from crossclass.core.config import Settings
from crossclass.core.errors import UserError
from crossclass.core.overrides import Changes, override
from crossclass.core.progress import Progress, shown, silent
from crossclass.core.runtime import Runtime
from crossclass.core.torch_state import usual_torch_state
from crossclass.core.trust import trusting
from crossclass.data import Split, Splits
from crossclass.data.image_warnings import image_warnings
from crossclass.models.model_state import evaluating


class Measure(Settings):
    """How a checkpoint is measured."""

    attack: AnyAttack | None = None
    """Unset: the reference attack (PGD-20) in the perturbations of the training, and in l_inf 8/255 too where
    those differ."""
    attack_changes: dict[str, Any] = Field(default={})
    """Changes of the reference attack by path, such as `{"steps": 50, "threat.eps": 4 / 255}` or
    `{"kind": "fgsm"}`; where no threat is given, that of the training is kept. Not with `attack`."""
    clean: bool = False
    """Measure on clean images only."""
    attribution_subset: Literal["all", "correct"] = "all"
    """Attributions of all (adversarial) images, as in the paper, or of the correctly classified ones."""
    split: str = "test"
    """The part of the data: test, val or train."""
    n: int | None = Field(default=None, ge=1)
    """Images of the split, drawn by `seed`: one of each class, the others in the shares of the classes there;
    unset is all."""
    balanced: bool = True
    """False takes the first n images instead, in the order of the files."""
    seed: int = Field(default=0, ge=0)
    """Of the subset and of the attack's random start."""
    batch: int = Field(default=250, ge=1)
    """Images that are evaluated at once."""
    check_inputs: bool = True
    """Try other ways to feed a network where nobody says its normalisation or the order of channels and
    classes; false takes what is usual."""
    saliency: int = Field(default=0, ge=0, le=48)
    """Samples in the grid of Grad-CAM maps of two checkpoints; 0 draws none."""
    images: int = Field(default=10, ge=0, le=48)
    """At most so many of the images are kept beside the result file, for its page; 0 keeps none."""

    @model_validator(mode="after")
    def _one_attack(self) -> "Measure":
        if self.attack is not None and self.attack_changes:
            raise ValueError("give a whole attack, or changes of the reference attack")
        return self

    def attacks(self, threats: Sequence[AnyThreat]) -> list[AnyAttack | None]:
        """The attacks for a checkpoint with these default perturbations; None is clean images."""
        if self.clean:
            return [None]
        if self.attack is not None:
            return [self.attack]
        if not self.attack_changes:
            return [reference_attack(threat) for threat in threats]
        return [changed_attack(threats[0], self.attack_changes)]


class _Attacked(Settings):
    attack: AnyAttack


def changed_attack(threat: AnyThreat, changes: Changes) -> AnyAttack:
    """The reference attack with some settings changed; a changed threat brings its own usual step.

    Raises UserError for an unknown setting or a value out of range.
    """
    paths = {f"attack.{path}": value for path, value in changes.items()}
    kind = paths.pop("attack.kind", None)
    of_threat = {path: paths.pop(path) for path in list(paths) if path.startswith("attack.threat")}
    reference = override(_Attacked(attack=reference_attack(threat)), of_threat)
    assert isinstance(reference.attack, PGD)
    start = _Attacked(attack=reference_attack(reference.attack.threat))
    if kind not in (None, "pgd"):
        start = override(start, {"attack.kind": kind})
        if hasattr(start.attack, "threat"):
            start = override(start, {"attack.threat": reference.attack.threat})
    return override(start, paths).attack


def _images(splits: Splits, settings: Measure) -> Split:
    """The images that are measured."""
    return splits.part(settings.split).drawn(settings.n, settings.seed, settings.balanced, proportional=True)


def evaluate_checkpoint(
    model: models.Classifier,
    splits: Splits,
    attack: AnyAttack | None,
    settings: Measure,
    runtime: Runtime,
    progress: Progress = silent,
    *,
    keep: Tensor | None = None,
) -> EvaluationPass:
    """The one pass over the images that every number comes from; `keep` are the images to keep."""
    part, done = _images(splits, settings), 0
    noticed = _setting_warnings(part, splits, attack, settings)

    def advance(count: int) -> None:
        nonlocal done
        done += count * runtime.group.size  # the others do as much
        progress("measure", min(done, len(part)), len(part))

    evaluation = evaluate.evaluate(
        model,
        part,
        attack,
        settings.seed,
        batch=settings.batch,
        memory_format=runtime.memory_format,
        advance=advance,
        keep=_kept(part, settings) if keep is None else keep,
        distributed_map=runtime.group.map,
    )
    correct_only = settings.attribution_subset == "correct"
    used = evaluation.robust == evaluation.labels if correct_only else None
    noticed += strength_warnings(model, part, attack, settings.seed, runtime.memory_format, settings.batch)
    return replace(evaluation, sharing=splits.sharing, used=used, warnings=(*evaluation.warnings, *noticed))


def _kept(part: Split, settings: Measure) -> Tensor | None:
    """Whose images are kept: all for the maps of `saliency`, else a few for the page."""
    if settings.saliency:
        return torch.arange(len(part))
    n = pictures.room_for(part.images, settings.images)
    return pictures.chosen(part.labels, n) if settings.images else None


def _setting_warnings(part: Split, splits: Splits, attack: AnyAttack | None, settings: Measure) -> list[str]:
    """Settings that mean something else than they seem; raises UserError where nothing can be meant."""
    out = [] if attack is None else attack_warnings(attack, part.images.shape[1:], evaluation=True)
    if settings.n is not None and settings.n > (there := len(splits.part(settings.split))):
        out.append(f"n={settings.n} is more than there are: all {there} {settings.split} images are measured")
    return [*out, *image_warnings(splits, settings.split)]


def measurement(
    evaluation: EvaluationPass,
    who: Identity,
    splits: Splits,
    attack: AnyAttack | None,
    settings: Measure,
    fed: settle_inputs.Settled | None = None,
) -> Measurement:
    """The record of one checkpoint under one attack: its numbers and their conditions (`description`)."""
    numbers = evaluate.summary(evaluation, splits.class_names)
    about = description(evaluation, who, splits, attack, settings, fed)
    ends = {m.key: m.interval(evaluation) for m in METRICS if m.interval is not None}
    doubt = intervals.doubt(ends["cas"])
    numbers["warnings"] = [*about.warnings, *([doubt] if doubt else [])]
    found = {
        "intervals": Intervals(
            **{key: intervals.finite_ends(i) for key, i in ends.items()},
            level=intervals.LEVEL,
            method=intervals.METHOD,
            bias={key: i.bias for key, i in ends.items() if i.bias},
        ),
        "pictures": pictures.pictures(evaluation, _images(splits, settings), splits, settings.images),
        "per_image": PerImage(*(tuple(getattr(evaluation, k).tolist()) for k in PerImage._fields)),
    }
    return about.model_copy(update={**found, **numbers})


Draw = Callable[[compare.SaliencyMaps, str], str]
"""Draws the maps of a comparison, whose name tells it from the others of the same file; the file's name."""


@dataclass(frozen=True)
class _Measured:
    """What is kept of a measured checkpoint until it has been compared."""

    loaded: LoadedCheckpoint
    attack: AnyAttack | None
    evaluation: EvaluationPass
    result: Measurement


@overload
def measure(
    model: nn.Module,
    images: Any,
    labels: Any,
    attack: AnyAttack | None = ...,
    *,
    class_names: Sequence[str] | None = None,
    normalise: models.Constants | None = None,
    head: str | None = None,
    name: str = "",
    settings: Measure = ...,
    progress: Progress | bool | None = None,
) -> Measurement: ...
@overload
def measure(
    targets: Sequence[str],
    settings: Measure = ...,
    source: Source = ...,
    runtime: Runtime | None = None,
    progress: Progress | bool | None = None,
    *,
    trust: bool = False,
    allow_partial: bool = False,
    draw: Draw | None = None,
) -> ResultFile: ...
def measure(*given: Any, **more: Any) -> Any:
    """Measure a network in memory, or checkpoints: accuracies, C and CAS with their intervals and warnings.

        measure(model, images, labels, attack=PGD(steps=20)) -> Measurement
        measure(["runs/NAME", "best.pth"], Measure(n=500)) -> ResultFile

    A network in memory:

    Args:
        model: Any module that ends in a linear layer and takes images in [0, 1], or a `Classifier`. It may be
            on any device and in any mode, and is left as it was.
        images: A tensor or array, uint8 in 0..255 or float in [0, 1]; [n, c, h, w], or [n, h, w, c] with one
            or three channels. They are measured with 8 bits.
        labels: Whole numbers [n] in 0, ..., K-1.
        attack: Settings such as `PGD(steps=50)`; unset is PGD-20 in l_inf 8/255, None measures clean images.
        class_names: A name for each class.
        normalise: What is done to the images before the module gets them: a name such as `cifar10`, or (mean,
            std) per channel; unset is nothing. Where another way is clearly better, a warning says so.
        head: The name of the linear layer; unset is the one that gives the logits.
        name: What the network is called in the result; unset is its class.
        settings: Number of images, seed, batch; see `Measure`.
        progress: A function, or whether to show a bar; unset shows one to a person who watches.

    Checkpoints:

    Args:
        targets: Files and run folders (`RUN` is its best and last checkpoint, `RUN@best.test` selects).
        settings: The attack, the images and their number.
        source: The network and the images of foreign files, and changes of the images of runs.
        runtime: Device, threads and processes.
        progress: As above.
        trust: Read pickles and import code that files name; both can run code.
        allow_partial: Leave weights that a file lacks at random values.
        draw: Given the saliency maps of a comparison if `settings.saliency` asks for them.

    Returns:
        Of a network one `Measurement`: `result["robust"]`, `result["cas"]`, `result.C` (an array [K, K]),
        `result.intervals`, `result.warnings`, `result.per_image.correct_robust`. Of checkpoints a
        `ResultFile`: one measurement per checkpoint and attack, and a comparison (first minus second) where
        two were measured on the same images.

    Raises:
        UserError: The network, a file, a setting or the images are not as they must be.

    Example:
        measure(["best.pth"], Measure(n=500), Source(data=Npz(path="data"))).results[0]["cas"]
    """
    first = given[0] if given else more.get("model", more.get("targets"))
    of: Any = measure_network if isinstance(first, nn.Module) else measure_checkpoints
    bound = bind(of, given, more, _MEANT)
    with shown(bound.arguments.get("progress")) as bound.arguments["progress"]:
        return of(*bound.args, **bound.kwargs)


_REFERENCE = reference_attack(Linf())
_MEANT = {
    "eps": "attack=PGD(threat=Linf(eps=4 / 255))",
    "steps": "attack=PGD(steps=50)",
    "norm": "attack=PGD(threat=L2(eps=0.5))",
    "threat": "attack=PGD(threat=Linf(eps=4 / 255))",
    **{name: f"settings=Measure({name}=...)" for name in Measure.model_fields},
    "attack": "settings=Measure(attack=PGD(steps=50))",
    "data": "source=Source(data=Npz(path='DIR'))",
    "model": "source=Source(model=PreActResNet())",
    "device": "runtime=Runtime(device='cpu') for checkpoints; a network is measured where it is",
}
"""What to give instead of arguments that one would try."""


@usual_torch_state()
def measure_network(
    model: nn.Module,
    images: Any,
    labels: Any,
    attack: AnyAttack | None = _REFERENCE,
    *,
    class_names: Sequence[str] | None = None,
    normalise: models.Constants | None = None,
    head: str | None = None,
    name: str = "",
    settings: Measure = Measure(),
    progress: Progress = silent,
) -> Measurement:
    """Measure a network in memory; see `measure`."""
    if settings.attack is not None or settings.attack_changes or settings.clean or settings.split != "test":
        raise UserError("give the attack as attack=..., None for clean images; these images are the split")
    if not isinstance(attack, Attack | None):
        raise UserError(
            f"the attack is a {type(attack).__name__}; give settings such as PGD(steps=20), or None"
        )
    try:
        one = from_memory(model, images, labels, class_names, normalise, head, name)
        with evaluating(model):
            runtime = Runtime(device=one.splits.test.images.device.type, layout="contiguous")
            fed = settled(one, [attack], settings)
            evaluation = evaluate_checkpoint(one.model, one.splits, attack, settings, runtime, progress)
            result = measurement(evaluation, one.about, one.splits, attack, settings, fed)
    except UserError as e:
        raise UserError(in_python(str(e))) from None
    return result.model_copy(update={"warnings": [in_python(w) for w in result.warnings]})


@usual_torch_state()
def measure_checkpoints(
    targets: Sequence[str],
    settings: Measure = Measure(),
    source: Source = Source(),
    runtime: Runtime | None = None,
    progress: Progress = silent,
    *,
    trust: bool = False,
    allow_partial: bool = False,
    draw: Draw | None = None,
) -> ResultFile:
    """Measure checkpoints; see `measure`."""
    several = isinstance(targets, list | tuple)
    if not several or any(not isinstance(target, str | PathLike) for target in targets):
        raise UserError(
            "measure takes a list of run folders and files, such as ['best.pth'], or a network with images "
            "and labels: measure(model, images, labels)"
        )
    runtime = runtime or Runtime()
    if settings.saliency and len(checkpoint_files(targets)) < 2:
        raise UserError(_NO_PAIR)
    every: list[_Measured] = []
    progress("read the checkpoint", 0, 1)
    with trusting(everything=trust):
        for read in load_checkpoints(targets, source, runtime, allow_partial=allow_partial):
            attacks = settings.attacks(read.threats)
            fed = settled(read, attacks, settings)
            one = fed.loaded
            for attack in attacks:
                evaluation = evaluate_checkpoint(one.model, one.splits, attack, settings, runtime, progress)
                result = measurement(evaluation, one.about, one.splits, attack, settings, fed)
                every.append(_Measured(one, attack, evaluation, result))
    pairs = _comparable(every)
    if settings.saliency and not pairs:
        raise UserError(_NO_PAIR)
    comparisons = [
        # drawing writes a file, which is the first process's task
        runtime.group.on_main_process(lambda: _comparison(a, b, settings, draw, len(pairs) > 1))  # noqa: B023
        for a, b in pairs
    ]
    return result_file([one.result for one in every], comparisons)


def settled(
    one: LoadedCheckpoint, attacks: Sequence[AnyAttack | None], settings: Measure
) -> settle_inputs.Settled:
    """The checkpoint with what was guessed about its inputs put right, as far as the settings allow."""
    if not settings.check_inputs:
        return settle_inputs.Settled(one, one.warnings)
    n = min(settings.n or len(one.splits.part(settings.split)), len(one.splits.part(settings.split)))
    fed = settle_inputs.settle(one, settings.split, attacks, n, seed=settings.seed, batch=settings.batch)
    if fed.check is None:
        return fed  # a run on its own data
    few = clean_sample(one.splits.part(settings.split), network_faults.IMAGES, settings.seed)
    # with inputs that it does not want, statistics of batch norm look stale: that is said by what was named
    as_it_wants = not fed.warnings or fed.check.taken != fed.check.as_loaded
    said = network_faults.network_warnings(fed.loaded.model, *few, statistics=as_it_wants)
    return replace(fed, warnings=(*one.warnings, *fed.warnings, *said))


_NO_PAIR = "saliency compares two checkpoints on the same images; give two, or a run with best and last"


def _comparable(every: Sequence[_Measured]) -> list[tuple[_Measured, _Measured]]:
    """The two checkpoints under each attack that both were measured with."""
    alike: dict[str, list[_Measured]] = {}
    for one in every:
        alike.setdefault(f"{one.result.attack} {one.loaded.splits.checksum}", []).append(one)
    pairs = [(pair[0], pair[1]) for pair in alike.values() if len(pair) == 2]
    return [(a, b) for a, b in pairs if not _same(a.result.checkpoint, b.result.checkpoint)]


def _same(a: CheckpointRef, b: CheckpointRef) -> bool:
    """Best and last of a run may be one checkpoint, which differs in nothing from itself."""
    return bool(a.run) and (a.run, a.epoch) == (b.run, b.epoch)


def _comparison(
    a: _Measured, b: _Measured, settings: Measure, draw: Draw | None, several: bool
) -> Comparison:
    """The comparison, with the saliency maps that the settings ask for; `several` are drawn for one file."""
    out = compare.comparison(a.result, b.result, (a.evaluation, b.evaluation))
    if not settings.saliency or draw is None:
        return out
    part = _images(a.loaded.splits, settings)
    first, second = (out.a, a.loaded.model, a.evaluation), (out.b, b.loaded.model, b.evaluation)
    at, names = "adversarial images" if a.result.attacked else "clean images", a.loaded.splits.class_names
    result = compare.saliency_between(first, second, part, names, settings.saliency, at)
    if result is None:
        return out
    numbers, maps = result
    threat = getattr(a.attack, "threat", None)
    name = f"{threat.kind}-{round(255 * threat.eps, 2):g}" if several and threat is not None else ""
    return out.model_copy(update={"saliency": Saliency(grid=draw(maps, name), **numbers)})
