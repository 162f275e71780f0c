"""Every entry of the paper has a drawing, made from its stored numbers."""

import json
from pathlib import Path

import pytest

from crossclass.paper.entries import ENTRIES
from crossclass.report.plots.paper_figures import DRAWINGS, draw

MINI = Path(__file__).parents[2] / "results" / "mini"


def test_every_entry_has_a_drawing_and_every_drawing_an_entry():
    assert set(DRAWINGS) == set(ENTRIES)


@pytest.mark.parametrize("id_", DRAWINGS)
def test_stored_numbers_are_drawn(id_, tmp_path):
    numbers = json.loads((MINI / f"{id_}.json").read_text())["numbers"]
    draw(id_, numbers, tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text().count("<svg") == 1
