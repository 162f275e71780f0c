"""Some of the bad input of benchmarks/fuzz.py, through every door; `make survive` has tens of thousands."""

import os
import sys
from pathlib import Path

import pytest

from crossclass.core.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import fuzz as fuzzer
from doors import DOORS


@pytest.mark.parametrize("door", DOORS)
def test_bad_input_is_read_or_refused(tmp_path, door):
    found = fuzzer.fuzz(door, 150, 1, tmp_path)
    assert found["faults"] == []
    assert found["refused"] > 30
    assert found["read"] + found["refused"] == 150


def test_the_fuzzer_sees_faults(tmp_path, monkeypatch):
    def careless(place: Path, data: bytes) -> None:
        how = data[0] % 4
        if how == 0:
            raise ValueError("a traceback")
        if how == 1:
            (place.parent / "elsewhere").touch()
        if how == 2:
            raise UserError("fine")
        os.system("true")

    monkeypatch.setitem(DOORS, "careless", (lambda: [bytes(range(4))], careless, False))
    faults = " ".join(fuzzer.fuzz("careless", 60, 0, tmp_path)["faults"])
    for fault in ("a traceback", "left ['elsewhere']", "system"):
        assert fault in faults


def test_a_hang_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzzer, "SECONDS", 0.05)

    def endless(place: Path, data: bytes) -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:
                continue

    monkeypatch.setitem(DOORS, "endless", (lambda: [b"x"], endless, False))
    assert "more than" in fuzzer.fuzz("endless", 1, 0, tmp_path)["faults"][0]
