"""Figures do not depend on what somebody else set for matplotlib."""

import os
import subprocess
import sys

import matplotlib as mpl
import pytest

from crossclass.report import plots
from crossclass.report.plots.style import styled

DRAW = """
import sys
from crossclass.report import plots
figure = plots.curves({"a": [{"epoch": e, "test_robust": e / 9, "lr": 0.1} for e in (1, 2, 3)]})
sys.stdout.write(plots.svg(figure))
"""
RC = "text.usetex: True\nsavefig.dpi: 10\naxes.facecolor: red\nlines.linewidth: 9\nxtick.labelsize: 30\n"
SETTINGS = {
    "nothing": ({}, ""),
    "a backend that does not exist": ({"MPLBACKEND": "nonsense"}, ""),
    "a module that does not exist": ({"MPLBACKEND": "module://nothing"}, ""),
    "a screen that is not there": ({"MPLBACKEND": "TkAgg"}, ""),
    "somebody's style": ({}, RC),
    "broken lines": ({}, "this is : : broken\nfigure.figsize: a, b\nbackend: nonsense\n" + RC),
}


def drawn(folder, environment, rc):
    if rc:
        (folder / "matplotlibrc").write_text(rc)
    return subprocess.run(
        [sys.executable, "-c", DRAW],
        cwd=folder,
        env=os.environ | {"MPLCONFIGDIR": str(folder)} | environment,
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("usual"), {}, "").stdout


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_same_numbers_give_the_same_picture(tmp_path, usual, settings):
    done = drawn(tmp_path, *SETTINGS[settings])
    assert done.returncode == 0, done.stderr
    assert done.stdout == usual
    assert usual.startswith(b"<svg")
    assert done.stderr == b""


def test_a_matplotlibrc_that_is_no_text_is_one_sentence(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"axes.facecolor: \xff\xfe\n")
    code = "from crossclass.core.errors import UserError\ntry:\n import crossclass.report.plots\n"
    code += "except UserError as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert "matplotlibrc" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_settings_of_the_caller_are_not_used_and_come_back():
    rows = {"a": [{"epoch": e, "test_robust": e / 9, "lr": 0.1} for e in (1, 2, 3)]}
    before = plots.svg(plots.curves(rows))
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "red", "font.size": 30}):
        inside = plots.svg(plots.curves(rows))
        assert mpl.rcParams["lines.linewidth"] == 9
        with styled():
            assert mpl.rcParams["axes.facecolor"] == "white"
    assert inside == before
