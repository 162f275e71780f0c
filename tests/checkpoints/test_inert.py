"""Following a pickle: no instruction calls anything, and none takes time or memory without bound."""

import builtins
import importlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from crossclass.checkpoints import file_formats, inert, tensor_tree
from crossclass.checkpoints.inert import Inert, Name, TooMuchError, follow_bytes
from crossclass.checkpoints.stand_ins import TABLE
from crossclass.core.errors import UserError
from crossclass.core.trust import trusting

CALLS = {
    "reduce": b"c{module}\n{name}\n({argument}tR",
    "new object": b"c{module}\n{name}\n({argument}t\x81",
    "new object with keywords": b"c{module}\n{name}\n({argument}t}}\x92",
    "obj": b"(c{module}\n{name}\n{argument}o",
    "inst": b"({argument}i{module}\n{name}\n",
    "stack global": b"\x8c\x08posixlib0\x8c{length}{name}\x93({argument}tR",
    "build by a class": b"c{module}\n{name}\n}}V__setstate__\nc{module}\n{name}\nsb",
    "build an object": b"c{module}\n{name}\n)\x81}}V__dict__\n{argument}sb",
    "call of a call": b"c{module}\n{name}\n({argument}tR({argument}tR",
    "set state of a dictionary": b"ccollections\nOrderedDict\n)R}}V__class__\nc{module}\n{name}\nsb",
    "state of a function": b"ctorch._utils\n_rebuild_tensor_v2\n(N}}V__code__\n{argument}stb",
    "element": b"c{module}\n{name}\n)\x81({argument}e",
    "item": b"c{module}\n{name}\n)\x81({argument}{argument}u",
    "persistent": b"c{module}\n{name}\n({argument}tRQ",
    "rebuild from a type": b"ctorch._tensor\n_rebuild_from_type_v2\n(c{module}\n{name}\nN({argument}tNtR",
    "encode": b"c_codecs\nencode\n(c{module}\n{name}\n({argument}tRtR",
    "ordered": b"ccollections\nOrderedDict\n(c{module}\n{name}\n({argument}tRtR",
    "parameter": b"ctorch._utils\n_rebuild_parameter\n(c{module}\n{name}\n({argument}tRI01\nNtR",
    "nested file": b"ctorch.storage\n_load_from_bytes\n(c{module}\n{name}\n({argument}tRtR",
}
CALLEES = [
    *[("os", "system"), ("posix", "system"), ("os", "mkdir"), ("subprocess", "call"), ("shutil", "copy")],
    *[("builtins", "eval"), ("builtins", "exec"), ("__builtin__", "eval"), ("builtins", "getattr")],
    *[("builtins", "__import__"), ("builtins", "open"), ("torch", "load"), ("torch.hub", "load")],
    *[("torch.serialization", "load"), ("pickle", "loads"), ("dill", "loads"), ("operator", "attrgetter")],
    *[("types", "CodeType"), ("types", "FunctionType"), ("functools", "partial"), ("code", "interact")],
    *[("numpy.testing._private.utils", "runstring"), ("torch.jit", "load"), ("importlib", "import_module")],
    *[("collections", "OrderedDict.fromkeys"), ("torch._utils", "os.system"), ("builtins", "map")],
]


