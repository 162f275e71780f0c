"""Files of others: containers, pickles and objects of any kind around weights that are known.

The weights must be read as they are, whatever lies beside or around them and in whichever format, or the file
be refused where it holds two networks; what a pickle would run never runs.
"""

import argparse
import collections
import datetime
import enum
import os
import pickle
import random
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from crossclass.checkpoints import file_formats, match_state_dict
from crossclass.core.errors import UserError

from .door import Door

NAMES = (
    "state_dict",
    "model",
    "net",
    "module",
    "weights",
    "a",
    "run.1",
    "0",
    "best",
    "optimizer",
    "ema",
    "é",
)
KINDS = ("tensor", "parameter", "double", "half", "numpy", "views", "transposed", "module")
FILES = ("zip", "legacy", "pickle", "safetensors", "npz", "npy")


class Poison:
    """Unpickling it would make a folder where the fuzzer looks, or run a program."""

    def __init__(self, how: int) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        calls = (
            (os.mkdir, ("poisoned",)),
            (subprocess.getoutput, ("true",)),
            (eval, ("open('poisoned', 'w')",)),
        )
        return calls[self.how]


class Bag(dict[str, Any]):
    """A dictionary of a package that is not here."""


class Config:
    """Settings of a package that is not here."""

    def __init__(self, **given: Any) -> None:
        self.__dict__ |= given


class Color(enum.Enum):
    """An enumeration of a package that is not here."""

    RED = 1


class Whole(nn.Module):
    """A network of a package that is not here."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body


class Gone:
    """While a file is written, the classes above seem to come from another package."""

    def __enter__(self) -> None:
        here = types.ModuleType("not_here")
        for kind in (Bag, Config, Color, Whole):
            kind.__module__ = here.__name__
            setattr(here, kind.__name__, kind)
        sys.modules[here.__name__] = here

    def __exit__(self, *_: object) -> None:
        del sys.modules["not_here"]


def network(seed: int) -> nn.Sequential:
    """A small network whose numbers half precision holds exactly."""
    luck = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    for t in net.state_dict().values():
        t.copy_(torch.randint(1, 64, t.shape, generator=luck) / (64 if t.is_floating_point() else 1))
    return net


def as_kind(net: nn.Sequential, kind: str) -> Any:
    """The weights as tensors of some kind, or the network itself."""
    state = dict(net.state_dict())
    change: dict[str, Callable[[Tensor], Any]] = {
        "parameter": lambda t: nn.Parameter(t),
        "double": lambda t: t.double(),
        "half": lambda t: t.half(),
        "numpy": lambda t: t.numpy(),
        "views": lambda t: torch.cat((t.flatten(), t.flatten()))[: t.numel()].view(t.shape),
        "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1) if t.ndim > 1 else t,
    }
    if kind == "module":
        return Whole(net)
    if kind not in change:
        return state
    return {k: change[kind](t) if t.is_floating_point() else t for k, t in state.items()}


def beside(luck: random.Random) -> Any:
    """Something that no network is."""
    things = (
        *(3, 0.5, None, "words", b"bytes", [1, 2], {"a": 1}, {1, 2}, Path("x"), Color.RED, np.float32(1)),
        *(argparse.Namespace(lr=0.1), datetime.timedelta(1), collections.defaultdict(list, {1: [2]})),
        *(Config(lr=0.1), Bag(lr=0.1), slice(3), range(4), torch.float32, torch.Size((1, 2)), 1j),
        *(Poison(0), Poison(1), Poison(2), np.array(["text"]), np.array([{"a": 1}], dtype=object)),
        {"state": {0: {"exp_avg": torch.ones(3), "step": 3}}, "param_groups": [{"params": [0]}]},
    )
    return luck.choice(things)


def around(luck: random.Random, inner: Any) -> Any:
    """A container with other things in it."""
    others = {f"other {i}": beside(luck) for i in range(luck.randrange(4))}
    name = luck.choice(NAMES)
    items = list(others.items())
    items.insert(luck.randrange(len(items) + 1), (name, inner))
    how = luck.randrange(8)
    if how < 3:
        return dict(items)
    values = [value for _, value in items]
    whole: tuple[Callable[[], Any], ...] = (
        lambda: collections.OrderedDict(items),
        lambda: values,
        lambda: tuple(values),
        lambda: Bag(items),
        lambda: Config(**dict(items)),
    )
    return whole[how - 3]()


def write_file(luck: random.Random, kind: str, path: Path, value: Any) -> None:
    """Save it in a format; those of plain arrays take flat names."""
    if kind == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=luck.randrange(6)))
    elif kind == "npy":
        array = np.empty((), object)
        array[()] = value
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=True)
    elif kind == "safetensors":
        save_file({k: v.contiguous() for k, v in value.items()}, path, metadata={"format": "pt"})
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{k: v.numpy() for k, v in value.items()})
    else:
        new, protocol = kind == "zip", luck.choice((2, 3, 4, 5))
        torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)


def enter(place: Path, seed: int) -> object:
    """Write a file around known weights, and read it."""
    luck = random.Random(seed)
    known, other = network(1), network(2)
    kind, file = luck.choice(KINDS), luck.choice(FILES)
    flat = file in ("safetensors", "npz")
    value = dict(known.state_dict()) if flat else as_kind(known, kind)
    if prefix := luck.choice(("", "", "module.", "model.net.", "_orig_mod.")):
        value = {prefix + k: v for k, v in value.items()} if isinstance(value, dict) else value
    two = not flat and luck.random() < 0.2
    if two:
        value = around(luck, {"x": value, luck.choice(("y", "ema", "teacher")): as_kind(other, kind)})
    for _ in range(0 if flat else luck.randrange(0 if isinstance(value, dict) else 1, 4)):
        value = around(luck, value)
    path = place / luck.choice(("net.pth", "net.bin", "net", "net.pkl", "n e t.ckpt"))
    with Gone():
        write_file(luck, file, path, value)
    loaded = network(3)
    about = f"{kind} in {file}, prefix '{prefix}', two {two}, {type(value).__name__}"
    try:
        fit = match_state_dict.load(loaded, file_formats.read(path), where=path.name)
    except UserError as error:
        if not two:
            raise AssertionError(f"refused: {about}: {error}") from error
        raise
    same = partial(_equal, loaded)
    assert same(known) or (two and same(other) and "not taken" in str(fit)), f"read wrongly: {about}: {fit}"
    return fit


def _equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().values(), strict=True)
    return all(torch.equal(s, t) for (name, s), t in pairs if not name.endswith("num_batches_tracked"))


def seeds(luck: random.Random) -> Iterator[int]:
    """One number for each file."""
    while True:
        yield luck.randrange(2**31)


def formats() -> Door:
    """Known weights among what others keep beside them."""
    return Door(seeds, enter, share=0.2)


DOORS = {"formats": formats()}
