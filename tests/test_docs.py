"""The documents are true: every block runs, every name that exists is documented."""

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import test_layers
from crossclass.attacks import AnyAttack
from crossclass.attacks.norms import AnyThreat
from crossclass.cli import names as command_names
from crossclass.core.plugins import kind_of, members
from crossclass.data import AnyData
from crossclass.models import AnyModel
from crossclass.paper.runs import NAMED
from crossclass.training.recipes import AnyRecipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = "\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.S)


@pytest.mark.parametrize("code", [c for kind, c in BLOCKS if kind == "python"])
def test_python_blocks_run(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_commands_in_blocks_exist():
    names = set(command_names())
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    shown = set()
    for kind, code in BLOCKS:
        if kind != "bash":
            continue
        for line in code.splitlines():
            words = line.split("#")[0].split()
            if words and words[0] == "crossclass":
                assert words[1] in names, line
                shown.add(words[1])
                if words[1] == "train":
                    assert words[2] in NAMED, line
            elif words and words[0] == "make":
                assert set(words[1:]) <= targets, line
    undocumented = {name for name in names - shown if f"\ncrossclass {name}" not in PAGES}
    assert not undocumented, f"neither in the README nor in docs: {undocumented}"


def test_every_plugin_is_documented():
    settings = (ROOT / "docs" / "settings.md").read_text()
    for family in (AnyAttack, AnyThreat, AnyRecipe, AnyData, AnyModel):
        for member in members(family):
            assert f"\n### {kind_of(member)}\n" in settings, f"{member.__name__} is not in docs/settings.md"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_pictures_exist_and_links_lead_somewhere(name):
    text = (ROOT / name).read_text()
    targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_architecture_says_how_to_add_each_thing():
    table = (ROOT / "ARCHITECTURE.md").read_text().split("## Twelve change requests")[1]
    rows = [line for line in table.splitlines() if line.startswith("| a")]
    assert len(rows) == 12
    assert all("](src/" in row and "](tests/" in row for row in rows)


def test_the_picture_of_the_packages_is_that_of_the_layers():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import packages
    finally:
        sys.path.remove(str(ROOT / "docs"))
    assert tuple(packages.PACKAGES) == test_layers.PACKAGES[::-1]
    assert (ROOT / "docs" / "packages.svg").read_text() == packages.svg()


def test_the_verdicts_are_those_of_the_results():
    command = [sys.executable, str(ROOT / "results" / "verdicts.py"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pages_are_those_of_the_program():
    command = [sys.executable, str(ROOT / "docs" / "made.py"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_documents_name_what_exists(path):
    text = path.read_text()
    for file, name in re.findall(r"`((?:\w+/)?test_\w+\.py)(?:::(\w+))?`", text):
        tests = (ROOT / "tests" / file).read_text()
        assert not name or re.search(rf"(def|class) {name}\b", tests), f"{file}::{name}"
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert (path.parent / target).exists(), target
    for line in re.findall(r"^    (.*)$", text, flags=re.M):
        words = line.split("#")[0].split()
        if "crossclass" in words:
            assert words[words.index("crossclass") + 1] in command_names(), line


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *DOCS], ids=lambda p: p.name)
def test_python_names_in_documents_exist(path):
    for name in set(re.findall(r"(?<![/\w])(?:cc|crossclass)\.([A-Za-z_][\w.]*\w)", path.read_text())):
        pkgutil.resolve_name(f"crossclass.{name}")
