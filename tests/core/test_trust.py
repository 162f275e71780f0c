"""What a stranger's file, name or text must not be able to do; archives and pickles have tests of their own.

Pickles: test_weights.py (weights), test_readers.py (CIFAR). Archives: test_readers_cifar10_archive.py and
test_readers_tiny_imagenet.py. Names on the page: test_report.py. Bytes of any kind: test_fuzz.py.
"""

import ast
import shutil
import socket
import sys
from pathlib import Path

import pytest

import crossclass
from crossclass.cli import main
from crossclass.cli.arguments import assign
from crossclass.cli.sweep import expand
from crossclass.core.errors import UserError
from crossclass.core.trust import import_callable, trusting
from crossclass.models import PreActResNet, rebuild
from crossclass.models.external_model import Timm
from crossclass.paper.runs import resolve
from run_file import TINY

ROOT = Path(crossclass.__file__).parent
POISON = "!!python/object/apply:os.mkdir ['{}']"


def command(*arguments: str) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as e:
        main(list(arguments))
    return int(e.value.code or 0)


def calls(path: Path) -> set[str]:
    """Dotted names of everything that a module calls."""
    nodes = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
    return {ast.unparse(n.func) for n in nodes}


# What runs code, and where it may stand.
DANGEROUS = {
    "eval": set(),
    "exec": set(),
    "compile": set(),
    "os.system": set(),
    "yaml.load": {"core/yaml_reader.py"},  # with a loader that makes plain values only
    "yaml.unsafe_load": set(),
    "pickle.loads": set(),
    "pickle.load": {"checkpoints/torch_files.py"},  # with --trust
    "torch.load": {"checkpoints/torch_files.py"},
    # allow_pickle only with --trust, and only in the first
    "np.load": {
        "checkpoints/file_formats.py",
        "analysis/result_files.py",
        "analysis/pictures.py",
        "analysis/feature_pictures.py",
    },
    "importlib.import_module": {"core/trust.py"},  # with consent
    "import_module": {"__init__.py"},  # names of ours
    "__import__": set(),
    "subprocess.Popen": {"cli/jobs.py", "cli/live_page.py"},  # crossclass itself, as a list of arguments
    "subprocess.run": set(),
}


def test_nothing_runs_code_but_where_it_is_meant_to():
    found = {name: set() for name in DANGEROUS}
    for path in ROOT.rglob("*.py"):
        for name in calls(path) & set(DANGEROUS):
            found[name].add(str(path.relative_to(ROOT)))
    assert found == DANGEROUS


def test_no_shell():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                pytest.fail(f"{path} starts a shell")


def test_yaml_makes_plain_values_only(tmp_path):
    evil, path = tmp_path / "evil", tmp_path / "x.yaml"
    poison = POISON.format(evil)
    with pytest.raises(UserError, match="the value is not valid YAML"):
        assign(crossclass.Run(), [f"lr_milestones={poison}"])
    path.write_text(TINY + f"seed: {poison}\n")
    with pytest.raises(UserError, match="could not determine a constructor"):
        resolve(str(path))
    path.write_text(f"run: cifar10-mini\ngrid: {{seed: [{poison}]}}\n")
    with pytest.raises(UserError, match="could not determine a constructor"):
        expand(str(path))
    assert not evil.exists()


def test_no_network_unless_asked(tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise AssertionError(f"somebody wants to connect: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(TINY)
    assert command("train", "run.yaml") == 0
    folder = capsys.readouterr().out.strip().splitlines()[-1]
    assert command("measure", folder, "n=9") == 0
    assert command("report", folder) == 0
    assert command("reproduce", "fig1", "size=smoke", "seeds=1") == 0
    # and where data are not there, it says so instead of fetching them
    assert command("train", "rice2020", f"data.path={tmp_path}") == 2
    assert "data.download=true" in capsys.readouterr().err


def test_names_of_runs_are_escaped_on_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "<script>alert(1)<b>"
    Path(f"{name}.yaml").write_text(TINY)
    assert command("train", f"{name}.yaml") == 0
    folder = capsys.readouterr().out.strip().splitlines()[-1]
    assert command("report", folder) == 0
    page = Path(capsys.readouterr().out.strip().splitlines()[-1]).read_text()
    assert name not in page
    assert "&lt;script&gt;alert(1)" in page


def test_timm_reads_no_file_of_weights_without_consent():
    model = Timm(name="resnet18", arguments={"checkpoint_path": "weights.pth"})
    with pytest.raises(UserError, match=r"model.arguments has checkpoint_path.*--trust"):
        model.create(10, 3)


def test_the_current_folder_shadows_no_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    Path("my_nets_here.py").write_text("def f(): return 1\n")
    with trusting("my_nets_here:f"):
        assert import_callable("my_nets_here:f", "a test")() == 1
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("env.json", b"[1]"), ("env.json", b"\xff\xfe"), ("config.yaml", b"\xff"), ("events.jsonl", b"[1]\n")],
)
def test_damaged_files_of_a_run_folder_are_one_sentence(whole, tmp_path, capsys, name, content):
    folder = shutil.copytree(whole.path, tmp_path / whole.path.name)
    (folder / name).write_bytes(content)
    code = (
        command("verify", str(folder)) if name != "env.json" else command("measure", f"{folder}@last", "n=9")
    )
    assert code == 2
    assert name in capsys.readouterr().err


def test_a_card_that_asks_for_too_much_memory_is_refused():
    with pytest.raises(UserError, match="the model that the card describes cannot be made"):
        rebuild(PreActResNet(width=10**7), {}, 10, 3)
