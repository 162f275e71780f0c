"""Bytes to tensors: every format, every disguise and damage, and nothing in a file ever runs."""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import logging
import os
import pathlib
import pickle
import sys
import tarfile
import types
import uuid
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from crossclass.checkpoints import file_formats
from crossclass.checkpoints.card import save_tensors
from crossclass.checkpoints.stand_ins import Numbers
from crossclass.core.errors import UserError
from crossclass.core.trust import trusting

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.tensor([1.0, 2.0])}
COUNT = torch.tensor(3)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        same(a[k], b[k]) if isinstance(a[k], dict) else torch.equal(a[k], b[k]) for k in a
    )


def complaint(path: Path, trust: bool = False) -> str:
    with trusting(everything=trust), pytest.raises(UserError) as e:
        file_formats.read(path)
    message = str(e.value)
    assert message.startswith(str(path)), message
    assert "\n" not in message
    return message


def read_trusted(path: Path) -> dict[str, Any]:
    with trusting(everything=True):
        return file_formats.read(path)


def torch_file(path: Path, value: Any, **how: Any) -> Path:
    torch.save(value, path, **how)
    return path


def write(path: Path, kind: str, value: dict[str, Any]) -> None:
    """A flat dictionary of tensors in one of the formats; the name says nothing about it."""
    if kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{k: v.numpy() if isinstance(v, Tensor) else v for k, v in value.items()})
    elif kind == "safetensors":
        save_file(value, path)
    else:
        torch.save(value, path, _use_new_zipfile_serialization=kind == "torch")


# ---- What can be read. ----


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_keep_tensors_and_their_nesting_only(tmp_path: Path, zipped: bool) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.sum().backward()
    optimizer.step()  # its buffers are numbered, not named
    value = {
        "state_dict": OrderedDict(STATE),
        "epoch": 3,
        "best": 0.5,
        "arch": "resnet18",
        "half": torch.ones(2, dtype=torch.bfloat16),
        "count": COUNT,
        "parameter": nn.Parameter(torch.ones(1)),
        "optimizer": optimizer.state_dict(),
        "empty": {},
        "list": [torch.ones(2)],
    }
    path = torch_file(tmp_path / "model_best.pth.tar", value, _use_new_zipfile_serialization=zipped)
    tree = file_formats.read(path)
    assert list(tree) == ["state_dict", "half", "count", "parameter"]
    assert same(tree["state_dict"], STATE)
    assert tree["half"].dtype == torch.bfloat16
    assert not tree["parameter"].requires_grad


def test_safetensors_npz_and_our_own_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    write(path, "safetensors", STATE)
    assert same(file_formats.read(path), STATE)
    write(path, "npz", {**STATE, "n": np.array(3), "s": np.array(["a"])})
    assert same(file_formats.read(path), {**STATE, "n": COUNT})
    save_tensors(path, STATE, {"epoch": 1})
    assert same(file_formats.read(path), STATE)


def test_npz_arrays_of_any_order_bytes_and_rank(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=">f4").reshape(2, 3)
    np.savez(tmp_path / "a.npz", big=numbers, turned=numbers.T, scalar=np.float64(2), flag=np.array([True]))
    tree = file_formats.read(tmp_path / "a.npz")
    assert torch.equal(tree["big"], torch.arange(6.0).view(2, 3))
    assert torch.equal(tree["turned"], torch.arange(6.0).view(2, 3).T)
    assert tree["scalar"].shape == ()
    assert tree["flag"].dtype == torch.bool


def test_numpy_in_torch_files_is_read_without_trust(tmp_path: Path) -> None:
    value = {
        "best_acc": np.float64(0.5),
        "flag": np.bool_(True),
        "net": {
            "w": np.arange(6, dtype=np.float32).reshape(2, 3),
            "turned": np.asfortranarray(np.arange(6).reshape(2, 3)),
            "big": np.arange(3, dtype=">i2"),
            "text": np.array(["a"]),
            "objects": np.array([{"a": 1}, None], dtype=object),
            "none": np.zeros((0, 2)),
        },
    }
    for zipped in (True, False):
        path = torch_file(tmp_path / "a.pt", value, _use_new_zipfile_serialization=zipped)
        tree = file_formats.read(path)
        assert list(tree) == ["net"]
        assert list(tree["net"]) == ["w", "turned", "big", "none"]
        assert torch.equal(tree["net"]["w"], torch.arange(6.0).view(2, 3))
        assert torch.equal(tree["net"]["turned"], torch.arange(6).view(2, 3))
        assert torch.equal(tree["net"]["big"], torch.arange(3, dtype=torch.int16))


