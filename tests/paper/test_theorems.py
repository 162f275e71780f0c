"""The theorems as entries: the paper's statements decide the word, checks and extensions stand beside it."""

import ast
import json
from pathlib import Path

import pytest

import crossclass
from crossclass.paper.theorems import OWN, SOURCES, THEOREMS

BY_ID = {e.id: e for e in THEOREMS}
PACKAGE = Path(crossclass.__file__).parent


@pytest.fixture(scope="module")
def measured():
    return {id_: entry.measure({}, "smoke") for id_, entry in BY_ID.items()}


@pytest.mark.parametrize("id_", BY_ID)
def test_numbers_are_plain(measured, id_):
    numbers = measured[id_]
    assert json.loads(json.dumps(numbers)) == numbers


@pytest.mark.parametrize(("id_", "own"), [("thm1", 3), ("thm2", 1), ("thm3", 1), ("cor1", 1), ("bridge", 0)])
def test_the_paper_s_own_statements_are_told_from_the_rest(measured, id_, own):
    verdicts = BY_ID[id_].verdicts(measured[id_])
    mine = [v for v in verdicts if not v.extension]
    assert len(mine) == own, [v.claim for v in mine]
    assert {v.verdict for v in mine} <= {"holds"}
    assert len(verdicts) > own


def test_every_marker_marks_something(measured):
    claims = [v["claim"] for m in measured.values() for v in m["verdicts"]]
    for words in OWN:
        assert any(words in claim for claim in claims), words


def test_what_does_not_hold_stays_visible_with_its_numbers(measured):
    verdicts = BY_ID["thm2"].verdicts(measured["thm2"])
    wrong = [v for v in verdicts if v.verdict == "does not hold"]
    assert any("always more beneficial" in v.claim for v in wrong)
    assert all(v.reason and v.numbers for v in wrong)


def test_thresholds_of_the_pictures_are_those_of_the_paper_s_formulas(measured):
    assert measured["thm1"]["eps0"] == pytest.approx(0.5 - 0.9 / (2 * 3.141592653589793**0.5))
    assert measured["thm1"]["eps1"] == pytest.approx(0.5 - 0.75 * 0.9 / (2 * 3.141592653589793**0.5))


def test_training_stands_beside_its_theorem(measured):
    found = {id_: BY_ID[id_].verdicts(measured[id_]) for id_ in ("thm1", "thm3", "cor1")}
    trained = {id_: [v for v in each if "steps of AT" in v.where] for id_, each in found.items()}
    assert {id_: len(each) for id_, each in trained.items()} == {"thm1": 3, "thm3": 3, "cor1": 4}
    assert not any("label smoothing" in v.where for v in trained["thm1"])
    assert all("label smoothing" in v.where for v in trained["thm3"])
    assert [v for v in trained["cor1"] if "(corollary 1)" in v.claim] == trained["cor1"][3:]
    assert trained["cor1"][:3] == trained["thm3"]


def imported(file):
    """The files of the package that a file imports from."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "crossclass":
            place = PACKAGE.joinpath(*node.module.split(".")[1:])
            for one in (place, *(place / a.name for a in node.names)):
                yield from (f for f in (one.with_suffix(".py"), one / "__init__.py") if f.is_file())


@pytest.mark.parametrize("id_", SOURCES)
def test_what_computes_the_numbers_is_in_their_checksum(id_):
    files = {pattern: set(PACKAGE.glob(pattern)) for pattern in SOURCES[id_]}
    assert all(files.values()), files
    hashed = set().union(*files.values())
    # no number depends on errors, nor on what reads back the file that training wrote
    for file in hashed:
        if file.parent.name in ("paper", "theory") and file.stem != "theorems":
            missed = {f.relative_to(PACKAGE) for f in set(imported(file)) - hashed}
            named = {f for f in missed if f.name not in ("__init__.py", "run.py")}
            assert {f.parts[0] for f in named} <= {"core", "checkpoints"}, file.name
