"""`measure` beside `doctor` on networks with known defects: python benchmarks/defects.py [CIFAR10 RESNET20].

Without arguments networks are trained on Shapes and Digits, within a minute or two. CIFAR10 is a folder with
train.npz and test.npz, RESNET20 the state dict (npz or pt) of akamaster/pytorch_resnet_cifar10; that network
is then tried instead. Writes benchmarks/results/defects.md or defects-cifar10.md: a row for each network with
the accuracies that are right and those that `measure` gives, whether `measure` says something beside the
number, and the doctor's verdict.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossclass import models
from crossclass.analysis.measure import Measure, measure
from crossclass.attacks import PGD
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.load import Source, load_checkpoints
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.core.trust import trusting
from crossclass.data import Digits, Npz, Shapes, Split, Splits, as_float
from crossclass.diagnostics import Doctor, examine, verdict
from crossclass.training.loop import train as train_run
from crossclass.training.recipes import Standard
from crossclass.training.run import Run, Validation

RESULTS = Path(__file__).parent / "results"
CPU = Runtime(device="cpu")
TOLERANCE = 0.02
"""An accuracy that differs from the right one by more is a wrong number."""
IMAGENET = models.statistics()["imagenet"]
MEANS = torch.tensor([103.939, 116.779, 123.68])[:, None, None]
"""Of blue, green and red in 0..255, as Caffe and Keras subtract them."""
State = dict[str, Tensor]
Function = Callable[[Tensor], Tensor]

# ---------------------------------------------------------------- networks


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10 with option A shortcuts (He et al. 2016; akamaster/pytorch_resnet_cifar10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        planes = 16
        for i, width in enumerate((16, 32, 64), 1):
            blocks = [OptionA(planes if b == 0 else width, width) for b in range(3)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
            planes = width
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3)))


class OptionA(nn.Module):
    """A basic block whose shortcut subsamples and pads with zeros."""

    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__()
        self.stride, self.pad = (1, 0) if inputs == planes else (2, (planes - inputs) // 2)
        self.conv1 = nn.Conv2d(inputs, planes, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad)))


class Plain(nn.Module):
    """Three convolutions with batch norm, mean pooling, a linear head."""

    def __init__(self, channels: int, classes: int, width: int = 24) -> None:
        super().__init__()
        sizes = (channels, width, 2 * width, 2 * width)
        self.body = nn.Sequential()
        for i, (a, b) in enumerate(pairwise(sizes)):
            self.body += nn.Sequential(nn.Conv2d(a, b, 3, 1 + (i > 0), 1), nn.BatchNorm2d(b), nn.ReLU())
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(dim=(2, 3)))


class Ill(nn.Module):
    """A network behind and before a function; `training` are parts that never leave train mode."""

    def __init__(self, net: nn.Module, before: Function, after: Function, stuck: bool = False) -> None:
        super().__init__()
        self.net, self.before, self.after, self.stuck = net, before, after, stuck

    def train(self, mode: bool = True) -> "Ill":
        return super().train(mode or self.stuck)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


def normalised(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in IMAGENET)
    return (x - mean) / std


BEFORE: dict[str, Function] = {
    "normalises itself": normalised,
    "divides by 255": lambda x: normalised(x / 255),
    "wants [-1, 1]": lambda x: normalised((x + 1) / 2),
    "wants BGR": lambda x: x.flip(1),
    "wants rows for columns": lambda x: x.transpose(2, 3),
    "wants GRB": lambda x: x[:, [1, 0, 2]],
    "wants inverted images": lambda x: 1 - x,
    "wants mirrored images": lambda x: x.flip(3),
    "wants turned images": lambda x: x.transpose(2, 3).flip(3),
    "wants BGR minus the mean": lambda x: normalised((x.flip(1) + MEANS) / 255),
    "rounds its input": lambda x: (x * 4).round() / 4,
    "adds noise": lambda x: x + 0.3 * torch.randn_like(x),
}
AFTER: dict[str, Function] = {
    "softmax": lambda z: z.softmax(dim=1),
    "sigmoid": lambda z: z.sigmoid(),
    "logits times 10000": lambda z: 1e4 * z,
}


def network(net: str, channels: int, classes: int, illness: str = "") -> nn.Module:
    """The factory that `measure` and `doctor` are told: `python:defects:network`."""
    made = ResNet20() if net == "resnet20" else Plain(channels, classes)
    before, after = BEFORE.get(illness, same), AFTER.get(illness, same)
    return Ill(made, before, after, stuck=illness == "stuck in train mode")


def same(x: Tensor) -> Tensor:
    return x


def train_classifier(model: models.Classifier, part: Split, attack: PGD | None, epochs: int) -> None:
    g = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, epochs * -(-len(part) // 64))
    for _ in range(epochs):
        for index in torch.randperm(len(part), generator=g).split(64):
            x, y = as_float(part.images[index]), part.labels[index]
            if attack is not None:
                x = attack(model.eval(), x, y, g)
            optimizer.zero_grad()
            F.cross_entropy(model.train()(x), y).backward()
            optimizer.step()
            schedule.step()
    model.eval()


# ---------------------------------------------------------------- cases


@dataclass(frozen=True)
class Network:
    """A sound network: what it is made by, its weights and what `measure` must be told."""

    name: str
    state: State
    model: dict[str, Any]
    """Settings of `model` that are right."""
    data: Splits
    file: str = ""
    """A run folder instead of weights."""


@dataclass(frozen=True)
class Case:
    """A network as somebody brings it."""

    name: str
    sound: bool = False
    illness: str = ""
    state: Callable[[State], State] = lambda s: s
    model: dict[str, Any] = field(default_factory=dict)
    """Settings that are given instead of the right ones; None leaves one out."""
    data: Callable[[Splits], Splits] = lambda d: d


def change(key: str, how: Callable[[Tensor], Tensor], *, needed: bool = True) -> Callable[[State], State]:
    """The state with the tensors whose name ends so changed; files may lack them if they are not `needed`."""

    def changed(state: State) -> State:
        names = [n for n in state if n.endswith(key)]
        if needed and not names:
            raise KeyError(key)
        return {n: how(v.clone()) if n in names else v for n, v in state.items()}

    return changed


def then(*steps: Callable[[State], State]) -> Callable[[State], State]:
    def changed(state: State) -> State:
        for step in steps:
            state = step(state)
        return state

    return changed


def fresh(like: Tensor, scale: float = 0.1) -> Tensor:
    return scale * torch.randn(like.shape, generator=torch.Generator().manual_seed(1))


def with_nan(t: Tensor) -> Tensor:
    t.view(-1)[0] = torch.nan
    return t


def swapped(t: Tensor) -> Tensor:
    t[[1, 2]] = t[[2, 1]]
    return t


def half_silent(t: Tensor) -> Tensor:
    t[: len(t) // 2] = -1e3
    return t


def other_names(d: Splits) -> Splits:
    """The data of someone who sorted the class names the other way."""
    last = len(d.class_names) - 1
    parts = {n: Split(s.images, last - s.labels) for n in ("train", "val", "test") for s in [getattr(d, n)]}
    return replace(d, **parts, class_names=d.class_names[::-1])


def as_text(d: Splits) -> Splits:
    """Folders named 9, 10, 11, ... in the order of the network's classes, sorted as text: 10, 11, 9."""
    names = [str(9 + i) for i in range(len(d.class_names))]
    place = torch.tensor([sorted(names).index(n) for n in names])
    parts = {n: Split(s.images, place[s.labels]) for n in ("train", "val", "test") for s in [getattr(d, n)]}
    return replace(d, **parts, class_names=tuple(sorted(names)))


