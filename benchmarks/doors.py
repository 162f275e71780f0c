"""The doors through which a stranger's bytes come in, each with good inputs and a way in (for fuzz.py)."""

import io
import json
import os
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as safetensors

from crossclass.analysis.records import load_results
from crossclass.analysis.run_record import load_run
from crossclass.checkpoints import file_formats
from crossclass.checkpoints.card import load_tensors, save_tensors
from crossclass.cli.arguments import assign
from crossclass.cli.sweep import expand
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.data import arrays, cifar, folders, tiny_imagenet
from crossclass.paper import evidence
from crossclass.paper.runs import NAMED, resolve
from crossclass.training.run import Run

TYPED = """
    recipe.attack.threat.eps=4/255 model.width=64 lr_milestones=[45,68] recipe.kind=awp
    recipe.inner.kind=trades data.path=DIR model=python:my_nets:f seed=0,1,2 weight_averaging.kind=ema
    recipe={kind:kd} validation.attack=null model.normalise={mean:[0.5]} lr=1e-3 stop_on_alarms=[a]
    recipe.attack.steps=10
"""

Read = Callable[[Path, bytes], object]
"""Hand bytes to a door; the path is an empty folder."""


def state() -> dict[str, torch.Tensor]:
    """Weights of a very small network."""
    return {"conv.weight": torch.ones(2, 3, 3, 3), "head.weight": torch.ones(2, 4), "n": torch.tensor(3)}


def torch_bytes(value: Any, zipped: bool) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """What numpy.savez writes."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def picture(form: str) -> bytes:
    """A small picture in a format."""
    file = io.BytesIO()
    Image.fromarray(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)).save(file, form)
    return file.getvalue()


def written(name: str, read: Callable[[Path], object]) -> Read:
    """Put the bytes into a file of the folder, and read the file."""

    def door(place: Path, data: bytes) -> object:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return door


def own_checkpoint() -> list[bytes]:
    """A checkpoint of ours."""
    with tempfile.TemporaryDirectory() as place:
        save_tensors(Path(place) / "a.safetensors", state(), {"epoch": 3, "checkpoint": "last"})
        return [(Path(place) / "a.safetensors").read_bytes()]


def strangers() -> list[bytes]:
    """Files of weights as others write them, one poisoned."""
    nested = {"state_dict": state(), "epoch": 3, "best": np.float64(1), "note": Path("x")}
    poison = pickle.dumps({"w": _Poison()}, protocol=2)
    files = [torch_bytes(v, z) for v in (state(), nested) for z in (True, False)]
    return [*files, poison, safetensors(state()), npz_bytes(w=np.ones(3), n=np.arange(2))]


class _Poison:
    """Unpickling it would make a folder where the fuzzer looks."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("poisoned",)


def run_files() -> list[bytes]:
    """Named runs as YAML, and a bomb of aliases."""
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmn"))
    names = ("cifar10-mini", "wei2025-kd-linf-8", "awp", "mo2022-deit", "shapes-demo")
    return [
        *(NAMED[name].yaml().encode() for name in names),
        bomb.encode(),
        b"lr_milestones: &a [*a]\n",
        b"model: &m {x: *m}\n",
    ]


def assignments() -> list[bytes]:
    """What people type behind a run's name."""
    return [text.encode() for text in TYPED.split()]


def sweeps() -> list[bytes]:
    """Sweep files."""
    return [b"run: cifar10-mini\ngrid:\n  seed: [0, 1]\n  recipe.attack.threat.eps: [2/255, 8/255]\n"]


def typed(place: Path, data: bytes) -> object:
    """One text, by `assign` and by the command line's own way."""
    text = data.decode("utf-8", "replace")
    with suppress(UserError):
        assign(Run(), [text])
    return expand("cifar10-mini", [text])


def yaml_file(path: Path) -> object:
    """A run file, from the command line; what was valid must come back as it is."""
    _, run = resolve(str(path))
    again = load_yaml(Run, run.yaml(), "again")
    if again != run:
        raise AssertionError("a run does not survive its own YAML")
    return run


