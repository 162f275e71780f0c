"""An entry that is defined here is listed, reproduced, judged and shown on the page without further edits."""

import re
from functools import partial
from html import unescape

from crossclass.cli.catalogue import lines
from crossclass.core.runtime import Runtime
from crossclass.paper.claims import per_seed
from crossclass.paper.entries import ENTRIES
from crossclass.paper.entry import Claim, Effect, Entry
from crossclass.paper.reproduce import Callbacks, Study, reproduce
from crossclass.report.plots.paper_figures import DRAWINGS, bars, draw
from crossclass.report.study import write_study

ENTRY = Entry(
    "figx",
    "CAS at the end",
    "A network shares features between classes to the end of its training.",
    runs={"AT": "wei2025-at-linf-8"},
    claims=(
        Claim(
            "CAS is above a million at the last checkpoint",
            lambda m: [Effect("CAS at last", per_seed(m, "AT", "last", "cas"))],
            margin=1e6,
        ),
    ),
    printed={"cas": 9.0},
)


def test_a_new_claim_is_one_entry_and_one_drawing(tmp_path, monkeypatch):
    monkeypatch.setitem(ENTRIES, ENTRY.id, ENTRY)
    monkeypatch.setitem(DRAWINGS, ENTRY.id, partial(bars, keys=("cas",)))
    assert [line.split() for line in lines() if line.startswith("figx ")] == [
        ["figx", "paper", *ENTRY.title.split()]
    ]
    study = Study(size="smoke", seeds=3, out=tmp_path / "results", runs=tmp_path / "runs")
    (result,) = reproduce(["figx"], study, Runtime(device="cpu", threads=1), Callbacks(draw=draw))
    assert [v.verdict for v in result.verdicts] == ["does not hold"]
    page = write_study(study.folder).read_text()
    section = page.split('<article id="figx"')[1].split("</article>")[0]
    assert "CAS is above a million at the last checkpoint" in section
    assert "does not hold" in section
    (row,) = (r for r in section.split("<tr>") if "CAS at last" in r)
    words = [unescape(cell) for cell in re.split(r"\s*<[^>]*>\s*", row) if cell]
    assert "1, 2" in words, words  # the seeds that count
    assert len([cell for cell in words if re.fullmatch(r"[<\d.,\s\[\]]+", cell)]) >= 3, words
    assert section.count("(not counted)") == 1  # seed 0
    assert "could have decided a difference of" in section
    assert "<svg" in section
