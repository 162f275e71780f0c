"""Every text file is read and written as UTF-8, whatever the locale."""

import ast
from pathlib import Path

import pytest

import crossclass

ROOT = Path(__file__).parents[2]
PACKAGE = Path(crossclass.__file__).parent
FILES = [*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]


def of_the_locale(source: str) -> list[str]:
    """The calls that open a text file without saying its encoding."""
    out = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg in ("encoding", None) for k in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        given = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
        modes = [
            a.value for a in given if isinstance(a, ast.Constant) and str(a.value).strip("rwaxbt+") == ""
        ]
        opens = name in ("open", "fdopen") and owner not in (
            "os",
            "Image",
            "tarfile",
            "zipfile",
            "webbrowser",
            "archive",
        )
        opens = opens or (owner, name) == ("os", "fdopen")
        text = {"read_text": not node.args, "write_text": len(node.args) < 2}.get(name, False)
        text = text or (
            name in ("run", "Popen", "check_output") and any(k.arg == "text" for k in node.keywords)
        )
        if text or (opens and not any("b" in str(m) for m in modes)):
            out.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_text_files_say_their_encoding(path):
    assert of_the_locale(path.read_text("utf-8")) == []


def test_the_test_sees_them():
    wrong = "p.read_text()\np.write_text('a')\nopen(p)\np.open('w')\nopen(p, 'a')\nrun(c, text=True)\n"
    assert len(of_the_locale(wrong)) == 6
    right = "p.read_text('utf-8')\nopen(p, 'rb')\np.open('wb')\nos.open(p, 1)\nopen(p, encoding='utf-8')\n"
    assert of_the_locale(right) == []
