"""The gallery shows the pictures that its script draws, each with its call, and they are small."""

import ast
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_page_script_and_files_name_the_same_pictures():
    files = {path.name for path in (DOCS / "gallery").iterdir()}
    page = (DOCS / "gallery.md").read_text()
    drawn = next(
        node.value
        for node in ast.parse((DOCS / "make_gallery.py").read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "PICTURES"
    )
    assert {key.value for key in drawn.keys} == files
    assert set(re.findall(r"\(gallery/([\w.-]+)\)", page)) == files
    for section in page.split("\n## ")[1:]:
        assert "gallery/" not in section or "\n    " in section, f"no call: {section[:40]}"


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in (DOCS / "gallery").iterdir()}
    assert max(sizes.values()) < 100_000, sizes
    assert sum(sizes.values()) < 1_000_000
