"""Run folders and result files as they are written, and a page as its reader sees it."""

import base64
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

EVIL = ["<script>alert(1)</script>", "</script>", "a & b", '" onload="x', "$x^$", "类"]


ATTACK = "PGD-20, l_inf 8/255, step eps/4, uniform start"


CAS_NOTE = "Read CAS with accuracy"


def square(K: int, off: float) -> list[list[float]]:
    return [[1.0 if i == j else off for j in range(K)] for i in range(K)]


def row(epoch: int, robust: float | None, off: float | None, K: int = 6, **more: Any) -> dict[str, Any]:
    nothing = ("cas", "classwise_robust", "predicted_classes", "C", "test_clean")
    at: dict[str, Any] = dict.fromkeys(nothing)
    if off is not None:
        at = {"cas": K * (K - 1) * off, "classwise_robust": [robust] * K, "predicted_classes": K}
        at |= {"C": square(K, off), "test_clean": 0.5}
    logged = {"lr": 0.1 if epoch < 3 else 0.01, "seconds": 2.0, "train_robust": 0.2 + 0.1 * epoch}
    return {"epoch": epoch, "test_robust": robust, "warnings": [], **logged, **at, **more}


def result_file(objects: Any) -> Any:
    """Flat objects, as the tests write them, in the layout of a result file."""
    if not isinstance(objects, list):
        return objects
    results: list[Any] = []
    comparisons: list[Any] = []
    for one in objects:
        flat = dict(one.get("comparison", one))
        names = ("C", "icas_matrix", "all_pairs_matrix", "confusion", "sharing", "C_difference")
        flat["matrices"] = {k: flat.pop(k) for k in names if k in flat}
        flat["data"] = {
            "name": flat.get("data") or "toy",
            "n": flat.pop("n", None),
            "split": flat.pop("split", None),
        }
        if "comparison" in one:
            if of := flat.get("of"):
                flat["of"] = [{"name": r["checkpoint"], "run": r["run"], "epoch": r.get("epoch")} for r in of]
            comparisons.append(flat)
        else:
            keys = ("run", "epoch", "chosen_by")
            at = {k: flat.pop(k) for k in keys if k in flat}
            flat["checkpoint"] = {"name": flat["checkpoint"], **at, "run": at.get("run") or ""}
            results.append(flat)
    return {"schema": 1, "results": results, "comparisons": comparisons}


