"""Imports go downwards only, and each outside library has one door."""

import ast
import subprocess
import sys
from pathlib import Path

import crossclass

ROOT = Path(crossclass.__file__).parent
LAYERS = [
    {"errors", "progress", "table", "verdict"},
    {
        "files",
        "settings",
        "attribution",
        "instances",
        "losses",
        "view",
        "synced",
        "readers",
        "streams",
        "shapes",
        "importing",
        "memory",
        "alarms",
        "theory",
    },
    {"augment", "checkpoint", "weights", "threat", "data", "models", "runtime", "intervals", "metrics"},
    {"attacks", "store", "saliency", "matching", "plot"},
    {"recipes", "evaluate", "failure"},
    {"subjects", "doctor", "compare"},
    {"measure"},
    {"watch", "learner", "teachers", "anchors"},
    {"epoch"},
    {"train"},
    {"experiments"},
    {"report", "catalogue", "sweep"},
    {"cli"},
    {"__main__"},
]
DOORS = {
    "accelerate": {"runtime"},
    "captum": {"saliency"},
    "huggingface_hub": {"models"},
    "matplotlib": {"plot"},
    "pyautoattack": {"attacks"},
    "autoattack": {"attacks"},
    "submitit": {"sweep"},
    "timm": {"models"},
    "torchmetrics": {"metrics"},
    "torchvision": {"models"},
    "typer": {"cli"},
    "rich": {"progress"},
    "jinja2": {"report"},
    "pooch": {"readers"},
    "sklearn": {"readers"},
    "PIL": {"readers"},
    "scipy": {"theory", "experiments"},
    "safetensors": {"checkpoint", "weights", "models"},
    "yaml": {"settings", "report", "experiments", "sweep", "cli"},
}
LEVEL = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def modules() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in ROOT.rglob("*.py"):
        top = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if top != "__init__":
            found.setdefault(top, []).append(path)
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{a.name}" for a in node.names}
            assert node.level == 0, f"{path}: relative import"
    return names


def test_every_module_has_a_layer():
    assert set(modules()) == set(LEVEL)


def test_imports_go_down_only():
    for module, paths in modules().items():
        for path in paths:
            for name in imports(path):
                parts = name.split(".")
                if parts[0] != "crossclass":
                    continue
                assert len(parts) > 1
                other = parts[1]
                inside = other == module and path.parent != ROOT
                assert inside or LEVEL[other] < LEVEL[module], f"{path} imports {name}"


def test_each_library_has_one_door():
    for module, paths in modules().items():
        for path in paths:
            for name in imports(path):
                library = name.split(".")[0]
                assert module in DOORS.get(library, {module}), f"{path} imports {library}"


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


def test_modules_are_short_and_say_their_idea():
    for paths in modules().values():
        for path in paths:
            text = path.read_text()
            assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
            assert text.count("\n") <= 330, f"{path} is too long"


def test_public_functions_are_documented_and_annotated():
    for paths in modules().values():
        for path in paths:
            tree = ast.parse(path.read_text())
            outer = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            inner = [n for c in outer if isinstance(c, ast.ClassDef) and c.name[0] != "_" for n in c.body]
            for node in [*outer, *inner]:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"
                if isinstance(node, ast.FunctionDef):
                    assert node.returns is not None, f"{path}: {node.name} has no return annotation"
