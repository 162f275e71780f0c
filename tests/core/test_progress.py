"""Progress in plain Python: a bar for a person who watches, a function where one is given, else nothing."""

import io
import sys
import types

import pytest
import torch

import crossclass as cc
from crossclass.core import progress
from crossclass.core.progress import shown, silent
from tiny_runs import CPU, TINY


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def notebook(monkeypatch):
    """What IPython is in a notebook; the list of all that is displayed."""
    heard: list[str] = []
    handle = types.SimpleNamespace(update=heard.append)
    display = types.ModuleType("IPython.display")
    display.HTML, display.display = str, lambda html, display_id: handle
    ipython = types.ModuleType("IPython")
    ipython.get_ipython, ipython.display = lambda: types.SimpleNamespace(kernel=1), display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return heard


def test_nobody_watches_and_nothing_is_written(capsys):
    with shown() as step:
        assert step is silent
    with shown(False) as step:
        assert step is silent
    assert capsys.readouterr().err == ""


def test_a_function_gets_what_is_done():
    heard = []
    with shown(lambda *given: heard.append(given)) as step:
        step("measure", 1, 2)
    assert heard == [("measure", 1, 2)]


def test_a_terminal_shows_a_bar_and_takes_it_away(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with shown() as step:
        step("train, after epoch 3 of 9", 50, 100)
        with shown() as inner:  # one bar at a time
            inner("measure", 1, 2)
    assert "after epoch 3 of 9" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with shown(False) as step:
        step("train", 50, 100)
    assert not terminal.getvalue()


def test_a_notebook_shows_a_bar_of_the_browser(notebook):
    with shown() as step:
        step("measure", 50, 200)
        step("measure", 50, 200)
        step("measure", 200, 200)
    assert len(notebook) == 3
    assert '<progress value="50" max="200">' in notebook[0]
    assert notebook[-1] == ""


def test_train_measure_and_evaluate_move_it(notebook, tmp_path):
    folder = cc.train(TINY.replace(epochs=2, lr_milestones=()), tmp_path, runtime=CPU)
    assert any("train, after epoch 1 of 2" in text for text in notebook)
    model, _ = cc.load_model(folder.checkpoint("last"))
    data = TINY.data()
    del notebook[:]
    cc.measure(model, data.test.images, data.test.labels, attack=None)
    assert any("measure: 14 of 14" in text for text in notebook)
    del notebook[:]
    cc.evaluate(model, data.test, None, batch=7, progress=True)
    assert any("evaluate: 7 of 14" in text for text in notebook)
    del notebook[:]
    cc.evaluate(model, data.test, None)
    cc.measure([f"{folder.path}@last"], cc.Measure(clean=True), progress=False)
    assert not notebook
    heard = []
    cc.measure([f"{folder.path}@last"], cc.Measure(clean=True), cc.Source(), CPU, lambda *g: heard.append(g))
    assert heard[-1] == ("measure", 14, 14)
    assert torch.is_grad_enabled()
    assert progress._notebook() is not None