def write_run(folder: Path, rows: list[dict[str, Any]], measures: Any = None, **env: Any) -> Path:
    """A run folder as training leaves it; without measures it is still in progress."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("epochs: 9\nlr_milestones: [3]\nseed: 0\nrecipe: {kind: at}\n")
    (folder / "events.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "metrics.csv").write_text("epoch,cas\n1,2\n")
    about = {"label": "toy", "seed": 0, "check": "PGD-10, 100 test images", "crossclass": "0.1.0"}
    (folder / "env.json").write_text(json.dumps({**about, "class_names": EVIL, **env}))
    if measures is not None:
        (folder / "measure.json").write_text(json.dumps(result_file(measures)))
        (folder / "DONE").touch()
    return folder


def measure(name: str, epoch: int, robust: float, off: float, K: int = 6, **more: Any) -> dict[str, Any]:
    how: dict[str, Any] = {"data": "toy", "split": "test", "n": 1000, "attack": ATTACK}
    how["chosen_by"] = name.partition(".")[2] or None
    how["conditions"] = {"eps": "8/255", "steps": 20, "seed": 5, "precision": "fp32"}
    numbers: dict[str, Any] = {"clean": 0.5, "robust": robust, "C": square(K, off)}
    numbers["classwise_robust"] = [robust] * K
    numbers |= {"cas": K * (K - 1) * off, "cas_normalised": off, "negative_mass": 0.0}
    numbers |= {"confusion": [[i + j for j in range(K)] for i in range(K)], "warnings": ["gradient masking?"]}
    return {"checkpoint": name, "epoch": epoch, **how, **numbers, **more}


ROWS = [row(1, 0.1, 0.2), row(2, 0.3, 0.4, warnings=["<b>alarm</b>"]), row(3, None, None), row(4, 0.1, 0.1)]


ENDS = [
    measure("best.test", 2, 0.203, 0.4, sharing=[[1] * 6] * 6, sharing_auc=0.93),
    measure("last", 4, 0.061, 0.1),
]


class Page(HTMLParser):
    """Every tag of a page with its attributes, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of each tag of this name."""
        return [attributes for tag, attributes in self.tags if tag == name]

    def values(self, *names: str) -> list[str]:
        """The values of attributes of these names, of any tag."""
        return [value or "" for _, attributes in self.tags for k, value in attributes.items() if k in names]


def visible_text(html: str) -> str:
    """The words of a page, those of neighbouring cells and boxes apart."""
    body = re.sub(r"<(style|script).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def page_text(path: Path) -> str:
    """The words of a page in a file."""
    return visible_text(path.read_text())


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def foreign(name: str, robust: float, off: float, **more: Any) -> dict[str, Any]:
    """What `measure` writes about a stranger's file."""
    extra: dict[str, Any] = {
        "run": "",
        "chosen_by": None,
        "class_names": EVIL,
        "model": "PreActResNet-18 <w>",
    }
    extra |= {"icas": 30 * off + 3, "icas_normalised": off + 0.1, "icas_matrix": square(6, off + 0.1)}
    extra |= {"all_pairs_cas": 0.6, "all_pairs_matrix": square(6, 0.02), "sharing_confusion": 0.414}
    extra |= {"classwise_clean": [0.5, None, 0.5, 0.5, 0.5, 0.5], "loaded": ["removed the prefix 'module.'"]}
    pair = {"i": 0, "j": 2, "classes": [EVIL[0], EVIL[2]], "C": off}
    ends: dict[str, Any] = {"clean": [0.47, 0.53], "robust": [robust - 0.02, robust + 0.02]}
    ends |= {"cas": [30 * off - 1, 30 * off + 1], "icas": None, "level": 0.9, "bias": {"cas": 0.1}}
    extra |= {"pairs": [pair], "intervals": ends}
    return {**measure(name, 1, robust, off), "epoch": None, **extra, **more}


def compared(**more: Any) -> dict[str, Any]:
    both = {"robust": [0.203, 0.061], "cas": [12.0, 3.0], "icas": [15.0, 6.0], "clean": [0.5, 0.5]}
    ends = {"d_robust": [0.11, 0.17], "d_cas": [8.4, 9.6], "d_clean": [-0.01, 0.01], "level": 0.9}
    pair = {"i": 0, "j": 2, "classes": [EVIL[0], EVIL[2]], "a": 0.4, "b": 0.1, "change": 0.3}
    classes = [{"class": n, "a": 0.2, "b": 0.1 * i, "change": 0.2 - 0.1 * i} for i, n in enumerate(EVIL)]
    spread = {"a": 0.241, "b": 0.166, "difference": 0.075, "interval": [0.064, 0.086]}
    saliency = {"grid": "grid.png", "layer": "layer4.1", "at": "adversarial images", "n": 174, "shown": 12}
    saliency |= {"half_mass_area": spread, "entropy": spread}
    how = {"a": "one.pt", "b": "two <pt>", "attack": ATTACK, "n": 1000, "split": "test"}
    told = {"d_robust": 0.142, "d_cas": 9.0, "d_icas": 9.0, "d_clean": 0.0, "intervals": ends}
    told |= {"C_difference": square(6, 0.3), "pairs": [pair], "classes": classes, "saliency": saliency}
    return {"comparison": {**how, **both, **told, **more}}


def write_results(folder: Path, objects: Any, name: str = "measure.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(result_file(objects)))
    return folder / name


FOREIGN = [foreign("one.pt", 0.203, 0.4), foreign("two <pt>", 0.061, 0.1), compared()]