def no_images_of_two(d: Splits) -> Splits:
    kept = d.test.labels >= 2
    return replace(d, test=Split(d.test.images[kept], d.test.labels[kept]))


def untrained(state: State) -> State:
    """What the layers are initialised with: normal weights of their fan-in, statistics that saw nothing."""
    out = {}
    for i, (n, v) in enumerate(state.items()):
        if not v.is_floating_point():
            out[n] = torch.zeros_like(v)
        elif v.ndim > 1:
            g = torch.Generator().manual_seed(i)
            out[n] = torch.randn(v.shape, generator=g) * (2 / v[0].numel()) ** 0.5
        else:
            one = n.endswith("running_var") or (n.endswith("weight") and v.ndim == 1)
            out[n] = torch.full_like(v, float(one))
    return out


def defects(head: str, first: str, middle: str) -> list[Case]:
    """The defects of one sound network, whose head, first and middle layer have these names."""
    shuffle = lambda t: t[torch.randperm(len(t), generator=torch.Generator().manual_seed(3))]  # noqa: E731
    reset = then(
        change("running_mean", torch.zeros_like),
        change("running_var", torch.ones_like),
        change("num_batches_tracked", torch.zeros_like, needed=False),
    )

    def both(how: Function) -> Callable[[State], State]:
        return then(change(f"{head}.weight", how), change(f"{head}.bias", how))

    guess = {"normalise": None}
    return [
        Case("normalised twice, as typed", illness="normalises itself"),
        Case("normalises itself, nobody says so", illness="normalises itself", model={"normalise": None}),
        Case("never normalised, as typed", model={"normalise": "none"}),
        Case("constants a little off", model={"normalise": {"mean": [0.55] * 3, "std": [0.3] * 3}}),
        Case("constants of MNIST", model={"normalise": {"mean": [0.1307] * 3, "std": [0.3081] * 3}}),
        Case("normalisation left to be guessed", model={"normalise": None}),
        Case("divides by 255", illness="divides by 255", model={"normalise": None}),
        Case("wants [-1, 1]", illness="wants [-1, 1]", model={"normalise": None}),
        Case("wants BGR", illness="wants BGR"),
        Case("wants rows for columns", illness="wants rows for columns"),
        Case("wants GRB", illness="wants GRB"),
        Case("wants inverted images", illness="wants inverted images"),
        Case("wants inverted images, nobody says more", illness="wants inverted images", model=guess),
        Case("wants mirrored images", illness="wants mirrored images"),
        Case("wants turned images", illness="wants turned images"),
        Case("wants BGR minus the mean", illness="wants BGR minus the mean", model=guess),
        Case("wants BGR, nobody says more", illness="wants BGR", model=guess),
        Case("two classes swapped", state=both(swapped)),
        Case("classes shuffled", state=both(shuffle)),
        Case("class names in other order", data=other_names),
        Case("class names as text, the network's as numbers", data=as_text, model=guess),
        Case("batch norm never updated", state=reset),
        Case("batch norm of other images", state=change("running_mean", lambda t: t + 1.0)),
        Case("stuck in train mode", illness="stuck in train mode"),
        Case("untrained", state=untrained),
        Case("a layer of zeros", state=change(f"{middle}.weight", torch.zeros_like)),
        Case("a layer made anew", state=change(f"{first}.weight", lambda t: fresh(t, 0.3))),
        Case("another head", state=change(f"{head}.weight", fresh)),
        Case("softmax at the end", illness="softmax"),
        Case("sigmoid at the end", illness="sigmoid"),
        Case("logits times 10,000", illness="logits times 10000"),
        Case("rounds its input", illness="rounds its input"),
        Case("adds noise", illness="adds noise"),
        Case("NaN in a weight", state=change(f"{head}.weight", with_nan)),
        Case("half of the classes never given", state=change(f"{head}.bias", half_silent)),
        Case("no image of two classes", data=no_images_of_two),
    ]  # fmt: skip


