"""Other people's code cannot end a command, read its arguments, or change the process behind its back."""

import os
import pickle
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from crossclass.attacks import External
from crossclass.checkpoints.torch_files import read_trusted
from crossclass.core.errors import UserError
from crossclass.core.trust import import_callable, trusting
from crossclass.models import Python
from run_file import TINY

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x))
"""
ENDINGS = {
    "at import": "import sys\nsys.exit(0)\n",
    "by a parser": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--data', required=True)\n"
    "p.parse_args()\n",
    "by its own exception": "class Stop(BaseException): pass\nraise Stop('enough')\n",
    "in the factory": f"{NET}\nimport sys\ndef net(**_): sys.exit()\n",
    "in the factory, by its own exception": f"{NET}\nclass Stop(BaseException): pass\n"
    "def net(**_): raise Stop('enough')\n",
    "in a forward pass, by no Exception": f"{NET}\nclass Late(Net):\n    def forward(self, x):\n"
    "        raise GeneratorExit\ndef net(**_): return Late()\n",
    "at import, at once": "import os\nos._exit(0)\n",
    "in the factory, at once": f"{NET}\nimport os\ndef net(**_): os._exit(0)\n",
    "in a forward pass, at once": f"{NET}\nimport os\nclass Late(Net):\n"
    "    def forward(self, x): os._exit(0)\ndef net(**_): return Late()\n",
    "in a forward pass": f"{NET}\nimport sys\nclass Late(Net):\n    def forward(self, x): sys.exit(0)\n"
    "def net(**_): return Late()\n",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("foreign_"):
            del sys.modules[name]


def imported(name: str):
    with trusting(name):
        return import_callable(name, "a test")


@pytest.mark.parametrize("how", ENDINGS)
def test_no_command_ends_without_a_result_and_without_a_word(here, call, how):
    Path("foreign_net.py").write_text(ENDINGS[how])
    Path("tiny.yaml").write_text(TINY)
    code, out, err = call(
        "train", "tiny.yaml", "model=python:foreign_net:net", "epochs=1", "lr_milestones=[]"
    )
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("crossclass: ")
    assert "foreign_net" in last
    assert "usage:" not in err
    assert not out


def test_an_attack_that_ends_the_process_is_a_sentence(here):
    Path("foreign_attack.py").write_text("def attack(model, x, y): raise SystemExit(3)\n")
    with trusting("foreign_attack:attack"), pytest.raises(UserError, match=r"foreign_attack.*sys.exit\(3\)"):
        External(call="foreign_attack:attack")(nn.Flatten(), torch.rand(2, 1, 1, 2), torch.tensor([0, 1]))


@pytest.mark.parametrize(("ending", "said"), [("os._exit(3)", "os._exit(3)"), ("os.abort()", "os.abort()")])
def test_an_attack_that_ends_the_process_at_once_is_a_sentence(here, ending, said):
    Path("foreign_attack.py").write_text(f"import os\ndef attack(model, x, y): {ending}\n")
    end = os._exit
    with trusting("foreign_attack:attack"), pytest.raises(UserError, match=re.escape(said)):
        External(call="foreign_attack:attack")(nn.Flatten(), torch.rand(2, 1, 1, 2), torch.tensor([0, 1]))
    del sys.modules["foreign_attack"]
    assert os._exit is end


def test_a_process_that_is_forked_inside_ends_as_it_does(here):
    Path("foreign_fork.py").write_text(
        "import os\nchild = os.fork()\nif child == 0: os._exit(7)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\ndef f(): return status\n"
    )
    assert imported("foreign_fork:f")() == 7


@pytest.mark.parametrize("how", ["sys.path.clear()", "sys.path = []", "sys.path.pop(0)", "sys.path = None"])
def test_folders_of_imports_that_are_taken_away_are_put_back(here, how):
    Path("foreign_path.py").write_text(f"import sys\nsys.path.append('/added')\n{how}\ndef f(): pass\n")
    before, folders = sys.path, list(sys.path)
    imported("foreign_path:f")
    assert sys.path is before
    assert set(folders) <= set(sys.path)
    assert ("/added" in sys.path) == ("pop" in how), "what stays may be needed by later imports"


def test_a_module_sees_no_arguments_of_ours(here, capfd):
    Path("foreign_script.py").write_text(
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--depth', type=int, default=3)\n"
        "options = p.parse_args()\nprint('made')\ndef depth(): return options.depth\n"
    )
    assert imported("foreign_script:depth")() == 3
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "made\n")


def test_what_a_module_changes_is_put_back(here):
    Path("foreign_loud.py").write_text(
        "import os, signal, sys, torch\nos.chdir('/')\nsys.argv = ['mine']\nsys.stdout = None\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\ntorch.set_default_dtype(torch.float64)\n"
        "torch.set_grad_enabled(False)\ntorch.use_deterministic_algorithms(True)\ntorch.set_num_threads(2)\n"
        "def f(): pass\n"
    )

    def state():
        return (
            os.getcwd(), sys.argv, sys.stdout, signal.getsignal(signal.SIGINT), torch.get_default_dtype(),
            torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(),
        )  # fmt: skip

    before = state()
    imported("foreign_loud:f")
    assert state() == before


def test_what_a_factory_changes_is_put_back(here):
    Path("foreign_factory.py").write_text(
        f"{NET}\nimport os\ndef net(**_):\n    os.chdir('/')\n    torch.set_grad_enabled(False)\n"
        "    return Net()\n"
    )
    with trusting("foreign_factory:net"):
        Python(call="foreign_factory:net").create(3, 3)
    assert Path.cwd() == here
    assert torch.is_grad_enabled()


def test_a_factory_that_changes_what_files_and_tensors_are_made_like(here):
    Path("foreign_deep.py").write_text(
        f"{NET}\nimport os, sys\ndef net(**_):\n    made = Net()\n    os.umask(0o777)\n"
        "    torch.set_default_device('meta')\n    sys.setrecursionlimit(90)\n    os.mkdir('gone')\n"
        "    os.chdir('gone')\n    os.rmdir('../gone')\n    return made\n"
    )
    mask, limit = os.umask(0o022), sys.getrecursionlimit()
    try:
        with trusting("foreign_deep:net"):
            Python(call="foreign_deep:net").create(3, 3)
        after = os.umask(0o022)
        assert (after, sys.getrecursionlimit()) == (0o022, limit)
        assert torch.empty(1).device.type == "cpu"
        assert Path.cwd() == here
    finally:
        os.umask(mask)
        torch.set_default_device(None)
        sys.setrecursionlimit(limit)
        os.chdir(here)


def test_a_whole_network_finds_its_classes_beside_the_file(here):
    Path("there").mkdir()
    Path("there/foreign_beside.py").write_text(NET)
    sys.path.append(str(here / "there"))
    import foreign_beside

    torch.save(foreign_beside.Net(), "there/net.pth")
    sys.path.remove(str(here / "there"))
    del sys.modules["foreign_beside"]
    assert read_trusted(Path("there/net.pth"))(torch.rand(2, 3, 8, 8)).shape == (2, 3)


class _Ends:
    def __reduce__(self):
        return sys.exit, (0,)


def test_a_pickle_that_ends_the_process_is_a_sentence(here):
    Path("ends.pth").write_bytes(pickle.dumps(_Ends()))
    with pytest.raises(UserError, match=r"ends.pth.*sys.exit\(0\)"):
        read_trusted(Path("ends.pth"))