@pytest.mark.parametrize("how", CALLS)
def test_no_instruction_calls_anything(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    canary.write_text("here", encoding="ascii")
    called: list[str] = []

    def alarm(name: str) -> Callable[..., None]:
        return lambda *a, **k: called.append(name)

    argument = f"Vrm -f {canary}\n".encode()
    files = []
    for number, (module, name) in enumerate(CALLEES):
        raw = CALLS[how]
        for word, text in (
            (b"{module}", module.encode()),
            (b"{name}", name.encode()),
            (b"{argument}", argument),
            (b"{length}", bytes([len(name)])),
            (b"}}", b"}"),
            (b"posixlib0", b"posixlib"),
        ):
            raw = raw.replace(word, text)
        w = pickle.dumps(np.arange(3.0), 2)[2:-1]
        files.append(tmp_path / f"{number}.pkl")
        files[-1].write_bytes(b"\x80\x02}(Vw\n" + w + b"Vnote\n" + raw + b"u.")
    monkeypatch.setattr(os, "system", alarm("system"))
    monkeypatch.setattr(os, "mkdir", alarm("mkdir"))
    monkeypatch.setattr(builtins, "eval", alarm("eval"))
    monkeypatch.setattr(importlib, "import_module", alarm("import_module"))
    trees = [file_formats.read(file) for file in files]
    monkeypatch.undo()
    assert called == []
    assert canary.read_text(encoding="ascii") == "here"
    assert all(torch.equal(tree["w"], torch.arange(3.0).double()) for tree in trees)
    assert torch._utils._rebuild_tensor_v2.__code__.co_name == "_rebuild_tensor_v2"


def test_what_would_be_called_is_recorded() -> None:
    imported: dict[str, None] = {}
    value = follow_bytes(b"\x80\x02cos\nsystem\n(Vls\ntR}Va\nI1\nsb.", TABLE, imported)
    assert isinstance(value, Inert)
    assert (value.of, value.args, value.state) == ("os.system", ("ls",), {"a": 1})
    assert list(imported) == ["os.system"]
    assert follow_bytes(b"cos\nsystem\n.", TABLE, imported) == Name("os", "system")


def test_what_pickle_itself_reads_is_read_the_same() -> None:
    value: list[Any] = [None, True, 1, -(2**70), 0.5, "a\u20ac", b"b", bytearray(b"c"), (), (1,), (1, 2, 3)]
    value.append({"k": [{}]})
    value.append(value[-1])
    for protocol in range(6):
        assert follow_bytes(pickle.dumps(value, protocol), TABLE, {}) == value


def refused(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    for trust in (False, True):
        with trusting(everything=trust), pytest.raises(UserError) as e:
            file_formats.read(path)
    return str(e.value)


def deep(opening: bytes, closing: bytes, n: int) -> bytes:
    return b"\x80\x02" + opening * n + closing * n + b"."


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pkl"
    monkeypatch.setattr(tensor_tree, "_MOST_VISITS", 10_000)
    with monkeypatch.context() as patch:
        patch.setattr(inert, "MOST", 1000)
        assert "more than 1000 instructions" in refused(path, b"\x80\x02" + b"N0" * 2_000 + b"N.")
    for bomb in (
        deep(b"(", b"t", 30_000),  # a tuple in a tuple ...
        deep(b"(", b"l", 30_000),
        b"\x80\x02}" + b"(" * 30_000 + b"t" * 30_000 + b"Nsh\x00.",  # ... as a key
        b"\x80\x02]r\xff\xff\xff\x7f.",  # the largest place of the memo
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",  # bytes that are not there
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
        b"L" + b"9" * 100_000 + b"L\n.",
        b"\x80\x02" + b"l" * 10 + b".",
        b"\x80\x02cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",
    ):
        refused(path, bomb)
    laughs = b"\x80\x02](Vw\nq\x01" + b"1"
    for number in range(60):  # each dictionary holds the one before it ten times
        laughs += b"}(" + b"".join(b"V%d\nh\x02" % i for i in range(10 if number else 0)) + b"uq\x02"
    assert "objects" in refused(path, laughs + b".") or "no named tensors" in refused(path)


class Twice(nn.Module):
    """Holds the module below it twice."""

    def __init__(self, below: nn.Module) -> None:
        super().__init__()
        self.a = self.b = below


def test_a_module_that_is_held_very_often_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_tree, "_MOST_VISITS", 10_000)
    net: nn.Module = nn.Linear(2, 2)
    for _ in range(40):
        net = Twice(net)
    torch.save({"net": net, "w": torch.ones(1)}, tmp_path / "a.pt")
    assert "it has more than" in refused(tmp_path / "a.pt")


def test_a_tensor_cannot_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "a.pt")
    assert "a tensor of 1000000000000 numbers" in refused(tmp_path / "a.pt")
    torch.save({"w": torch.ones(3).expand(2, 3)}, tmp_path / "a.pt")
    assert file_formats.read(tmp_path / "a.pt")["w"].shape == (2, 3)
    torch.save({"w": torch.ones(4)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "a.pt").read_bytes()
    assert whole.count(b"K\x04\x85") == 1  # its size, (4,)
    for size in (b"K\x05\x85", b"J\xff\xff\xff\xff\x85", b"J\xff\xff\xff\x7f\x85"):
        refused(tmp_path / "a.pt", whole.replace(b"K\x04\x85", size))


def test_packed_archives_are_bounded(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(1000))
    directory = bytearray((tmp_path / "a.npz").read_bytes())
    at = directory.rindex(b"PK\x01\x02")
    directory[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    refused(tmp_path / "a.npz", bytes(directory))


def test_arguments_that_make_no_sense_give_inert_objects() -> None:
    for name, function in TABLE.items():
        module, _, last = name.rpartition(".")
        for arguments in (b")", b"(NNNNNNt", b"(](lI3\nt", b"(V\xe9\nV\xe9\nV\xe9\nt"):
            try:
                follow_bytes(f"c{module}\n{last}\n".encode() + arguments + b"R.", TABLE, {})
            except (ValueError, TooMuchError):  # a damaged file
                assert function is not None


def test_a_nested_file_is_read_once_only(tmp_path: Path) -> None:
    def within(raw: bytes) -> bytes:
        return b"\x80\x04ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(raw)) + raw + b"tR."

    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "a.pkl").write_bytes(within(buffer.getvalue()))
    assert torch.equal(file_formats.read(tmp_path / "a.pkl")["w"], torch.ones(2))
    raw: Any = buffer.getvalue()
    for _ in range(50):
        raw = within(raw)
    refused(tmp_path / "a.pkl", raw)
