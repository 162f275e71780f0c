"""Some of the bad input of benchmarks/fuzz.py, through every door; `make survive` has tens of thousands."""

import os
import sys
from pathlib import Path

import pytest

from crossclass.core.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import fuzz as fuzzer
from fuzz_doors import DOORS
from fuzz_doors.door import of_bytes


@pytest.mark.parametrize("door", DOORS)
def test_bad_input_is_read_or_refused(tmp_path, door):
    found = fuzzer.fuzz(door, 150, 1, tmp_path)
    assert found["faults"] == []
    assert found["refused"] > (0 if door in ("names of files", "formats") else 30)  # most are fine
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

    monkeypatch.setitem(DOORS, "careless", of_bytes(lambda: [bytes(range(4))], careless))
    faults = " ".join(fuzzer.fuzz("careless", 60, 0, tmp_path)["faults"])
    for fault in ("a traceback", "left ['elsewhere']", "system"):
        assert fault in faults


def test_a_door_whose_good_inputs_are_refused_is_a_fault(tmp_path, monkeypatch):
    def refuse(place: Path, data: bytes) -> None:
        raise UserError("no")

    monkeypatch.setitem(DOORS, "closed", of_bytes(lambda: [b"good"], refuse))
    assert "no input was read" in fuzzer.fuzz("closed", 9, 0, tmp_path)["faults"][0]


def test_a_hang_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzzer, "SECONDS", 0.05)

    def endless(place: Path, data: bytes) -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:
                continue

    monkeypatch.setitem(DOORS, "endless", of_bytes(lambda: [b"x"], endless))
    assert "more than" in fuzzer.fuzz("endless", 1, 0, tmp_path)["faults"][0]


def test_the_benchmarks_write_only_where_they_are_told_to(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzzer, "DOORS", {"none": of_bytes(lambda: [b"x"], lambda place, data: None)})
    kept = Path(fuzzer.__file__).parent / "results" / "fuzz.json"
    before = kept.stat().st_mtime_ns
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "3", f"out={tmp_path / 'fuzz.json'}"])
    fuzzer.main()
    assert (tmp_path / "fuzz.json").exists()
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "3"])
    fuzzer.main()
    assert kept.stat().st_mtime_ns == before