def swept(path: Path) -> object:
    """A sweep file; large grids are cut short by the alarm, so only small ones are let in."""
    if path.stat().st_size > 500:
        return None
    return expand(str(path))


def data_npz() -> list[bytes]:
    """Data in npz."""
    images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    names = np.array(["a", "b"])
    gray = npz_bytes(images=images[..., 0] / 255.0, labels=np.arange(4) % 2)
    return [npz_bytes(images=images, labels=np.arange(4) % 2, class_names=names), gray]


def tar_bytes() -> list[bytes]:
    """CIFAR-10's archive, in small."""
    batch = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, protocol=2)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name in cifar.CIFAR10.layout.md5:
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(batch)
            tar.addfile(info, io.BytesIO(batch))
    return [file.getvalue()]


def zip_bytes() -> list[bytes]:
    """Tiny-ImageNet's archive, in small, with a member that wants to be elsewhere."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("tiny-imagenet-200/wnids.txt", "n01443537\n")
        bundle.writestr("tiny-imagenet-200/words.txt", "n01443537\tgoldfish\n")
        bundle.writestr("tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG", picture("JPEG"))
        bundle.writestr("../../outside.txt", "no")
    return [file.getvalue()]


def unpacked(place: Path, data: bytes) -> object:
    """An archive whose checksum is, for once, believed."""
    (place / cifar.CIFAR10.layout.archive.name).write_bytes(data)
    return cifar.read_cifar(cifar.CIFAR10.layout, place, "train")


def unzipped(place: Path, data: bytes) -> object:
    """The same for the other one."""
    (place / tiny_imagenet.ARCHIVE.name).write_bytes(data)
    return tiny_imagenet.read_tiny_imagenet(place, "train")


def folder(place: Path, data: bytes) -> object:
    """A picture in a folder of classes."""
    for name in ("train/a/1.png", "train/b/1.jpg"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return folders.read_folder(place, "train")


ROW = {
    "epoch": 1,
    "lr": 0.1,
    "seconds": 1.0,
    "test_robust": 0.5,
    "cas": 1.5,
    "C": [[1, 0.2], [0.2, 1]],
    "warnings": [],
}
MEASURED = [
    {"checkpoint": name, "epoch": epoch, "robust": 0.4, "clean": 0.5, "cas": 1.0, "n": 9}
    | {"C": [[1, 0], [0, 1]], "intervals": {"cas": [0.5, 1.5]}}
    for name, epoch in (("best.val", 1), ("last", 2))
]


def events(path: Path) -> object:
    """The log of a run, for the page."""
    (path.parent / "config.yaml").write_text("seed: 0\n")
    return load_run(path.parent)


def proof(path: Path) -> object:
    """The evidence of a run."""
    for name, content in {
        "env.json": '{"seed": 0}',
        "matrices.json": "{}",
        "config.yaml": "lr_milestones: [1]",
    }.items():
        (path.parent / name).write_text(content)
    (path.parent / "metrics.csv").write_text("epoch,lr\n1,0.1\n")
    return evidence.read(path.parent)


def as_json(value: Any) -> bytes:
    """One line of JSON."""
    return json.dumps(value).encode()


DOORS: dict[str, tuple[Callable[[], list[bytes]], Read, bool]] = {
    "checkpoint": (own_checkpoint, written("a.safetensors", load_tensors), False),
    "weights": (strangers, written("model.pth", file_formats.read), False),
    "run file": (run_files, written("run.yaml", yaml_file), True),
    "settings": (assignments, typed, True),
    "sweep file": (sweeps, written("sweep.yaml", swept), True),
    "npz": (data_npz, written("train.npz", lambda path: arrays.read_npz(path.parent, "train")), False),
    "pictures": (lambda: [picture(f) for f in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")], folder, False),
    "tar": (tar_bytes, unpacked, False),
    "zip": (zip_bytes, unzipped, False),
    "log": (
        lambda: [as_json(ROW) + b"\n" + as_json({**ROW, "epoch": 2}) + b"\n"],
        written("events.jsonl", events),
        True,
    ),
    "results": (lambda: [as_json(MEASURED)], written("m.json", load_results), True),
    "evidence": (lambda: [as_json(MEASURED)], written("measure.json", proof), True),
}
