"""Imports go down the list of packages only, and each outside library is imported in few known places."""

import ast
import subprocess
import sys
from pathlib import Path

import crossclass

ROOT = Path(crossclass.__file__).parent
PACKAGES = (
    *("core", "data", "models", "attacks", "checkpoints", "analysis", "diagnostics", "training"),
    *("paper", "report", "cli"),
)
"""From the lowest to the highest: a package imports from itself and from those before it."""
DOORS = {
    "accelerate": {"core"},
    "psutil": {"core"},
    "joblib": {"core"},
    "captum": {"analysis"},
    "huggingface_hub": {"models"},
    "matplotlib": {"report"},
    "pyautoattack": {"attacks"},
    "autoattack": {"attacks"},
    "submitit": {"cli"},
    "timm": {"models"},
    "torchmetrics": {"analysis"},
    "torchvision": {"models"},
    "typer": {"cli"},
    "rich": {"core", "cli"},
    "jinja2": {"report"},
    "pooch": {"data"},
    "sklearn": {"data", "analysis"},
    "PIL": {"data"},
    "scipy": {"analysis", "diagnostics", "paper"},
    "safetensors": {"checkpoints", "models"},
    "yaml": {"core", "analysis", "cli"},
}
LONG: dict[str, str] = {}
"""Files of more than 500 lines, each with the reason why it is one idea."""


def files() -> dict[Path, str]:
    """Every module below a package, with the package's name."""
    return {path: path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py") if path.parent != ROOT}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{a.name}" for a in node.names}
            assert node.level == 0, f"{path}: relative import"
    return names


def test_there_are_these_packages_and_nothing_beside_them():
    inside = {p.name for p in ROOT.iterdir() if p.name != "__pycache__"}
    assert inside == {*PACKAGES, "__init__.py", "__init__.pyi", "__main__.py", "py.typed"}
    assert not [p for p in ROOT.rglob("*.py") if "util" in p.stem or "helper" in p.stem]


def test_imports_go_down_only():
    for path, package in files().items():
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "crossclass":
                assert parts[1] in PACKAGES, f"{path} imports {name}: name its package"
                assert PACKAGES.index(parts[1]) <= PACKAGES.index(package), f"{path} imports {name}"


def test_each_library_has_its_doors():
    for path, package in files().items():
        for name in imports(path):
            library = name.split(".")[0]
            assert package in DOORS.get(library, {package}), f"{path} imports {library}"


def test_light_imports_stay_light():
    # help and mistakes in names must not wait for torch; the report must not need it at all
    code = (
        "import sys, crossclass, crossclass.cli; assert 'torch' not in sys.modules, 'torch';"
        "import crossclass.report; assert 'torch' not in sys.modules, 'report needs torch'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_exist_and_have_docstrings():
    for name in crossclass.__all__:
        assert getattr(crossclass, name).__doc__, name


def test_modules_say_their_idea_and_long_ones_why():
    for path in files():
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
        name = str(path.relative_to(ROOT))
        assert (text.count("\n") > 500) == (name in LONG), f"{name}: {text.count(chr(10))} lines"


def test_tests_are_short_too():
    for path in Path(__file__).parent.rglob("*.py"):
        assert path.read_text().count("\n") <= 500, f"{path}: split it by the ideas in it"


def test_public_functions_are_documented_and_annotated():
    for path in files():
        tree = ast.parse(path.read_text())
        outer = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        inner = [n for c in outer if isinstance(c, ast.ClassDef) and c.name[0] != "_" for n in c.body]
        for node in [*outer, *inner]:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node) or is_overload(node), f"{path}: {node.name} has no docstring"
            if isinstance(node, ast.FunctionDef):
                assert node.returns is not None, f"{path}: {node.name} has no return annotation"


def is_overload(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether it says one way to call a function whose docstring follows."""
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)


def test_there_is_one_conftest():
    # tests import from it by its name, and a second one would take that name while they run
    assert [path.parent.name for path in Path(__file__).parent.rglob("conftest.py")] == ["tests"]