ON_CIFAR = (
    *("normalised twice, as typed", "never normalised, as typed", "constants of MNIST", "wants BGR"),
    *("two classes swapped", "batch norm never updated"),
    *("wants GRB", "wants inverted images", "wants turned images", "wants BGR minus the mean"),
    *("normalises itself, nobody says so", "normalisation left to be guessed", "divides by 255"),
    *("wants rows for columns", "classes shuffled", "untrained", "another head", "NaN in a weight"),
    "half of the classes never given",
)
"""Those that change clean accuracy, tried on a network that takes longer."""
SOUND = [
    Case("as it was trained", sound=True),
    Case("normalises itself", sound=True, illness="normalises itself", model={"normalise": "none"}),
]

NOBODY_SAYS = Case("nobody says how it is fed", sound=True, model={"normalise": None})
"""Of a network that gets images as they are: the first guess is right."""
ON_ROBUST = ("wants GRB", "wants inverted images", "wants inverted images, nobody says more")

# ---------------------------------------------------------------- networks to try


def made_networks(folder: Path) -> Iterator[tuple[Network, list[Case]]]:
    """Trained here: on Shapes a convolutional network, a robust one, a transformer, a run; on Digits two."""
    shapes, digits = Shapes(classes=6, size=16, n_train=1500, n_val=0, n_test=600, mu=0.5)(), Digits()()
    mean, std = IMAGENET
    pgd = PGD(steps=4)

    def plain(data: Splits, mean: Any, std: Any, attack: PGD | None, epochs: int) -> State:
        channels, size = data.train.images.shape[1], data.train.images.shape[-1]
        torch.manual_seed(0)
        net = network("plain", channels, len(data.class_names))
        whole = models.Wrapped(net, len(data.class_names), channels, mean, std, size)
        train_classifier(whole, data.train, attack, epochs)
        return net.state_dict()

    def python(data: Splits, normalise: Any) -> dict[str, Any]:
        arguments = {"net": "plain", "channels": data.train.images.shape[1]}
        return {"kind": "python", "call": "defects:network", "arguments": arguments, "normalise": normalise}

    names = {"head": "net.head", "first": "net.body.0", "middle": "net.body.6"}
    state = plain(shapes, mean, std, None, 8)
    yield Network("Shapes, standard", state, python(shapes, "imagenet"), shapes), [*SOUND, *defects(**names)]
    state = plain(shapes, mean, std, pgd, 8)
    some = [c for c in defects(**names) if c.name in ON_ROBUST]
    yield Network("Shapes, robust", state, python(shapes, "imagenet"), shapes), [*SOUND, *some]

    torch.manual_seed(0)
    kind = models.ViT(width=48, depth=2, heads=3)
    vit = kind(6, 3, (0.5,), (0.5,), 16)
    train_classifier(vit, shapes.train, None, 30)
    state = {n: v for n, v in vit.state_dict().items() if n not in ("mean", "std")}
    settings = {**kind.to_dict(), "normalise": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    yield Network("Shapes, transformer", state, settings, shapes), SOUND[:1]

    run = Run(
        data=Shapes(classes=6, size=16, n_train=1500, n_val=200, n_test=600, mu=0.5),
        model=models.PreActResNet(width=8, stem_stride=2, blocks=(1, 1), normalise="data"),
        recipe=Standard(),
        augment=None,
        epochs=15,
        lr=0.1,
        lr_milestones=(10, 13),
        validation=Validation(every=15, attack=PGD(steps=2), final=PGD(steps=2)),
    )
    where = train_run(run, folder / "runs", "sound", CPU)
    yield Network("Shapes, own run", {}, {}, shapes, file=f"{where.path}@last"), SOUND[:1]

    for name, attack in (("standard", None), ("robust", PGD(steps=4, threat=Linf(eps=0.1)))):
        state = plain(digits, (0.0,), (1.0,), attack, 8)
        yield Network(f"Digits, {name}", state, python(digits, "none"), digits), [SOUND[0], NOBODY_SAYS]


def cifar_networks(folder: Path, weights: Path) -> Iterator[tuple[Network, list[Case]]]:
    """ResNet-20 of akamaster/pytorch_resnet_cifar10 on CIFAR-10."""
    data = Npz(path=str(folder))()
    arrays = np.load(weights) if weights.suffix == ".npz" else torch.load(weights, weights_only=True)
    state = {f"net.{n.removeprefix('module.')}": torch.as_tensor(arrays[n]) for n in arrays}
    arguments = {"net": "resnet20", "channels": 3}
    model = {"kind": "python", "call": "defects:network", "arguments": arguments, "normalise": "imagenet"}
    names = {"head": "net.linear", "first": "net.conv1", "middle": "net.layer3.2.bn2"}
    some = [c for c in defects(**names) if c.name in ON_CIFAR]
    yield Network("CIFAR-10, ResNet-20", state, model, data), [*SOUND, *some]


# ---------------------------------------------------------------- trying them


@dataclass(frozen=True)
class Row:
    """What was seen of one network."""

    network: str
    case: Case
    clean: float
    robust: float
    lines: list[str]
    """What `measure` says beside the number; an error of one sentence counts."""
    verdict: str
    alarm: bool
    """Whether the doctor names a fault or warns."""


def try_case(network: Network, case: Case, folder: Path, n: int, steps: int, settings: Doctor) -> Row:
    """Bring the network to both commands, in files as a person would."""
    folder.mkdir(parents=True)
    data = case.data(network.data)
    for part in ("train", "test"):
        split = data.part(part)
        images = split.images.permute(0, 2, 3, 1).numpy()
        np.savez(
            folder / f"{part}.npz", images=images, labels=split.labels.numpy(), class_names=data.class_names
        )
    given = {k: v for k, v in (network.model | case.model).items() if v is not None}
    if case.illness:
        given["arguments"] = {**given["arguments"], "illness": case.illness}
    file = network.file
    if not file:
        file = str(folder / "weights.pt")
        torch.save(case.state(network.state), file)
    changes = (
        {} if network.file else {"data.path": str(folder), **{f"model.{k}": v for k, v in given.items()}}
    )
    source, attack = Source(changes=changes), {"steps": steps}
    clean = robust = float("nan")
    with trusting(everything=True):
        try:
            result = measure([file], Measure(attack_changes=attack, n=n), source, CPU, trust=True).results[0]
            clean, robust, lines = result.metrics["clean"], result.metrics["robust"], list(result.warnings)
        except UserError as e:
            lines = [f"refused: {e}"]
        try:
            (loaded,) = load_checkpoints([file], source, CPU)
            found = examine(
                loaded.model, loaded.splits, settings, file_normalisation=loaded.file_normalisation
            )
            end, alarm = verdict(found), any(f.level in ("fault", "warning") for f in found)
        except UserError as e:
            end, alarm = f"refused: {e}", True
    return Row(network.name, case, clean, robust, lines, end, alarm)


def wrong(row: Row, right: Row) -> bool:
    """Whether an accuracy that `measure` gives is not the sound network's."""
    pairs = ((row.clean, right.clean), (row.robust, right.robust))
    return any(not abs(a - b) <= TOLERANCE for a, b in pairs)  # NaN is wrong


def table(rows: Sequence[Row], right: dict[str, Row]) -> Iterator[str]:
    """The rows and what they come to, in markdown."""
    ill = [r for r in rows if not r.case.sound]
    sound = [r for r in rows if r.case.sound]
    off = [r for r in ill if wrong(r, right[r.network])]
    silent = [r for r in off if not r.lines]
    missed = [r for r in off if not r.alarm]
    yield "# `measure` beside `doctor` on networks with known defects"
    yield ""
    yield (
        f"- {len(ill)} networks with a defect, {len(off)} of them measured more than {TOLERANCE:.0%} off in "
        "clean or robust accuracy."
    )
    yield f"- Off and without a line on top in `measure`: {len(silent)}{names(silent)}."
    yield f"- Off and sound to `doctor`: {len(missed)}{names(missed)}."
    lines, alarms = [r for r in sound if r.lines], [r for r in sound if r.alarm]
    yield (
        f"- {len(sound)} sound networks: {len(lines)} with a line in `measure`{names(lines)}, {len(alarms)} "
        f"with an alarm of `doctor`{names(alarms)}."
    )
    yield ""
    yield "| network | defect | clean (right) | robust (right) | `measure` says | `doctor` says |"
    yield "|---|---|---|---|---|---|"
    for r in rows:
        twin = right[r.network]
        defect = f"sound: {r.case.name}" if r.case.sound else r.case.name
        numbers = [
            f"{100 * a:.1f} ({100 * b:.1f})" for a, b in ((r.clean, twin.clean), (r.robust, twin.robust))
        ]
        said = "; ".join(r.lines) or "nothing"
        cells = [r.network, defect, *numbers, said, r.verdict]
        yield "| " + " | ".join(c.replace("|", "/") for c in cells) + " |"


def names(rows: Sequence[Row]) -> str:
    return " (" * bool(rows) + ", ".join(f"{r.network}: {r.case.name}" for r in rows) + ")" * bool(rows)


def main(arguments: Sequence[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parent))  # where `python:defects:network` is
    torch.set_num_threads(1)
    start, rows, right = time.perf_counter(), list[Row](), dict[str, Row]()
    out = RESULTS / ("defects-cifar10.md" if arguments else "defects.md")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = cifar_networks(*map(Path, arguments)) if arguments else made_networks(folder)
        n, settings = (300, Doctor(n=300, n_attack=4)) if arguments else (600, Doctor(n=600, n_attack=40))
        steps = 3 if arguments else 10
        for network, cases in made:
            for case in cases:
                row = try_case(network, case, folder / str(len(rows)), n, steps, settings)
                rows.append(row)
                right.setdefault(network.name, row)
                said = "; ".join(row.lines) or "nothing"
                numbers = f"{100 * row.clean:.1f} {100 * row.robust:.1f}"
                print(
                    f"{time.perf_counter() - start:6.0f} s  {row.network}: {row.case.name}: {numbers}; {said}"
                )
                print(f"          {row.verdict}", flush=True)
                out.write_text("\n".join(table(rows, right)) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main(sys.argv[1:])