def test_unusual_nesting(tmp_path: Path) -> None:
    assert same(file_formats.read(torch_file(tmp_path / "a.pt", (STATE, 7)))["0"], STATE)
    value: dict[str, Any] = {"w": torch.ones(1)}
    value["again"] = value
    assert torch.equal(file_formats.read(torch_file(tmp_path / "a.pt", value))["w"], torch.ones(1))


# ---- What is not a file of weights. ----

DISGUISES: dict[str, tuple[bytes, str]] = {
    "page": (b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>", "web page saved as"),
    "late page": (b"\xef\xbb\xbf\n <HTML>\n<body>Quota exceeded", "web page saved as weights; download"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page saved as weights"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
    "text": (b'{"error": "not found"}', "text saved as weights"),
    "words": ("Not found\u2026\n".encode(), "text saved as weights ('not found"),
    "empty": (b"", "is empty"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "gzip archive; unpack it"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "noise": (bytes(range(128, 256)) * 20, "is damaged or was cut off"),
    "zip begun": (b"PK\x03\x04" + bytes(100), "is damaged or was cut off"),
}


@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize("trust", [False, True])
def test_disguises_are_recognised(tmp_path: Path, name: str, trust: bool) -> None:
    content, says = DISGUISES[name]
    (tmp_path / "model.pth").write_bytes(content)
    assert says in complaint(tmp_path / "model.pth", trust)


def test_other_things_that_are_no_weights(tmp_path: Path) -> None:
    assert "does not exist" in complaint(tmp_path / "absent.pt")
    assert "is a folder; give one file of weights" in complaint(tmp_path)
    (tmp_path / "last.pt").write_bytes(b"")
    assert "such as last.pt" in complaint(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner.pth", "x")
    assert "zip archive of other files (inner.pth); unpack it" in complaint(tmp_path / "a.zip")
    assert "one tensor without a name" in complaint(torch_file(tmp_path / "t.pt", torch.ones(2)))
    assert "no named tensors" in complaint(torch_file(tmp_path / "e.pt", {"epoch": 3, "log": {"lr": 1}}))
    np.save(tmp_path / "a.npy", np.ones(2))
    assert "one array without a name" in complaint(tmp_path / "a.npy")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "a.npy", "a.npy")
    assert "tar archive; unpack it" in complaint(tmp_path / "a.tar")


KINDS = pytest.mark.parametrize("kind", ["torch", "legacy torch", "npz", "safetensors"])


@KINDS
def test_damage_is_recognised_wherever_a_file_is_cut(tmp_path: Path, kind: str) -> None:
    path, state = tmp_path / "a.pt", {k: v.repeat(40, *[1] * (v.ndim - 1)) for k, v in STATE.items()}
    write(path, kind, state)
    whole = path.read_bytes()
    for share in (0.02, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        for trust in (False, True):
            assert "is damaged or was cut off" in complaint(path, trust)
    if kind == "npz":  # numpy checks the sums that a zip archive carries; torch does not
        at = whole.index(state["conv.weight"].numpy().tobytes()) + 17
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        assert "is damaged" in complaint(path)


@KINDS
def test_damage_anywhere_is_either_survived_or_refused(tmp_path: Path, kind: str) -> None:
    path, g = tmp_path / "a.pt", torch.Generator().manual_seed(0)
    extras = {"nested": {"array": np.ones(3)}, "best": np.float64(1)} if "torch" in kind else {}
    write(path, kind, STATE | extras)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        at, byte = (int(torch.randint(n, (), generator=g)) for n in (min(len(whole), 800), 256))
        path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        try:
            file_formats.read(path)
        except UserError:
            refused += 1
    end = len(whole) - 60  # the directory of an archive
    for at in range(end if kind in ("torch", "npz") else len(whole), len(whole)):
        path.write_bytes(whole[:at] + b"\xa4" + whole[at + 1 :])
        with suppress(UserError):
            file_formats.read(path)
    assert refused > 10


# ---- Pickles that want more. ----


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def poisoned(path: Path, how: str, evil: Any) -> Path:
    value = {"state_dict": STATE, "note": evil}
    if how.startswith("bare"):
        path.write_bytes(pickle.dumps({"w": [1.0], "note": evil}, protocol=int(how[-1])))
    elif how == "array":
        with path.open("wb") as file:
            np.savez(file, w=np.ones(2), note=np.array([evil, None], dtype=object))
    elif how == "numpy inside":
        torch.save({"w": np.array([evil, None], dtype=object)}, path)
    else:
        protocol = {"protocol": 4}.get(how, 2)
        torch.save(value, path, _use_new_zipfile_serialization=how != "legacy", pickle_protocol=protocol)
    return path


HOW = ["zip", "legacy", "protocol", "array", "numpy inside", "bare0", "bare2", "bare4", "bare5"]


@pytest.mark.parametrize("how", HOW)
def test_poison_does_not_act_and_the_tensors_beside_it_are_read(tmp_path: Path, how: str) -> None:
    marker = tmp_path / "marker"
    path = poisoned(tmp_path / "model.pth", how, Evil(marker))
    if how in ("zip", "legacy", "protocol"):
        assert same(file_formats.read(path)["state_dict"], STATE)
        assert same(read_trusted(path)["state_dict"], STATE)  # nothing asks for the trust that is given
    elif how == "array":
        assert same(file_formats.read(path), {"w": torch.ones(2, dtype=torch.float64)})
    else:
        message = complaint(path)
        assert "is refused: " in message
        assert "could run any code" in message
        assert "--trust" in message
        assert f"{os.mkdir.__module__}.mkdir" in message
        assert not marker.exists()
        with suppress(UserError):  # there is no tensor
            read_trusted(path)
        assert marker.exists()  # the poison is real
        return
    assert not marker.exists()


class Bag(dict[str, Any]):
    """A dictionary of a class whose module is not here when it is read."""


@dataclasses.dataclass
class State:
    """A record of a training."""

    step: int
    weights: dict[str, Tensor]


Pair = collections.namedtuple("Pair", "weights step")


class Colour(enum.Enum):
    RED = 1


HARMLESS: dict[str, Any] = {
    "namespace": argparse.Namespace(lr=0.1, path=Path("x")),
    "paths": [Path("x"), pathlib.PurePosixPath("y"), pathlib.PureWindowsPath("z")],
    "time": (datetime.datetime(2020, 1, 1), datetime.timedelta(1), datetime.UTC),
    "enumeration": Colour.RED,
    "counts": (collections.Counter("aab"), collections.deque([1]), collections.defaultdict(list, a=[1])),
    "sets": ({1, 2}, frozenset("a")),
    "numbers": (decimal.Decimal("1.5"), uuid.UUID(int=3), fractions.Fraction(1, 2), 1j, 2**100),
    "of torch": (torch.Size([2]), torch.device("cpu"), torch.float16, torch.Generator().get_state()[:0]),
    "of numpy": (np.float32(1), np.dtype("f4"), np.random.RandomState(0), np.random.default_rng(0)),
    "function": functools.partial(print, 1),
    "simple": types.SimpleNamespace(a=1),
    "bag": Bag(lr=0.1),
    "pair": Pair("a", 1),
    "record": State(3, {}),
    "exception": ValueError("x"),
    "range": range(3),
    "slice": slice(1),
    "class": Bag,
    "library": logging.getLogger("x"),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", HARMLESS)
def test_objects_beside_tensors_need_no_trust(tmp_path: Path, name: str, protocol: int) -> None:
    value = {"epoch": 3, name: HARMLESS[name], "state_dict": STATE}
    for zipped in (True, False):
        path = tmp_path / "a.pth"
        torch_file(path, value, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        assert same(file_formats.read(path)["state_dict"], STATE)
    path.write_bytes(pickle.dumps(value, protocol))
    assert same(file_formats.read(path)["state_dict"], STATE)


def test_classes_of_a_missing_module_are_stood_in_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = types.ModuleType("framework_not_here")
    monkeypatch.setitem(sys.modules, "framework_not_here", missing)
    for cls in (Bag, State):
        monkeypatch.setattr(cls, "__module__", "framework_not_here")
        monkeypatch.setattr(missing, cls.__name__, cls, raising=False)
    value = {"state_dict": Bag(STATE), "hyper_parameters": Bag(lr=0.1), "train": State(3, STATE)}
    path = torch_file(tmp_path / "a.ckpt", value)
    monkeypatch.delitem(sys.modules, "framework_not_here")
    for tree in (file_formats.read(path), read_trusted(path)):
        assert list(tree) == ["state_dict", "train"]
        assert same(tree["state_dict"], STATE)
        assert same(tree["train"]["weights"], STATE)


def test_a_dictionary_of_any_class_and_attributes_of_any_object_are_looked_into(tmp_path: Path) -> None:
    value = {
        "plain": types.SimpleNamespace(net=STATE, step=1),
        "pair": Pair(STATE, 1),
        "counted": collections.defaultdict(dict, net=STATE),
        "view": types.SimpleNamespace(view=collections.ChainMap(STATE)),
        0: STATE,
    }
    tree = file_formats.read(torch_file(tmp_path / "a.pth", value))
    assert same(tree["plain"]["net"], STATE)
    assert same(tree["pair"]["0"], STATE)
    assert same(tree["counted"]["net"], STATE)
    assert same(tree["0"], STATE)


class Branch(nn.Module):
    """Buffers of both kinds, a shared layer, a layer that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.again = self.layer
        self.none = None
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("kept", torch.ones(3))
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.register_parameter("absent", None)


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_network_pickled_whole_gives_its_state_without_its_code(tmp_path: Path, protocol: int) -> None:
    net = nn.DataParallel(Branch())
    for value, at in ((net, ()), ({"epoch": 3, "model": net}, ("model",))):
        tree: Any = file_formats.read(torch_file(tmp_path / "a.pt", value, pickle_protocol=protocol))
        for key in at:
            tree = tree[key]
        assert same(tree, dict(net.state_dict()))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(net, protocol))
    assert same(file_formats.read(tmp_path / "a.pkl"), dict(net.state_dict()))


def test_torchscript_gives_its_state_without_its_code(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out, its files are not
        scripted, traced = torch.jit.script(net), torch.jit.trace(net.eval(), torch.rand(1, 3, 8, 8))
    for number, program in enumerate((scripted, traced)):
        path = tmp_path / f"{number}.pt"
        program.save(path)
        assert same(file_formats.read(path), dict(net.state_dict()))


def test_plain_pickles_and_arrays_of_objects_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    for protocol in range(6):
        path.write_bytes(pickle.dumps({"w": np.ones(2, dtype=np.float32), "n": 3, "t": STATE}, protocol))
        assert same(file_formats.read(path), {"w": torch.ones(2), "t": STATE})
    np.save(tmp_path / "a.npy", {"w": np.ones(2, dtype=np.float32)}, allow_pickle=True)
    assert same(file_formats.read(tmp_path / "a.npy"), {"w": torch.ones(2)})
    np.savez(tmp_path / "a.npz", net=np.array({"w": np.ones(2, dtype=np.float32)}, dtype=object))
    assert same(file_formats.read(tmp_path / "a.npz")["net"], {"w": torch.ones(2)})


class Maker:
    """Its tensors are made by its code only."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return made_by_code, ("w",)


def made_by_code(name: str) -> dict[str, Tensor]:
    return {name: torch.ones(2)}


def test_what_only_code_can_make_is_named_and_trust_reads_it(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "a.pt", Maker())
    assert "made_by_code, and unpickling it could run any code" in complaint(path)
    assert same(read_trusted(path), {"w": torch.ones(2)})


def test_trust_names_code_that_is_not_here(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"\x80\x02cnets_of.their_own\nNet\n)R.")
    assert "makes with nets_of.their_own.Net" in complaint(path)
    assert "needs code that is not here (No module named 'nets_of'" in complaint(path, trust=True)
    path.write_bytes(b"\x80\x02cargparse\nNoSuchThing\n)R.")
    assert "needs code that is not here" in complaint(path, trust=True)


def test_names_in_pickles_cannot_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"\x80\x04\x8c\x06a\x1b[2Jx\x94\x8c\x01b\x94\x93)R.")
    assert "makes with a [2Jx.b," in complaint(path)


def test_state_that_makes_no_sense_is_dropped() -> None:
    states: list[tuple[Any, ...]] = [(), (1, (2,), None, False, b"12345678"), (1, (9,), "x", False, "text")]
    for state in states:
        array = Numbers()
        array.take_state(state)
        assert array.array() is None


def test_tensors_without_plain_memory_are_dropped(tmp_path: Path) -> None:
    value = {**STATE, "sparse": torch.eye(3).to_sparse(), "meta": torch.ones(2, device="meta")}
    assert same(file_formats.read(torch_file(tmp_path / "a.pt", value)), STATE)


# ---- Names. ----


def test_tensors_of_torch_in_an_array_of_objects_and_lists_in_lists(tmp_path: Path) -> None:
    state = {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}
    np.save(tmp_path / "a.npy", np.array(state, dtype=object), allow_pickle=True)
    assert same(file_formats.read(tmp_path / "a.npy"), state)
    np.savez(tmp_path / "a.npz", net=np.array(state, dtype=object))
    assert same(file_formats.read(tmp_path / "a.npz")["net"], state)
    torch.save({"runs": [[3, [state]], "words"]}, tmp_path / "b.pth")
    assert same(file_formats.read(tmp_path / "b.pth")["runs"]["0"]["1"]["0"], state)
